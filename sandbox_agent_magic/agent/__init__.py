"""The loop between a model and the place where its code runs."""

from .loop import Agent

__all__ = ["Agent"]
