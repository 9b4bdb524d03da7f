"""Show things in the reader's front end: progress, cells, outputs, errors."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING

from .front_end import front_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from ..notebook.offers import CellRequest, Offers
    from ..notebook.page import Page
    from ..session import Watcher
    from ..settings import Insert
    from ..types import JSON, CellWriter, ExecutionResult, Output


_OWN_IDS = f"sandbox-{secrets.token_hex(8)}"


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
        return TextDisplay(sys.stdout, stream=False, steps="all" if mode == "none" else "failed")
    transient = {"display_id": secrets.token_hex(8)}
    shown = False
    # The local executor swaps the shell's publisher while the model's code runs; progress must not be caught there.
    publish = shell.display_pub.publish

    def update(bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        nonlocal shown
        publish(data=bundle, metadata=metadata, transient=transient, update=shown)
        shown = True

    return NotebookDisplay(update)


def writer_for(
    shell: InteractiveShell, request: CellRequest, offers: Offers, page: Page
) -> Callable[[str], CellWriter] | None:
    """Makes what publishes a run's cells; None in a terminal, which has no cells."""
    if not hasattr(shell, "kernel"):
        return None
    from ..notebook.offers import KeepingWriter

    def begin(run_id: str) -> CellWriter:
        offers.begin(run_id, request)
        page.began(run_id, request.cell_id)
        return KeepingWriter(publisher(shell, run_id, request.cell_id), offers, run_id=run_id)

    return begin


def publisher(shell: InteractiveShell, run_id: str, anchor: str | None) -> CellWriter:
    """Publishes cells of a run as outputs of the cell that runs now."""
    from ..notebook.publish import CellPublisher

    def publish(bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        shell.display_pub.publish(data=bundle, metadata=metadata)

    return CellPublisher(publish, run_id=run_id, anchor=anchor)


def show_output(shell: InteractiveShell, output: Output) -> None:
    """Show an output of the sandbox as this cell's own; errors are raised instead, by `as_exception`."""
    if output["output_type"] == "stream":
        print(output["text"], end="", file=sys.stderr if output["name"] == "stderr" else sys.stdout, flush=True)
    elif output["output_type"] == "display_data" and "transient" in output:
        # An id of the sandbox's own: it must not replace what the reader's code displays under the same one.
        transient = output["transient"]
        shell.display_pub.publish(
            data=dict(output["data"]),
            metadata=dict(output["metadata"]),
            transient={"display_id": f"{_OWN_IDS}-{transient['display_id']}"},
            update=bool(transient.get("update")),
        )
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


def request_of(shell: InteractiveShell) -> CellRequest:
    """What the front end said of the cell that runs; JupyterLab and Notebook 7 say its id and metadata."""
    from datetime import UTC, datetime

    from ..notebook.offers import CellRequest

    get_parent = getattr(shell, "get_parent", None)
    parent = get_parent() if get_parent is not None else None
    if not isinstance(parent, dict):
        return CellRequest()
    metadata, content, header = (
        part if isinstance(part, dict) else {} for part in map(parent.get, ("metadata", "content", "header"))
    )
    found, code, sent = metadata.get("cellId"), content.get("code"), header.get("date")
    return CellRequest(
        cell_id=found if isinstance(found, str) else None,
        metadata=metadata,
        source=code if isinstance(code, str) else "",
        sent=sent.replace(tzinfo=sent.tzinfo or UTC) if isinstance(sent, datetime) else None,
    )


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
