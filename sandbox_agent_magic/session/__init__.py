"""The composition root: settings, provider, executor, loop and notebook come together here."""

from .run import Watcher
from .session import Session

__all__ = ["Session", "Watcher"]
