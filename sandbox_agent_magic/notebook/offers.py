"""What a kernel remembers of the cells that it published: to offer them again, and to know which ones are replaced.

A page that was closed, reloaded or asleep while an agent worked has missed its cells. The kernel keeps those of the
latest run of each agent cell, within bounds, and offers them whenever a page comes back; inserting is idempotent, so
nothing has to be acknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..outputs import CELLS_MIMETYPE
from ..types import JSON, CellWriter, NotebookCell, RunResult
from .cells import source_digest

PAYLOAD_VERSION = 1
INSERTED = "sandbox_agent_inserted"
"""Metadata of an agent cell: ids of the cells that were inserted for it. What the reader deletes stays deleted."""

_MAX_BYTES = 64 << 20
_MAX_CELLS = 500
_QUEUED_TOGETHER = timedelta(seconds=5)
"""Run All sends its requests at once; a page with a thousand cells was seen to take two seconds for it."""


@dataclass(frozen=True, slots=True)
class CellRequest:
    """What the front end said when it asked for a cell to be run."""

    cell_id: str | None = None
    """None where the front end does not say it."""
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    """The cell's own, in JupyterLab and Notebook 7."""
    source: str = ""
    sent: datetime | None = None
    """By the page's clock."""


@dataclass(slots=True)
class KeptRun:
    """The published cells of a run."""

    run_id: str
    anchor: str | None
    """Id of its agent cell."""
    cells: list[NotebookCell] = field(default_factory=list)
    bytes: int = 0


def payload(run_id: str, anchor: str | None, cells: Iterable[NotebookCell]) -> dict[str, JSON]:
    """What goes out under `CELLS_MIMETYPE`: cells of a run, to be inserted below its agent cell."""
    # Shallow copies are enough: publishing serialises at once.
    return {"version": PAYLOAD_VERSION, "run": run_id, "after": anchor, "cells": [_as_json(cell) for cell in cells]}


class Offers:
    """Keeps the latest run of each agent cell.

    Args:
        max_bytes: of all cells, as JSON; the oldest runs go first.
        max_cells: of all runs.
    """

    def __init__(self, *, max_bytes: int = _MAX_BYTES, max_cells: int = _MAX_CELLS) -> None:
        self._max_bytes = max_bytes
        self._max_cells = max_cells
        self._runs: dict[str | None, KeptRun] = {}
        """By agent cell, the latest last."""
        self._replaced: dict[str, datetime | None] = {}
        """Ids of cells of earlier runs, and up to when a request for one of them was queued before that was known."""

    def begin(self, run_id: str, request: CellRequest) -> None:
        """An agent cell runs: the cells of its earlier runs are replaced."""
        earlier = self._runs.pop(request.cell_id, None)
        listed = request.metadata.get(INSERTED)
        replaced = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
        replaced |= {cell["id"] for cell in earlier.cells} if earlier is not None else set()
        until = max(request.sent + _QUEUED_TOGETHER, datetime.now(UTC)) if request.sent is not None else None
        self._replaced.update(dict.fromkeys(replaced, until))
        self._runs[request.cell_id] = KeptRun(run_id, request.cell_id)

    def keep(self, run_id: str, cell: NotebookCell) -> None:
        """Remember a cell that was published; the oldest go where there is no room."""
        run = next((run for run in self._runs.values() if run.run_id == run_id), None)
        size = len(json.dumps(cell))
        if run is None or size > self._max_bytes:
            return
        run.cells.append(cell)
        run.bytes += size
        while self._size() > self._max_bytes or self._count() > self._max_cells:
            oldest = next(iter(self._runs.values()))
            if oldest is run:
                run.bytes -= len(json.dumps(run.cells.pop(0)))
            else:
                self._runs.pop(oldest.anchor)

    def runs(self) -> list[KeptRun]:
        """What is kept, in the order in which the runs began."""
        # A copy at once: ipykernel 7.3 lets a page ask from another thread.
        return [run for run in list(self._runs.values()) if run.cells]

    def take_last(self) -> KeptRun | None:
        """The run that began last, which is kept no longer; None where there is none."""
        runs = self.runs()
        return self._runs.pop(runs[-1].anchor) if runs else None

    def is_replaced(self, request: CellRequest) -> bool:
        """Whether a cell was queued, unedited, before its agent cell ran again and replaced it."""
        if request.cell_id is None or request.cell_id not in self._replaced:
            return False
        note = request.metadata.get("sandbox_agent")
        digest = note.get("source_sha256") if isinstance(note, dict) else None
        if digest is not None and digest != source_digest(request.source):
            return False
        until = self._replaced[request.cell_id]
        # A later request is for a cell that the reader has brought back.
        return until is None or request.sent is None or request.sent <= until

    def _size(self) -> int:
        return sum(run.bytes for run in self._runs.values())

    def _count(self) -> int:
        return sum(len(run.cells) for run in self._runs.values())


class KeepingWriter:
    """A `CellWriter` that has `offers` remember what goes through it.

    Args:
        inner: the writer that publishes.
        offers: remembers.
        run_id: of the run.
    """

    def __init__(self, inner: CellWriter, offers: Offers, *, run_id: str) -> None:
        self._inner = inner
        self._offers = offers
        self._run_id = run_id

    def add(self, cell: NotebookCell) -> None:
        """Remember one finished cell, then publish it: a page that asks at once must find it."""
        self._offers.keep(self._run_id, cell)
        self._inner.add(cell)

    def finish(self, result: RunResult) -> None:
        """No more cells will come."""
        self._inner.finish(result)


def undo_bundle(run: KeptRun) -> dict[str, JSON]:
    """Asks the page to remove a run's cells; where no page listens, the text says what to do."""
    count = f"{len(run.cells)} cell{'s' if len(run.cells) != 1 else ''}"
    return {
        CELLS_MIMETYPE: {**payload(run.run_id, run.anchor, []), "undo": True},
        "text/plain": f"This front end cannot remove cells: delete the {count} of the agent's last run yourself.",
    }


def _as_json(cell: NotebookCell) -> dict[str, JSON]:
    copy: dict[str, JSON] = {}
    for key, value in cell.items():
        copy[key] = value  # type: ignore[assignment]  # a NotebookCell is JSON, key by key
    return copy
