"""Turn the cells that a headless run stored as outputs into real cells, and back before running again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, cast

from ..outputs import CELLS_MIMETYPE
from .cells import source_digest
from .files import give_ids
from .offers import INSERTED

if TYPE_CHECKING:
    from nbformat import NotebookNode


class _Published(TypedDict):
    id: str
    metadata: dict[str, dict[str, object]]


_AGENT_MAGIC = "%%agent"
_NOTE = "sandbox_agent"
"""Metadata of an inserted cell: where it comes from."""


def expand(notebook: NotebookNode) -> NotebookNode:
    """Insert the published cells of each agent cell below it, and drop the outputs that carried them.

    Idempotent: a cell that is in the notebook already, or was there and has been deleted, is not inserted again. Cells
    of an earlier run go, but not those that the reader edited.

    Args:
        notebook: of nbformat 4; changed in place and returned.
    """
    from nbformat import from_dict

    give_ids(notebook)
    present = {cell.id for cell in notebook.cells}
    earlier: dict[str, list[str]] = {}
    runs: set[str] = set()
    for cell in list(notebook.cells):
        published = _take_out(cell) if cell.cell_type == "code" else {}
        if not published:
            continue
        taken = _inserted(cell)
        earlier[cell.id] = taken
        runs |= {str(each["metadata"][_NOTE].get("run")) for each in published.values()}
        fresh = [each for name, each in published.items() if name not in present and name not in taken]
        for each in fresh:
            each["metadata"][_NOTE]["agent_cell"] = cell.id
        at = _slot(notebook, cell, runs)
        notebook.cells[at:at] = [from_dict(each) for each in fresh]
        present |= set(published)
        cell.metadata[INSERTED] = [*dict.fromkeys([*taken, *published])]
    return _drop(notebook, earlier, runs)


def drop_earlier(notebook: NotebookNode) -> NotebookNode:
    """Remove the cells of earlier runs that the agent cells about to run will bring anew.

    Those that the reader edited stay, and belong to no agent cell any more.

    Args:
        notebook: changed in place and returned.
    """
    earlier = {cell.id: _inserted(cell) for cell in notebook.cells if is_agent_cell(cell) and "id" in cell}
    for cell in notebook.cells:
        cell.metadata.pop(INSERTED, None)
    return _drop(notebook, earlier, set())


def is_agent_cell(cell: NotebookNode) -> bool:
    """Whether a cell starts with `%%agent`."""
    return bool(cell.cell_type == "code" and cell.source.split(maxsplit=1)[:1] == [_AGENT_MAGIC])


def _take_out(cell: NotebookNode) -> dict[str, _Published]:
    """The cells that `cell`'s outputs carry, by id; those outputs, and the ones that only accompany them, go."""
    published, kept = {}, []
    for output in cell.get("outputs", []):
        payload = output.get("data", {}).get(CELLS_MIMETYPE)
        if payload is not None:
            published.update({each["id"]: each for each in _valid_cells(payload)})
        elif not _belongs(output):
            kept.append(output)
    cell.outputs = kept
    return published


def _slot(notebook: NotebookNode, agent: NotebookNode, runs: set[str]) -> int:
    """Where the next cells of a run go: below the agent cell, and below what of the run is there already."""
    at = notebook.cells.index(agent)
    for index in range(at + 1, len(notebook.cells)):
        cell = notebook.cells[index]
        if is_agent_cell(cell):
            break
        note = cell.metadata.get(_NOTE)
        if isinstance(note, dict) and note.get("agent_cell") == agent.id and str(note.get("run")) in runs:
            at = index
    return int(at) + 1


def _drop(notebook: NotebookNode, earlier: Mapping[str, Sequence[str]], runs: set[str]) -> NotebookNode:
    """Remove cells that were inserted earlier, and detach those of them that were edited. A reader's own copies stay.

    Args:
        notebook: changed in place and returned.
        earlier: ids of what was inserted, by id of the agent cell.
        runs: whose cells stay.
    """
    kept = []
    for cell in notebook.cells:
        note = cell.metadata.get(_NOTE)
        ours = isinstance(note, dict) and cell.get("id") in earlier.get(str(note.get("agent_cell")), ())
        if ours and str(note.get("run")) not in runs:
            if note.get("source_sha256") == source_digest(cell.source):
                continue
            del note["agent_cell"]
            note["detached"] = True
        kept.append(cell)
    notebook.cells = kept
    return notebook


def _inserted(cell: NotebookNode) -> list[str]:
    """Ids of the cells that were inserted for an agent cell."""
    listed = cell.metadata.get(INSERTED)
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _belongs(output: NotebookNode) -> bool:
    """A rich output that was also shown beside its cell."""
    return isinstance(output.get("metadata", {}).get(_NOTE), dict)


def _valid_cells(payload: object) -> list[_Published]:
    """The payload's cells that look like ours; anybody can write a notebook file."""
    cells = payload.get("cells") if isinstance(payload, dict) else None
    found = [
        cell
        for cell in (cells if isinstance(cells, list) else [])
        if isinstance(cell, dict)
        and cell.get("cell_type") in ("code", "markdown")
        and isinstance(cell.get("id"), str)
        and isinstance(cell.get("source"), str)
        and isinstance(cell.get("metadata"), dict)
        and isinstance(cell["metadata"].get(_NOTE), dict)
    ]
    return cast("list[_Published]", found)
