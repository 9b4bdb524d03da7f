"""Allow-lists that can be read."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of `text`, as a set."""
    return frozenset(text.split())
