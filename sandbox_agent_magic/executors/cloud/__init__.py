"""Sandboxes in a provider's cloud: one executor, and one adapter for each provider's SDK."""

from .engine import CloudEngine, CloudFailure, CloudSandbox, CloudTarget
from .executor import CloudExecutor
from .target import target_of

__all__ = ["CloudEngine", "CloudExecutor", "CloudFailure", "CloudSandbox", "CloudTarget", "target_of"]
