"""Draws again while nothing happens: a model that is silent, a step that computes, a wait before a retry."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable


class Ticker:
    """Calls `draw` in a thread of its own: soon after each `wake`, and regularly.

    Args:
        draw: called without arguments, never twice at once; says whether it has shown something.
        least_s: seconds between two calls, at least.
        most_s: seconds between two calls, at most.
    """

    def __init__(self, draw: Callable[[], bool], *, least_s: float, most_s: float) -> None:
        self._draw = draw
        self._least_s = least_s
        self._most_s = most_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._started = False

    def wake(self) -> None:
        """Have it draw soon. The first call starts the thread."""
        if self._started:
            self._wake.set()
            return
        self._started = True
        # A kernel knows by a context variable which cell an output belongs to.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="sandbox-agent-display", daemon=True).start()

    def stop(self) -> None:
        """Draw no more. Does not wait for a call that is under way. Idempotent."""
        self._stop.set()
        self._wake.set()

    def _run(self) -> None:
        drawn = True
        while not (drawn and self._stop.wait(self._least_s)):
            self._wake.wait(self._most_s - self._least_s)
            self._wake.clear()
            if self._stop.is_set():
                return
            drawn = self._draw()  # a look that changed nothing must not keep the next event waiting
