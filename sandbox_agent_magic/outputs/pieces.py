"""Text that grows at its end, piece by piece, without being copied each time."""

from __future__ import annotations

from collections import deque

_SMALL = 4_096
"""Characters: a shorter last piece takes the next one in, so that many short pieces stay few."""


class Pieces:
    """Pieces of one text, in order."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self.size = 0
        """Characters."""

    def add(self, text: str) -> None:
        """Put `text` at the end."""
        self.size += len(text)
        if self._pieces and len(self._pieces[-1]) < _SMALL:
            self._pieces[-1] += text
        else:
            self._pieces.append(text)

    def keep_last(self, characters: int) -> int:
        """Drop pieces at the beginning as long as this many characters are left; returns how many were dropped."""
        before = self.size
        while self._pieces and self.size - len(self._pieces[0]) >= characters:
            self.size -= len(self._pieces.popleft())
        return before - self.size

    def take(self) -> str:
        """All of it; it is empty afterwards."""
        text = "".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return text
