"""Show things in the reader's front end: progress, cells, outputs, errors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .front_end import front_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from ..session import Watcher
    from ..settings import Insert
    from ..types import JSON, CellWriter, ExecutionResult, Output


class AgentInterrupted(KeyboardInterrupt):
    """The reader stopped the agent: Run All stops too, and one line is shown instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted. The steps that had finished are kept."]


def watcher_for(shell: InteractiveShell, mode: Insert) -> Watcher:
    """Shows a run in this front end."""
    from ..display import NotebookDisplay, TextDisplay

    kind = front_end(shell)
    if kind == "terminal":
        return TextDisplay(sys.stdout)
    if kind == "unknown":  # an area that is never updated would say "waiting" for ever
        return TextDisplay(sys.stdout, stream=False, steps="failed" if mode in ("auto", "cells", "inline") else "all")
    import secrets

    transient = {"display_id": secrets.token_hex(8)}
    shown = False
    # The local executor swaps the shell's publisher while the model's code runs; progress must not be caught there.
    publish = shell.display_pub.publish

    def update(bundle: dict[str, JSON]) -> None:
        nonlocal shown
        publish(data=bundle, metadata={}, transient=transient, update=shown)
        shown = True

    return NotebookDisplay(update)


def writer_for(shell: InteractiveShell, mode: Insert, anchor: str | None) -> Callable[[str], CellWriter] | None:
    """Makes what takes a run's cells; None where the display says it all."""
    from ..notebook.inline import AnswerWriter, InlineWriter, NextInputWriter
    from ..notebook.publish import CellPublisher

    kind = front_end(shell)
    if kind == "terminal":  # it has no cells, and its display has shown the outputs and the answer
        return (lambda _: NextInputWriter(shell.set_next_input)) if mode in ("auto", "next-input") else None

    def publish(bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        shell.display_pub.publish(data=bundle, metadata=metadata)

    if mode == "next-input" and kind != "headless":  # headless, there is no next input
        return lambda _: NextInputWriter(shell.set_next_input, publish)
    if mode in ("next-input", "inline"):
        return lambda _: InlineWriter(publish)
    if mode == "none":
        return lambda _: AnswerWriter(publish)
    return lambda run_id: CellPublisher(publish, run_id=run_id, anchor=anchor)


def show_output(shell: InteractiveShell, output: Output) -> None:
    """Show an output of the sandbox as this cell's own; errors are raised instead, by `as_exception`."""
    if output["output_type"] == "stream":
        print(output["text"], end="", file=sys.stderr if output["name"] == "stderr" else sys.stdout, flush=True)
    elif output["output_type"] != "error":
        shell.display_pub.publish(data=dict(output["data"]), metadata=dict(output["metadata"]))


def show_copy(name: str, done: int, total: int) -> None:
    """A line that moves on, every 16 MiB; the last one stays."""
    if done == total or done % (16 << 20) < 1 << 20:
        end = "\n" if done == total else ""
        print(f"\rcopying {name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", end=end, file=sys.stderr, flush=True)


def as_exception(result: ExecutionResult) -> BaseException:
    """The sandbox's error as an exception here, so that the cell fails as any cell would."""
    error = result.error
    if result.status == "interrupted":
        return AgentInterrupted()
    name = error.ename if error is not None and error.ename.isidentifier() else "SandboxError"
    lines = list(error.traceback) if error is not None else []
    text = error.evalue if error is not None else f"the code ended with status {result.status}"

    def render(_self: BaseException) -> list[str]:
        return lines or [f"{name}: {text}"]

    made: BaseException = type(name, (Exception,), {"_render_traceback_": render})(text)
    return made
