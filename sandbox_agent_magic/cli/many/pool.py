"""Run jobs side by side, each in a worker of its own, and follow them until the last has ended."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Literal, Protocol, TypeAlias

from ...notebook.record import Spent
from ..words import one_line
from .plan import Job
from .worker import Order

Status: TypeAlias = Literal[
    "waiting", "running", "completed", "failed", "interrupted", "time limit", "skipped", "not started"
]
_WORKER = "from sandbox_agent_magic.cli.many.worker import main; main()"
"""Not `-m`: a few frames deeper, CPython 3.11 happened to map and unmap memory at each call of the imports, for 4 s."""
_TICK_S = 0.5
_GRACE_S = 30.0
"""After which a worker that was told to stop is killed; it ends itself after 20 s."""
_LONGEST_PROBLEM = 400


@dataclass(slots=True)
class Run:
    """A job, and how it stands."""

    job: Job
    status: Status = "waiting"
    problem: str = ""
    """Why it did not complete; one line that a terminal may show."""
    written: Path | None = None
    """Where its result is."""
    spent: Spent = field(default_factory=Spent)
    began: float = 0.0
    """Seconds, monotonic; 0 before it was started."""
    duration_s: float = 0.0
    cell: int = 0
    cells: int = 0
    doing: str = ""


class Board(Protocol):
    """Shows how the runs go on."""

    def ended(self, run: Run) -> None:
        """A run has come to its end, or will not be started."""

    def tick(self) -> None:
        """Some time has passed, or something has happened."""

    def say(self, line: str) -> None:
        """Show a line of text."""


class Pool:
    """Some workers at a time.

    Args:
        runs: what to do, in order; their status is kept up to date.
        board: shows it.
        jobs: workers at a time.
        environment: added to that of each notebook's kernel.
        time_limit_s: of each notebook; None is for ever.
        may_start: why a job must not be started, such as a budget that is used up; empty if it may.
        logs: folder for what workers say when they break.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        board: Board,
        *,
        jobs: int,
        environment: Mapping[str, str],
        time_limit_s: float | None,
        may_start: Callable[[Job], str],
        logs: Path,
    ) -> None:
        self._waiting = deque(run for run in runs if run.status == "waiting")
        self._board = board
        self._jobs = jobs
        self._environment = environment
        self._time_limit_s = time_limit_s
        self._may_start = may_start
        self._logs = logs
        self._workers: list[_Worker] = []
        self._news: SimpleQueue[tuple[_Worker, Mapping[str, object] | None] | None] = SimpleQueue()
        self._interrupts = 0

    def work(self) -> bool:
        """Do it all; whether it was interrupted.

        The first Ctrl-C lets the notebooks under way end with what they have done and starts no more; the second
        ends them at once.
        """
        with self._signals():
            while self._workers or self._waiting:
                self._start_some()
                self._wait()
                self._watch_time()
                self._board.tick()
        return self._interrupts > 0

    def _start_some(self) -> None:
        while self._waiting and len(self._workers) < self._jobs:
            run = self._waiting.popleft()
            objection = "" if self._interrupts else self._may_start(run.job)
            if objection or self._interrupts:
                self._end(run, "not started", objection)
            else:
                self._workers.append(_Worker(run, self._environment, self._logs, self._news))

    def _wait(self) -> None:
        """Take the next piece of news, if there is one soon."""
        try:
            news = self._news.get(timeout=_TICK_S if self._workers else 0.0)
        except Empty:
            return
        if news is None:
            self._interrupted()
            return
        worker, event = news
        if event is not None:
            worker.take(event)
            return
        self._workers.remove(worker)
        status, problem = worker.close()
        self._end(worker.run, status, problem)

    def _watch_time(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if self._time_limit_s is not None and now - worker.run.began > self._time_limit_s:
                worker.stop("time limit")
            if worker.stopped_at is not None and now - worker.stopped_at > _GRACE_S:
                worker.kill()

    def _end(self, run: Run, status: Status, problem: str) -> None:
        run.status, run.problem = status, problem
        run.duration_s = time.monotonic() - run.began if run.began else 0.0
        self._board.ended(run)

    def _interrupted(self) -> None:
        self._interrupts += 1
        for worker in self._workers:
            if self._interrupts == 1:
                worker.stop("interrupted")
            else:
                worker.kill()
        if self._interrupts == 1 and self._workers:
            them = "The notebook" if len(self._workers) == 1 else f"The {len(self._workers)} notebooks"
            self._board.say(f"Interrupted. {them} under way will be written as far as done; Ctrl-C again ends at once.")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and a request to end are news like any other: nothing is cut in two by them."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: self._news.put(None)) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for worker in self._workers:  # only if something here went wrong
                worker.kill()


class _Worker:
    """A process that executes one notebook.

    Args:
        run: what to execute; kept up to date.
        environment: added to the kernel's.
        logs: folder for what it says when it breaks.
        news: takes its events, and None at its end.
    """

    def __init__(
        self,
        run: Run,
        environment: Mapping[str, str],
        logs: Path,
        news: SimpleQueue[tuple[_Worker, Mapping[str, object] | None] | None],
    ) -> None:
        self.run = run
        self.stopped_at: float | None = None
        self._stopped_as: Status | None = None
        self._end: Mapping[str, object] | None = None
        self._news = news
        run.status, run.began = "running", time.monotonic()
        job = run.job
        order = Order(str(job.source.absolute()), str(job.target.absolute()), environment, job.settings_sha256)
        self._log = logs / f"{id(run)}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes to the command alone, which decides what it means
            )
        self._tell(json.dumps(asdict(order)).encode() + b"\n")
        threading.Thread(target=self._listen, daemon=True).start()

    def take(self, event: Mapping[str, object]) -> None:
        """Something has happened in there."""
        run = self.run
        kind = event.get("event")
        if kind == "cell":
            run.cell, run.cells = int(str(event["number"])), int(str(event["total"]))
            run.doing = one_line(str(event["line"]))
        elif kind == "agent":
            run.doing = one_line(str(event["line"]))
            run.spent = Spent.read(event["spent"])
        elif kind == "end":
            self._end = event

    def stop(self, status: Status) -> None:
        """Let it end with what it has done; `status` says why."""
        if self.stopped_at is None:
            self.stopped_at, self._stopped_as = time.monotonic(), status
            self._close_stdin()

    def kill(self) -> None:
        """End it at once. Its kernel notices within a second."""
        self._stopped_as = self._stopped_as or "interrupted"
        self._process.kill()

    def close(self) -> tuple[Status, str]:
        """It has ended: how, and why."""
        self._close_stdin()
        code = self._process.wait()
        end = self._end
        if end is None:
            if self._stopped_as is not None:
                return self._stopped_as, "It was ended before it could be written."
            return "failed", self._last_words(code)
        self.run.written = Path(str(end["written"])) if end["written"] else None
        spent = Spent.read(end["spent"])
        self.run.spent = spent if spent.tokens else self.run.spent
        problem = one_line(" ".join(str(end["problem"]).split()))[:_LONGEST_PROBLEM]
        if end["status"] == "interrupted":
            return self._stopped_as or "interrupted", problem
        return ("completed" if end["status"] == "completed" else "failed"), problem

    def _last_words(self, code: int) -> str:
        if code < 0:
            return f"Its process was ended by signal {-code}; 9 is often too little memory."
        last = self._log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        return one_line(" ".join([f"Its process ended with status {code}.", *last]))[:_LONGEST_PROBLEM]

    def _listen(self) -> None:
        """Pass its events on until it has ended."""
        if self._process.stdout is not None:
            with self._process.stdout as events:
                for line in events:
                    with contextlib.suppress(ValueError):  # the last line of one that was killed
                        self._news.put((self, json.loads(line)))
        self._process.wait()
        self._news.put((self, None))

    def _tell(self, line: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it died at once; its end will be told
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
