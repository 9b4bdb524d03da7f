"""How a cell looks where cells cannot be inserted: code and text as markdown, its rich outputs apart."""

from __future__ import annotations

from ..outputs import cap_text, text_of
from ..types import NotebookCell, Output
from .cells import fenced

_SHOWN_TEXT = 20_000
"""Bytes of a cell's text that are shown where cells cannot be inserted; the cell itself keeps all of it."""


def is_rich(output: Output) -> bool:
    """Whether an output is more than text, so that it has to be displayed for itself."""
    if output["output_type"] == "stream" or output["output_type"] == "error":
        return False
    return any(key != "text/plain" for key in output["data"])


def markdown_of(cell: NotebookCell) -> str:
    """A markdown cell as it is; a code cell's source and its text."""
    if cell["cell_type"] == "markdown":
        return cell["source"]
    text = text_outputs(cell)
    return fenced(cell["source"], "python") + (f"\n\n{fenced(text)}" if text else "")


def plain_of(cell: NotebookCell) -> str:
    """The same without markup."""
    text = text_outputs(cell)
    return cell["source"] + (f"\n\n{text}" if text else "")


def text_outputs(cell: NotebookCell) -> str:
    """What `cell` shows as plain text, capped."""
    shown = [output for output in cell.get("outputs", []) if not is_rich(output)]
    return cap_text(text_of(shown), _SHOWN_TEXT)
