"""Ways to leave a run's result in the notebook without real cells: in the agent cell, or as the next input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..types import NotebookCell, RunResult
from .cells import fenced
from .fallback import is_rich, markdown_of, plain_of, text_outputs
from .publish import PublishHook


class InlineWriter:
    """A `CellWriter` that shows code, outputs and answer as ordinary outputs of the agent cell, where they stay.

    Args:
        publish: displays a mime bundle.
    """

    def __init__(self, publish: PublishHook) -> None:
        self._publish = publish

    def add(self, cell: NotebookCell) -> None:
        """Display one finished cell, then its rich outputs."""
        self._publish({"text/markdown": markdown_of(cell), "text/plain": plain_of(cell)}, {})
        _show_rich(cell, self._publish)

    def finish(self, result: RunResult) -> None:
        """Nothing is held back."""


class NextInputWriter:
    """A `CellWriter` that offers the code of all steps as the next input; a front end takes one only.

    Args:
        set_next_input: offers a text.
        publish: displays outputs and answer; None where the reader has seen them already.
    """

    def __init__(self, set_next_input: Callable[[str], None], publish: PublishHook | None = None) -> None:
        self._set_next_input = set_next_input
        self._publish = publish
        self._sources: list[str] = []

    def add(self, cell: NotebookCell) -> None:
        """Keep the code; display the rest."""
        if cell["cell_type"] == "code":
            self._sources.append(cell["source"])
        if self._publish is None:
            return
        if cell["cell_type"] == "markdown":
            self._publish({"text/markdown": cell["source"], "text/plain": cell["source"]}, {})
            return
        text = text_outputs(cell)
        if text:
            self._publish({"text/markdown": fenced(text), "text/plain": text}, {})
        _show_rich(cell, self._publish)

    def finish(self, result: RunResult) -> None:
        """Offer the code; where the cell fails by an interrupt, notebooks take no next input, so it is displayed."""
        if not self._sources:
            return
        code = joined(self._sources)
        if result.status == "interrupted" and self._publish is not None:
            self._publish({"text/markdown": fenced(code, "python"), "text/plain": code}, {})
        else:
            self._set_next_input(code)


class AnswerWriter:
    """A `CellWriter` that displays the answer and leaves the code to the transcript.

    Args:
        publish: displays a mime bundle.
    """

    def __init__(self, publish: PublishHook) -> None:
        self._publish = publish

    def add(self, cell: NotebookCell) -> None:
        """Display a markdown cell."""
        if cell["cell_type"] == "markdown":
            self._publish({"text/markdown": cell["source"], "text/plain": cell["source"]}, {})

    def finish(self, result: RunResult) -> None:
        """Nothing is held back."""


def joined(sources: Sequence[str]) -> str:
    """The sources of a run's code cells as one cell, under one `%%sandbox` line if they have the same.

    A cell magic of the code's own must be a cell's first line: then the last cell stands alone.
    """
    first, _, _ = sources[0].partition("\n")
    magic = (
        first if first.startswith("%%sandbox") and all(source.startswith(f"{first}\n") for source in sources) else ""
    )
    bare = [source.removeprefix(magic).strip("\n") for source in sources]
    if len(sources) > 1 and any(source.startswith("%%") for source in bare):
        return sources[-1]
    return "\n".join(part for part in (magic, "\n\n".join(bare)) if part)


def _show_rich(cell: NotebookCell, publish: PublishHook) -> None:
    for output in cell.get("outputs", []):
        if (output["output_type"] == "display_data" or output["output_type"] == "execute_result") and is_rich(output):
            publish(dict(output["data"]), dict(output["metadata"]))
