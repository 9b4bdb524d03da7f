"""The loop between a model and the place where its code runs."""

from .loop import Agent
from .replay import REPLAY_HINT, Replay, replay

__all__ = ["REPLAY_HINT", "Agent", "Replay", "replay"]
