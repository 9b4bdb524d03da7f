"""Execute one notebook in a kernel of its own, and write what came of it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import scratch
from ..errors import NotebookWriteError, SettingsError
from ..folders import environment_of
from ..notebook.record import RunEnd, RunRecord, Spent, content_digest, seen_from, settings_digest
from ..settings import Settings, load

if TYPE_CHECKING:
    from nbclient.exceptions import CellExecutionError
    from nbformat import NotebookNode

    from .following import FollowedClient, Follower

_KERNEL_START_S = 180
"""A kernel takes a second; on a busy machine with a cold disk it was seen to take more than a minute."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a notebook."""

    status: RunEnd
    written: Path
    """Where it is now."""
    duration_s: float
    spent: Spent
    stopped_by: str = ""
    """Why it was not executed to its end."""
    unanswered: tuple[str, ...] = ()
    """How those runs of agent cells ended that reached no answer and raised no error."""
    misplaced: str = ""
    """Why it is not where it should be."""


def settings_of(source: Path, overrides: Mapping[str, object]) -> tuple[Settings | None, str]:
    """The settings that hold for a notebook, and their digest; nothing where its `.env` is no good: its cells tell.

    Raises:
        SettingsError: one of `overrides` has a bad value.
    """
    try:
        settings = load(overrides, folder=source.parent)
    except SettingsError as exc:
        if exc.source == "argument":
            raise
        return None, ""
    return settings, settings_digest(settings)


def environment_with(overrides: Mapping[str, object]) -> dict[str, str]:
    """The variables that tell a kernel of settings given on the command line."""
    return {name.upper(): str(value) for name, value in overrides.items()}


def execute(
    source: Path, target: Path, environment: dict[str, str], *, follower: Follower, settings_sha256: str = ""
) -> Outcome:
    """Run `source` in its own kernel and write it, expanded, to `target`; what was done before an error is kept.

    Args:
        source: the notebook to run; its folder is the kernel's working directory, the sandbox's folder lies beside it.
        target: where the finished notebook goes. It is replaced as a whole, at the end.
        environment: added to the kernel's environment.
        follower: is told how it goes on.
        settings_sha256: of the settings that apply, for the notebook's record.

    Raises:
        NotebookWriteError: the notebook cannot be read, or not be written anywhere.
        KeyboardInterrupt: before there was anything to keep.
    """
    from ..notebook.expand import drop_earlier, expand
    from ..notebook.files import check_place, read_notebook
    from .following import FollowedClient

    began = time.monotonic()
    digest = content_digest(source)
    notebook = drop_earlier(read_notebook(source))
    check_place(target)  # better found before a model is asked
    with scratch.temporary("sandbox-run") as folder:
        client = FollowedClient(
            notebook,
            follower=follower,
            timeout=None,
            startup_timeout=_KERNEL_START_S,
            kernel_name="python3",
            config=_config(folder),
            resources={"metadata": {"path": str(source.resolve().parent)}},
        )
        always = {"AGENT_INSERT": "cells", "AGENT_TRUST_OUTPUT": "false", **environment_of(source)}
        status, stopped_by = _run(client, {**os.environ, **environment, **always}, folder / "kernel.log")
    with _uninterrupted():
        expand(notebook)
        unanswered = tuple(end for cell in notebook.cells for end in _ends(cell))
        outcome = Outcome(
            "failed" if status == "completed" and unanswered else status,
            target,
            time.monotonic() - began,
            client.spent,
            stopped_by,
            unanswered,
        )
        RunRecord(
            outcome.status,
            source=seen_from(target.parent, source),
            source_sha256=digest,
            settings_sha256=settings_sha256,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            duration_s=round(outcome.duration_s, 3),
            spent=outcome.spent,
        ).write(notebook.metadata)
        return _written(notebook, outcome)


def _run(client: FollowedClient, environment: dict[str, str], log: Path) -> tuple[RunEnd, str]:
    """Execute until the end, a failure or an interrupt; how it ended, and why before its end."""
    from nbclient.exceptions import CellExecutionError as Failed
    from nbclient.exceptions import DeadKernelError

    try:
        with log.open("wb") as own_words:  # a kernel's log is not the reader's concern, unless it does not start
            client.execute(env=environment, stderr=own_words)
    except Failed as exc:
        return "failed", _failure(exc)
    except KeyboardInterrupt:
        return "interrupted", "Interrupted."
    except Exception as exc:  # any: what was done so far is kept, whatever nbclient and its kernel came to
        # On Ctrl-C nbclient ends the kernel by itself, and then stumbles over its absence.
        if getattr(client, "_async_cleanup_kernel_future", None) is not None:
            return "interrupted", "Interrupted."
        if not isinstance(exc, (DeadKernelError, RuntimeError)):
            return "failed", f"It could not be executed: {type(exc).__name__}: {exc}"
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        return "failed", " ".join(["The notebook's kernel did not start, or died.", *last])
    return "completed", ""


def _config(folder: Path) -> object:
    """Unix sockets in a folder of our own: an open TCP port would let other users of the machine listen."""
    from traitlets.config import Config

    connection = {"transport": "ipc", "ip": f"{folder}/kernel"} if os.name == "posix" else {}
    return Config({"ConnectionFileMixin": connection})


def _written(notebook: NotebookNode, outcome: Outcome) -> Outcome:
    """Write the notebook where it belongs, or where it can be: it may hold an hour's work."""
    from ..notebook.files import rescue_notebook, write_notebook

    try:
        write_notebook(notebook, outcome.written)
    except NotebookWriteError as exc:
        place = rescue_notebook(notebook, outcome.written.name)
        return replace(outcome, status="failed", written=place, misplaced=" ".join([exc.message, exc.why]))
    return outcome


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt comes too late to matter: the work is done, and is being written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _failure(error: CellExecutionError) -> str:
    """Why a cell ended the run."""
    if error.ename == "AgentInterrupted":
        return "An agent cell was interrupted."
    return f"A cell failed: {error.ename}: {error.evalue}"


def _ends(cell: NotebookNode) -> list[str]:
    """How the runs of an agent cell ended that reached no answer and raised no error."""
    from ..display import RUN_METADATA

    found = []
    for output in cell.get("outputs", []):
        about = output.get("metadata", {}).get(RUN_METADATA)
        if isinstance(about, dict) and about.get("status") != "completed":
            found.append(" ".join(str(output.get("data", {}).get("text/plain", "")).split()))
    return found
