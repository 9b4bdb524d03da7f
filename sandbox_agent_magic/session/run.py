"""What one run needs beside the loop: who watches it, who gates it, within which bounds."""

from __future__ import annotations

from typing import Protocol

from ..notebook.cells import CellPlan
from ..settings import Settings
from ..types import CellWriter, Event, Limits, ReplyReceived, RunFinished, StepFinished
from .budget import BudgetGate


class Watcher(Protocol):
    """Shows a run to the reader."""

    def __call__(self, event: Event) -> None:
        """Take one event."""

    def fail(self) -> None:
        """The run ended by an error, which is shown elsewhere."""


class Emitter:
    """Hands each event to the watcher, the cells that follow from it to the writer, and what it used to the gate."""

    def __init__(self, watcher: Watcher | None, writer: CellWriter | None, plan: CellPlan, gate: BudgetGate) -> None:
        self._watcher = watcher
        self._gate = gate
        self._writer = writer
        self._plan = plan
        self.codes: list[str] = []
        """Of the steps that worked."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, ReplyReceived):
            self._gate.spent(event.usage)
        if isinstance(event, StepFinished) and event.step.result.status == "ok":
            self.codes.append(event.step.code)
        if self._writer is not None and isinstance(event, StepFinished):
            for cell in self._plan.step(event.step):
                self._writer.add(cell)
        if self._writer is not None and isinstance(event, RunFinished):
            for cell in self._plan.finish(event.result):
                self._writer.add(cell)
            self._writer.finish(event.result)
        if self._watcher is not None:
            self._watcher(event)


def limits_of(settings: Settings) -> Limits:
    """The loop's bounds, as the settings say."""
    return Limits(
        max_iterations=settings.max_iterations,
        max_retry=settings.max_retry,
        request_timeout_s=settings.request_timeout,
        idle_timeout_s=settings.agent_idle_timeout,
        cell_timeout_s=settings.agent_cell_timeout,
    )
