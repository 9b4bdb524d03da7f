"""One area in the agent cell's output, updated in place; it ends as one line that opens a transcript."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict

from ..types import JSON, Event, RunFinished, RunStatus
from .markup import finished, working
from .ticker import Ticker
from .view import RunView
from .words import count_steps, summary

_LEAST_S = 0.1
"""Ten updates a second; at fifty the page was measured to stutter (worst frame 264 ms)."""
_MOST_S = 0.5
"""So that no second is skipped."""

UpdateHook = Callable[[dict[str, JSON], dict[str, JSON]], None]
"""Shows a mime bundle with its metadata in place of the one before. Called from two threads, never at once."""
RUN_METADATA = "sandbox_agent_run"
"""Of the area: whether the run goes on or how it ended, and what it used, for who executes a notebook and wants to
know."""


class NotebookDisplay:
    """Shows a run in one area.

    The first event draws at once, so that the area stands above the cells that follow; then a thread draws, which goes
    on while the model is silent.

    Args:
        update: shows a mime bundle in place of the one before.
    """

    def __init__(self, update: UpdateHook) -> None:
        self._update = update
        self._view = RunView()
        self._lock = threading.Lock()
        self._ticker = Ticker(self._tick, least_s=_LEAST_S, most_s=_MOST_S)
        self._drawn = ""
        self._news = False
        self._ended = False

    def __call__(self, event: Event) -> None:
        """Take one event of the run."""
        with self._lock:
            self._news = self._view.take(event) or self._news
            if isinstance(event, RunFinished):
                self._end(summary(event.result), event.result.status)
                return
            if not self._drawn:
                self._draw()
        self._ticker.wake()

    def close(self) -> None:
        """The run is over. If it told no end, an error ended it, whose text is shown elsewhere."""
        with self._lock:
            if self._drawn and not self._ended:
                self._view.cut_off()
                self._end(f"Stopped by an error after {count_steps(self._view.steps)}.", "failed")
            self._ended = True
        self._ticker.stop()

    def _tick(self) -> bool:
        with self._lock:
            return not self._ended and self._draw()

    def _draw(self) -> bool:
        """Show what there is now, unless that is shown already."""
        view = self._view
        status, tail, news = view.status, view.tail, self._news
        html = working(status, view.steps, tail, news=False)
        if html == self._drawn and not news:
            return False
        self._drawn, self._news = html, False
        self._update(
            {
                "text/html": working(status, view.steps, tail, news=True) if news else html,
                "text/plain": f"Agent: {status}\n{tail}".rstrip(),
            },
            {RUN_METADATA: self._about("running")},
        )
        return True

    def _end(self, line: str, status: RunStatus) -> None:
        self._ended = True
        self._ticker.stop()
        bundle: dict[str, JSON] = {"text/html": finished(line, self._view.entries), "text/plain": line}
        self._update(bundle, {RUN_METADATA: self._about(status)})

    def _about(self, status: str) -> dict[str, JSON]:
        return {"status": status, "usage": dict(asdict(self._view.usage))}
