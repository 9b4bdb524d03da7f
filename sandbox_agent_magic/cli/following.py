"""Lets whoever waits for `sandbox-agent run` follow what its agents are doing."""

from __future__ import annotations

import shutil
from typing import TextIO

from nbclient import NotebookClient
from nbformat import NotebookNode

from ..display import ERASE, RUN_METADATA, is_live
from ..outputs import clean_text, strip_colours
from ..types import JSON


class FollowedClient(NotebookClient):
    """A notebook client that shows the state of agent cells: how each ended, and in a terminal what it does now.

    Args:
        notebook: what to execute.
        out: where to show it.
        **options: those of `NotebookClient`.
    """

    def __init__(self, notebook: NotebookNode, *, out: TextIO, **options: object) -> None:
        super().__init__(notebook, **options)
        self._out = out
        self._live = is_live(out)

    def process_message(self, msg: dict[str, JSON], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Look at a message of the kernel before it is handled."""
        content = msg.get("content")
        if msg.get("msg_type") in ("display_data", "update_display_data") and isinstance(content, dict):
            self._look_at(content)
        return super().process_message(msg, cell, cell_index)

    def _look_at(self, content: dict[str, JSON]) -> None:
        metadata, data = content.get("metadata"), content.get("data")
        about = metadata.get(RUN_METADATA) if isinstance(metadata, dict) else None
        if not isinstance(about, dict) or not isinstance(data, dict):
            return
        line = strip_colours(clean_text(str(data.get("text/plain", "")))).partition("\n")[0]
        if about.get("status") != "running":
            self._out.write(f"{ERASE if self._live else ''}      {line}\n")
        elif self._live:
            self._out.write(f"{ERASE}      {line}"[: shutil.get_terminal_size().columns + len(ERASE) - 1])
        self._out.flush()
