"""Show things in the reader's front end: progress, cells, outputs, errors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from ..session import Watcher
    from ..types import JSON, CellWriter, ExecutionResult, Output


class AgentInterrupted(KeyboardInterrupt):
    """The reader stopped the agent: Run All stops too, and one line is shown instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted. The steps that had finished are kept."]


def watcher_for(shell: InteractiveShell) -> Watcher:
    """Shows a run in this front end."""
    from ..display import NotebookDisplay, TextDisplay

    if not hasattr(shell, "kernel"):  # a terminal shows text only, and cannot update it in place
        return TextDisplay(sys.stdout)
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


def writer_for(shell: InteractiveShell, anchor: str | None) -> Callable[[str], CellWriter] | None:
    """Makes what publishes a run's cells; None in a terminal, which has no cells."""
    if not hasattr(shell, "kernel"):
        return None
    from ..notebook.publish import CellPublisher

    def publish(bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        shell.display_pub.publish(data=bundle, metadata=metadata)

    return lambda run_id: CellPublisher(publish, run_id=run_id, anchor=anchor)


def show_output(shell: InteractiveShell, output: Output) -> None:
    """Show an output of the sandbox as this cell's own; errors are raised instead, by `as_exception`."""
    if output["output_type"] == "stream":
        print(output["text"], end="", file=sys.stderr if output["name"] == "stderr" else sys.stdout, flush=True)
    elif output["output_type"] != "error":
        shell.display_pub.publish(data=dict(output["data"]), metadata=dict(output["metadata"]))


def show_result(result: object) -> None:
    """Show what a command gives: text as it is, anything else as a notebook shows a value."""
    if isinstance(result, str):
        print(result)
        return
    from IPython.display import display

    display(result)


def show_copy(name: str, done: int, total: int) -> None:
    """A line that moves on, every 16 MiB; the last one stays."""
    if done == total or done % (16 << 20) < 1 << 20:
        end = "\n" if done == total else ""
        print(f"\rcopying {name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", end=end, file=sys.stderr, flush=True)


def cell_id(shell: InteractiveShell) -> str | None:
    """The id of the cell that runs, where the front end says it (JupyterLab and Notebook 7 do)."""
    get_parent = getattr(shell, "get_parent", None)
    parent = get_parent() if get_parent is not None else None
    metadata = parent.get("metadata") if isinstance(parent, dict) else None
    found = metadata.get("cellId") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None


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
