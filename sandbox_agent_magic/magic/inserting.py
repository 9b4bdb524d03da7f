"""Where a run's code, outputs and answer go: AGENT_INSERT, `--insert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .front_end import front_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from ..settings import Insert
    from ..types import JSON, CellWriter

    MakeWriter: TypeAlias = Callable[[str], CellWriter]


def inserting(shell: InteractiveShell, mode: Insert, cells: MakeWriter | None) -> MakeWriter | None:
    """Makes what takes a run's cells; None where the display says it all.

    Args:
        shell: the reader's.
        mode: where they are to go.
        cells: makes what inserts real cells.
    """
    from ..notebook.inline import AnswerWriter, InlineWriter, NextInputWriter

    kind = front_end(shell)
    if kind == "terminal":  # it has no cells, and its display has shown the outputs and the answer
        return (lambda _: NextInputWriter(shell.set_next_input)) if mode in ("auto", "next-input") else None
    if mode in ("auto", "cells"):
        return cells

    def publish(bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        shell.display_pub.publish(data=bundle, metadata=metadata)

    def begin(run_id: str) -> CellWriter:
        if cells is not None:
            cells(run_id)  # real cells of an earlier run are replaced, whatever becomes of this one
        if mode == "none":
            return AnswerWriter(publish)
        if mode == "next-input" and kind != "headless":  # nobody is there to take it
            return NextInputWriter(shell.set_next_input, publish)
        return InlineWriter(publish)

    return begin
