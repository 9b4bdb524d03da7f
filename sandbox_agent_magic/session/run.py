"""What one run needs beside the loop: who watches it, who gates it, within which bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..notebook.cells import CellPlan
from ..settings import Settings
from ..types import CellWriter, Event, Limits, NotebookCell, ReplyReceived, RunFinished, Step, StepFinished
from .budget import BudgetGate


class Watcher(Protocol):
    """Shows a run to the reader."""

    def __call__(self, event: Event) -> None:
        """Take one event."""

    def close(self) -> None:
        """The run is over, however it ended; an error is shown elsewhere."""


class Emitter:
    """Hands each event to the watcher, the cells that follow from it to the writer, and what it used to the gate."""

    def __init__(self, watcher: Watcher | None, writer: CellWriter | None, plan: CellPlan, gate: BudgetGate) -> None:
        self._watcher = watcher
        self._gate = gate
        self._writer = writer
        self._plan = plan
        self.codes: list[str] = []
        """Of the steps that worked."""
        self._steps = 0
        """Whose cells were planned."""
        self._cells: list[NotebookCell] = []
        """That were planned and not written yet."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, ReplyReceived):
            self._gate.spent(event.usage)
        if isinstance(event, StepFinished) and event.step.result.status == "ok":
            self.codes.append(event.step.code)
        if self._writer is not None and isinstance(event, StepFinished):
            self._write([event.step], self._writer)
        if self._writer is not None and isinstance(event, RunFinished):
            self._write(event.result.steps, self._writer)  # an interrupt may have come while one was being written
            self._cells += self._plan.finish(event.result)
            self._write([], self._writer)
            self._writer.finish(event.result)
        if self._watcher is not None:
            self._watcher(event)

    def _write(self, steps: Sequence[Step], writer: CellWriter) -> None:
        """Plan and write the cells of those steps that are new; a cell stays planned until it is written in full."""
        for step in steps:
            if step.index > self._steps:
                self._cells += self._plan.step(step)
                self._steps = step.index
        while self._cells:
            writer.add(self._cells[0])
            del self._cells[0]


def limits_of(settings: Settings) -> Limits:
    """The loop's bounds, as the settings say."""
    return Limits(
        max_iterations=settings.max_iterations,
        max_retry=settings.max_retry,
        request_timeout_s=settings.request_timeout,
        idle_timeout_s=settings.agent_idle_timeout,
        cell_timeout_s=settings.agent_cell_timeout,
    )
