"""Reasoning that a server leaves in the text, between `<think>` tags, as many local ones do."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkingSplitter:
    """Parts the pieces of a text into reasoning and reply. Only a text that begins with the tag has reasoning in it."""

    def __init__(self) -> None:
        self._held = ""
        self._where = "start"

    def feed(self, piece: str) -> tuple[str, str]:
        """What of the text so far is reply, and what is reasoning."""
        if self._where == "closed":  # the line breaks between the two belong to neither
            piece = piece.lstrip("\n")
            self._where = "reply" if piece else "closed"
        if self._where in ("reply", "closed"):
            return piece, ""
        self._held += piece
        if self._where == "start":
            begun = self._held.lstrip()
            if not begun.startswith(_OPEN):
                if _OPEN.startswith(begun):
                    return "", ""  # it may become the tag
                self._where = "reply"
                return self._take(), ""
            self._where = "thinking"
            self._held = begun[len(_OPEN) :]
        thought, closed, reply = self._held.partition(_CLOSE)
        if closed:
            self._where, self._held = "closed", ""
            return self.feed(reply)[0], thought
        keep = next((size for size in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:size])), 0)
        self._held = thought[len(thought) - keep :]
        return "", thought[: len(thought) - keep]

    def rest(self) -> tuple[str, str]:
        """What was held back, at the text's end."""
        return (self._take(), "") if self._where == "start" else ("", self._take())

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held
