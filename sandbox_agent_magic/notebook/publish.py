"""Publish finished cells: the output is the message.

Each cell goes out as one `display_data` of our mimetype with markdown and text beside it, and its rich outputs follow
as ordinary displays marked as belonging to it. A front end with our module inserts the cells and swallows both; one
without shows code, text and pictures inside the agent cell; headless, both are stored in the notebook and `expand`
turns them into cells.
"""

from __future__ import annotations

from collections.abc import Callable

from ..outputs import CELLS_MIMETYPE
from ..types import JSON, NotebookCell, RunResult
from .fallback import is_rich, markdown_of, plain_of
from .offers import payload

PublishHook = Callable[[dict[str, JSON], dict[str, JSON]], None]
"""Displays a mime bundle with its metadata, as `IPython.display.publish_display_data` does."""


class CellPublisher:
    """A `CellWriter` that displays each cell in the agent cell's output.

    Args:
        publish: displays a mime bundle.
        run_id: of the run.
        anchor: id of the agent cell, where the front end says one.
    """

    def __init__(self, publish: PublishHook, *, run_id: str, anchor: str | None) -> None:
        self._publish = publish
        self._run_id = run_id
        self._anchor = anchor

    def add(self, cell: NotebookCell) -> None:
        """Display one finished cell, then its rich outputs."""
        bundle: dict[str, JSON] = {
            CELLS_MIMETYPE: payload(self._run_id, self._anchor, [cell]),
            "text/markdown": markdown_of(cell),
            "text/plain": plain_of(cell),
        }
        self._publish(bundle, {})
        for output in cell.get("outputs", []):
            if (output["output_type"] == "display_data" or output["output_type"] == "execute_result") and is_rich(
                output
            ):
                belongs: dict[str, JSON] = {"run": self._run_id, "cell": cell["id"]}
                self._publish(dict(output["data"]), {**output["metadata"], "sandbox_agent": belongs})

    def finish(self, result: RunResult) -> None:
        """Nothing is held back, so nothing is left to do."""
