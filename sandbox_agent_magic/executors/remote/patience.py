"""How long to wait for something far away, and word of it for whoever waits."""

from __future__ import annotations

import time

from ...types import TextHook, no_text

_FIRST_S = 5.0
"""Before the first word: most starts take less."""
_NEXT_S = 30.0
_LOOK_S = 0.5


class Patience:
    """A deadline, and somebody who is told now and then that it is being waited for.

    Args:
        seconds: until it is over.
        say: takes a line of text.
    """

    def __init__(self, seconds: float, say: TextHook = no_text) -> None:
        self.seconds = seconds
        self._say = say
        self._began = time.monotonic()
        self.deadline = self._began + seconds
        """Of `time.monotonic`."""
        self._next = self._began + _FIRST_S

    @property
    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def look_s(self) -> float:
        """How long to block before `tell` is due again."""
        return min(_LOOK_S, self.left)

    def tell(self, what: str) -> None:
        """Say what is being waited for, if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _NEXT_S
            self._say(f"{what}: {now - self._began:.0f} s so far, at most {self.seconds:g} s.\n")

    def sleep(self, seconds: float, what: str) -> None:
        """Wait, at most until it is over."""
        end = min(time.monotonic() + seconds, self.deadline)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
            self.tell(what)
