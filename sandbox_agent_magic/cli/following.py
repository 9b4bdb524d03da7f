"""Lets whoever waits for a notebook follow what its agents are doing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Protocol, TextIO

from nbclient import NotebookClient
from nbformat import NotebookNode

from ..display import ERASE, RUN_METADATA, is_live
from ..notebook.record import Spent
from ..outputs import clean_text, strip_colours
from ..types import JSON


class Follower(Protocol):
    """Shows how a notebook goes on."""

    def cell(self, number: int, total: int, source: str) -> None:
        """The code cell of this number begins."""

    def agent(self, line: str, *, running: bool, spent: Spent) -> None:
        """What an agent cell is doing now, or how it ended; `spent` is what all of them used so far."""


class FollowedClient(NotebookClient):
    """A notebook client that tells a follower of cells and of the state of agent cells.

    Args:
        notebook: what to execute.
        follower: is told.
        **options: those of `NotebookClient`.
    """

    def __init__(self, notebook: NotebookNode, *, follower: Follower, **options: object) -> None:
        super().__init__(notebook, on_cell_start=self._begin, **options)
        self._follower = follower
        self._total = sum(cell.cell_type == "code" for cell in notebook.cells)
        self._done = 0
        self._areas: dict[str, Spent] = {}

    @property
    def spent(self) -> Spent:
        """What the agent cells used so far."""
        return sum(self._areas.values(), Spent())

    def process_message(self, msg: dict[str, JSON], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Look at a message of the kernel before it is handled."""
        content = msg.get("content")
        if msg.get("msg_type") in ("display_data", "update_display_data") and isinstance(content, dict):
            self._look_at(content)
        return super().process_message(msg, cell, cell_index)

    def _begin(self, cell: NotebookNode, cell_index: int) -> None:  # noqa: ARG002
        if cell.cell_type == "code":
            self._done += 1
            self._follower.cell(self._done, self._total, cell.source)

    def _look_at(self, content: dict[str, JSON]) -> None:
        metadata, data, transient = content.get("metadata"), content.get("data"), content.get("transient")
        about = metadata.get(RUN_METADATA) if isinstance(metadata, dict) else None
        if not isinstance(about, dict) or not isinstance(data, dict):
            return
        area = transient.get("display_id") if isinstance(transient, dict) else None
        self._areas[str(area)] = _spent(about.get("usage"))
        line = strip_colours(clean_text(str(data.get("text/plain", "")))).partition("\n")[0]
        self._follower.agent(line, running=about.get("status") == "running", spent=self.spent)


class TextFollower:
    """Shows a notebook's run as lines of text, in a terminal with a last line that moves.

    Args:
        out: where to write.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = is_live(out)

    def cell(self, number: int, total: int, source: str) -> None:
        """A line for each cell."""
        print(f"[{number}/{total}] {first_line(source)}", file=self._out, flush=True)

    def agent(self, line: str, *, running: bool, spent: Spent) -> None:  # noqa: ARG002
        """How an agent cell ended, and in a terminal what it does now."""
        if not running:
            self._out.write(f"{ERASE if self._live else ''}      {line}\n")
        elif self._live:
            self._out.write(f"{ERASE}      {line}"[: shutil.get_terminal_size().columns + len(ERASE) - 1])
        self._out.flush()


def first_line(source: str) -> str:
    """What a cell is about, in one line: of a magic, also its first line of text."""
    lines = strip_colours(clean_text(source)).strip().splitlines()
    line = lines[0] if lines else "(empty)"
    rest = next((text for text in lines[1:] if text.strip()), "")
    return f"{line}  {rest}"[:100] if line.startswith("%%") else line[:100]


def _spent(usage: object) -> Spent:
    found: Mapping[str, object] = usage if isinstance(usage, dict) else {}
    tokens = [Spent.read({"tokens": found.get(name)}).tokens for name in ("input_tokens", "output_tokens")]
    cost = Spent.read({"cost_usd": found.get("cost_usd")}).cost_usd
    return Spent(sum(tokens), cost, int(cost is None and any(tokens)))
