"""Turn the cells that a headless run stored as outputs into real cells, and back before running again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import NotebookWriteError
from ..outputs import CELLS_MIMETYPE
from .cells import source_digest

if TYPE_CHECKING:
    from nbformat import NotebookNode

_AGENT_MAGIC = "%%agent"


def expand(notebook: NotebookNode) -> NotebookNode:
    """Insert the published cells of each agent cell below it, and drop the outputs that carried them.

    Idempotent: a cell that is in the notebook already, or was there and has been deleted, is not inserted again.

    Args:
        notebook: of nbformat 4; changed in place and returned.
    """
    from nbformat import from_dict

    present = {cell.get("id") for cell in notebook.cells}
    result = []
    for cell in notebook.cells:
        result.append(cell)
        if cell.cell_type != "code":
            continue
        fresh, kept = [], []
        taken = list(cell.metadata.get("sandbox_agent_inserted", []))
        for output in cell.get("outputs", []):
            payload = output.get("data", {}).get(CELLS_MIMETYPE)
            if _belongs(output):
                continue
            if payload is None:
                kept.append(output)
                continue
            for published in _valid_cells(payload):
                if published["id"] not in present and published["id"] not in taken:
                    published["metadata"]["sandbox_agent"]["agent_cell"] = cell.get("id", "")
                    fresh.append(from_dict(published))
                    present.add(published["id"])
                    taken.append(published["id"])
        cell.outputs = kept
        if fresh:
            cell.metadata["sandbox_agent_inserted"] = taken
            if "id" not in cell:
                notebook.nbformat_minor = max(5, notebook.nbformat_minor)
        result.extend(fresh)
    notebook.cells = result
    _give_ids(notebook)
    return notebook


def drop_earlier(notebook: NotebookNode) -> NotebookNode:
    """Remove the cells of earlier runs that the agent cells about to run will bring anew; edited ones stay.

    Args:
        notebook: changed in place and returned.
    """
    agents = {cell.get("id") for cell in notebook.cells if is_agent_cell(cell)}
    kept = []
    for cell in notebook.cells:
        note = cell.metadata.get("sandbox_agent", {})
        stale = note.get("agent_cell") in agents and note.get("source_sha256") == source_digest(cell.source)
        if not stale:
            kept.append(cell)
    for cell in kept:
        cell.metadata.pop("sandbox_agent_inserted", None)
    notebook.cells = kept
    return notebook


def is_agent_cell(cell: NotebookNode) -> bool:
    """Whether a cell starts with `%%agent`."""
    first = cell.source.lstrip().split(maxsplit=1)
    return cell.cell_type == "code" and bool(first) and first[0] == _AGENT_MAGIC


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook as nbformat 4.

    Raises:
        NotebookWriteError: it cannot be read, or is not a notebook.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError as exc:
        raise NotebookWriteError(
            f"Cannot read {path}.", why=f"Reason: {exc.strerror}.", hint="Check the path."
        ) from None
    except Exception as exc:  # nbformat raises its own, json's and jsonschema's classes
        reason = " ".join(str(exc).split())[:150]
        raise NotebookWriteError(
            f"{path} is not a notebook that can be read.", why=f"Reason: {reason}", hint="It must be an .ipynb file."
        ) from None
    return _give_ids(notebook)


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Validate and write, through a temporary file so that a full disk leaves no half notebook.

    Raises:
        NotebookWriteError: it is not valid, or cannot be written.
    """
    import nbformat

    temporary = path.with_name(f".{path.name}.partial")
    try:
        nbformat.validate(notebook)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        temporary.replace(path)
    except nbformat.ValidationError as exc:
        raise NotebookWriteError(f"The notebook for {path} is not valid.", why=str(exc.message)[:150]) from None
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise NotebookWriteError(
            f"Cannot write {path}.", why=f"Reason: {exc.strerror}.", hint="Choose another place with -o."
        ) from None


def _belongs(output: NotebookNode) -> bool:
    """A rich output that was also shown beside its cell."""
    return isinstance(output.get("metadata", {}).get("sandbox_agent"), dict)


def _valid_cells(payload: object) -> list[dict[str, dict[str, dict[str, object]]]]:
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
        and isinstance(cell["metadata"].get("sandbox_agent"), dict)
    ]
    return cast("list[dict[str, dict[str, dict[str, object]]]]", found)


def _give_ids(notebook: NotebookNode) -> NotebookNode:
    """Ids for the cells of a notebook older than nbformat 4.5, so that inserted cells can refer to their agent cell."""
    import secrets

    if notebook.nbformat_minor < 5:
        notebook.nbformat_minor = 5
    for cell in notebook.cells:
        if "id" not in cell:
            cell["id"] = secrets.token_hex(4)
    return notebook
