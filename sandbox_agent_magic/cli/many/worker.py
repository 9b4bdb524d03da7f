"""One notebook in a process of its own: a crash here costs this notebook and no other.

The order comes as one line of JSON on standard input; events go as lines of JSON to what was standard output. When
standard input ends, the command is gone or wants this notebook to stop: it is interrupted, and what was done is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...errors import SandboxAgentError
from ...notebook.record import RunEnd, Spent
from ...types import JSON
from ..execution import execute
from ..following import first_line

_STOP_S = 20.0
"""How long an interrupted notebook has: a kernel that does not listen is ended after 5 s, and then it is written."""
_EVERY_S = 0.5
"""What an agent does is told no more often."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to execute, and how."""

    source: str
    target: str
    environment: Mapping[str, str]
    settings_sha256: str


@dataclass(frozen=True, slots=True)
class Report:
    """What became of it."""

    status: RunEnd
    problem: str = ""
    """Why it did not complete, or is not where it should be."""
    written: str = ""
    """Where it is; empty if it was not written."""
    spent: Spent = field(default_factory=Spent)


class EventFollower:
    """Tells the command how the notebook goes on.

    Args:
        out: takes the events.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._told = -_EVERY_S

    def cell(self, number: int, total: int, source: str) -> None:
        """A cell begins."""
        self.tell({"event": "cell", "number": number, "total": total, "line": first_line(source)})

    def agent(self, line: str, *, running: bool, spent: Spent) -> None:
        """An agent cell goes on, or ends."""
        now = time.monotonic()
        if not running or now - self._told >= _EVERY_S:
            self._told = now
            self.tell({"event": "agent", "line": line, "spent": dict(asdict(spent))})

    def report(self, report: Report) -> None:
        """The last event."""
        self.tell({"event": "end", **asdict(report)})

    def tell(self, event: dict[str, JSON]) -> None:
        """Send an event, if there is still somebody to listen."""
        try:
            self._out.write(json.dumps(event).encode() + b"\n")
            self._out.flush()
        except OSError:
            pass


def main() -> int:
    """Execute one notebook; 0 if that was reported, whatever became of it."""
    follower = EventFollower(_take_stdout())
    try:
        order = Order(**json.loads(sys.stdin.buffer.readline()))
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
        follower.report(_report_of(order, follower))
    except KeyboardInterrupt:
        follower.report(Report("interrupted", "Interrupted before anything was done."))
    return 0


def _report_of(order: Order, follower: EventFollower) -> Report:
    source = Path(order.source)
    try:
        with _claimed(source) as mine:
            if not mine:
                return Report("failed", "Another command is running this notebook.")
            outcome = execute(
                source,
                Path(order.target),
                dict(order.environment),
                follower=follower,
                settings_sha256=order.settings_sha256,
            )
    except SandboxAgentError as exc:
        return Report("failed", " ".join(exc.lines()[:2]))
    ends = [f"An agent cell did not complete: {end}" for end in outcome.unanswered]
    why = outcome.stopped_by or next(iter(ends), "") if outcome.status == "failed" else ""
    problem = " ".join(part for part in (outcome.misplaced, why) if part)
    return Report(outcome.status, problem, str(outcome.written), outcome.spent)


def _take_stdout() -> BinaryIO:
    """Standard output for the events alone: what else is printed here, or by a kernel, goes to standard error."""
    mine = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return mine


def _stop_with_stdin() -> None:
    """Wait for the end of standard input, and interrupt the main thread. Never longer than the notebook."""
    # Not through `sys.stdin`: its lock would be held at the interpreter's end, which then aborts.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_STOP_S)
    os._exit(1)  # its kernel notices within a second


@contextlib.contextmanager
def _claimed(source: Path) -> Iterator[bool]:
    """Whether no other command runs this notebook, and none will meanwhile: its sandbox works in one folder.

    The mark falls with the process. Where files cannot be marked, there is none.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY)
    except OSError:
        yield True  # who reads it will say what is wrong
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
