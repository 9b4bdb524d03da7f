"""How many notebooks go on: a line for each that ends, and in a terminal a bar below them that moves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from ...display import ERASE, is_live
from ...notebook.record import Spent
from ..words import clock, cost_of, fit, shown, tokens_of
from .pool import Run

_BAR = 12
"""Characters of the bar."""
_SIGN_OF_LIFE_S = 60.0
"""Where nothing moves, a line at least this often: a log that stays silent is taken for one of a hung command."""


class Progress:
    """Shows runs as they go on.

    Args:
        runs: all of them.
        out: where to write.
        clock: seconds, monotonic.
    """

    def __init__(self, runs: Sequence[Run], out: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs = runs
        self._out = out
        self._live = is_live(out)
        self._clock = clock
        self._began = self._written_at = clock()
        self._bar = ""
        self._told = {""}
        """Why runs were not started; an interrupt needs no word."""

    def ended(self, run: Run) -> None:
        """A line for a run that has come to its end, or for the first of those that are not started."""
        if run.status != "not started" or run.problem not in self._told:
            self.say(f"[{self._count()}] {shown(run.job.source)}: {how(run)}")
        if run.status == "not started":
            self._told.add(run.problem)

    def say(self, line: str) -> None:
        """A line of text, above the bar."""
        self._out.write(f"{ERASE if self._bar else ''}{line}\n")
        self._bar = ""
        self._written_at = self._clock()
        self.tick()

    def tick(self) -> None:
        """Draw the bar anew, if it has changed; without a terminal, a line now and then."""
        if not any(run.status in ("waiting", "running") for run in self._runs):
            self.close()
        elif self._live:
            self._draw(fit(self.bar, shutil.get_terminal_size().columns - 1))
        elif self._clock() - self._written_at >= _SIGN_OF_LIFE_S:
            self._written_at = self._clock()
            self._out.write(f"{self.bar}\n")
        self._out.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._out.write(ERASE)
            self._bar = ""
        self._out.flush()

    @property
    def duration_s(self) -> float:
        """How long it has been going on."""
        return self._clock() - self._began

    @property
    def bar(self) -> str:
        """Where it all stands, in one line."""
        running = [run for run in self._runs if run.status == "running"]
        bad = sum(run.status in ("failed", "interrupted", "time limit") for run in self._runs)
        done = len(self._runs) - len(running) - sum(run.status == "waiting" for run in self._runs)
        full = _BAR * done // len(self._runs)
        spent = sum((run.spent for run in self._runs), Spent())
        parts = [
            f"[{self._count()}] {'#' * full}{'.' * (_BAR - full)}",
            f"{len(running)} running",
            f"{bad} failed" if bad else "",
            cost_of(spent) if spent.cost_usd else "",
            clock(self.duration_s),
            _now(running[0]) if running else "",
        ]
        return "  ".join(part for part in parts if part)

    def _count(self) -> str:
        done = sum(run.status not in ("waiting", "running") for run in self._runs)
        return f"{done:>{len(str(len(self._runs)))}}/{len(self._runs)}"

    def _draw(self, bar: str) -> None:
        if bar != self._bar:
            self._bar = bar
            self._out.write(ERASE + bar)


def how(run: Run) -> str:
    """How a run ended, in one line."""
    if run.status == "skipped":
        day = run.job.earlier.day if run.job.earlier is not None else ""
        return f"skipped (finished on {day}; --force runs it again)"
    word = "stopped at the time limit" if run.status == "time limit" else run.status
    parts = [f"{word} in {clock(run.duration_s)}" if run.began else word]
    if run.spent.tokens:
        parts.append(f"{tokens_of(run.spent)} tokens, {cost_of(run.spent)}")
    return ", ".join(parts) + (f". {run.problem}" if run.problem else "")


def _now(run: Run) -> str:
    """What the one that runs longest is doing."""
    at = f" {run.cell}/{run.cells}" if run.cells else ""
    return f"{shown(run.job.source)}{at} {run.doing}".rstrip()
