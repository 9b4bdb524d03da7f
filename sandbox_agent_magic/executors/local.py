"""The reader's own kernel: no isolation at all, hence only after an explicit choice and a yes (the session asks).

The code runs through the shell's own `run_cell`, with its outputs caught instead of shown. An exception is in the
result and never an error output of the agent's cell, where papermill and Run All would stop.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from ..errors import ExecutorError, WorkspaceError
from ..outputs import OutputCollector, OutputLimits
from ..types import (
    JSON,
    Capabilities,
    ErrorInfo,
    ExecutionResult,
    ExecutionStatus,
    FileInfo,
    Output,
    OutputHook,
    ProgressHook,
)
from .names import inside

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class TimeLimitExceeded(BaseException):
    """Raised inside the code by the alarm; not an Exception, so that `except Exception` does not swallow it."""


class LocalExecutor:
    """Runs code in the IPython shell of this process.

    Args:
        shell: the reader's shell; the running one unless given, or a new one outside of IPython.
        limits: of the outputs of one execution.
    """

    name = "local"
    capabilities = Capabilities(isolated=False, cell_magic="", files=True, install=False, own_process=False)

    def __init__(self, shell: InteractiveShell | None = None, *, limits: OutputLimits | None = None) -> None:
        self._shell = shell
        self._limits = limits
        self._thread: int | None = None
        """Where code runs now."""

    def start(self) -> None:
        """Nothing to start: the kernel is this one."""

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """Run `code` in the reader's namespace. See `Executor.execute`.

        The time limit needs a Unix main thread; elsewhere the code runs without one.
        """
        shell = self._ready_shell()
        collector = OutputCollector(on_output, limits=self._limits, trusted=True, bounded=False)
        began = time.monotonic()
        if shell.should_run_async(code, transformed_cell=shell.transform_cell(code)):
            error = ErrorInfo(
                "UnsupportedError",
                "top-level await cannot run while the agent's own cell runs; use a function and asyncio.run "
                "in a thread, or leave await out",
            )
            collector.add({"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": []})
            return ExecutionResult("error", collector.finish(), error=error)
        before = _listing()
        status, count, error_info = self._run(shell, code, timeout_s, collector)
        return ExecutionResult(
            status=status,
            outputs=collector.finish(),
            execution_count=count,
            error=error_info,
            new_files=tuple(FileInfo(name, now[0]) for name, now in _listing().items() if before.get(name) != now),
            duration_s=time.monotonic() - began,
        )

    def _run(
        self, shell: InteractiveShell, code: str, timeout_s: float, collector: OutputCollector
    ) -> tuple[ExecutionStatus, int | None, ErrorInfo | None]:
        count = shell.execution_count
        with _caught(shell, collector):
            try:
                with self._interruptible(), _alarm(timeout_s):
                    outcome = shell.run_cell(code, store_history=False)
                failure = outcome.error_before_exec or outcome.error_in_exec
            except KeyboardInterrupt as exc:
                failure = exc
            except TimeLimitExceeded as exc:
                failure = exc
        if failure is None:
            return "ok", count, None
        if isinstance(failure, TimeLimitExceeded):
            return "timeout", count, ErrorInfo("TimeLimitExceeded", str(failure))
        ename, evalue = type(failure).__name__, str(failure)
        status: ExecutionStatus = "interrupted" if isinstance(failure, KeyboardInterrupt) else "error"
        shown = [output for output in collector.finish() if output["output_type"] == "error"]
        traceback = tuple(shown[-1]["traceback"]) if shown and shown[-1]["output_type"] == "error" else ()
        return status, count, ErrorInfo(ename, evalue, traceback)

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any, as Ctrl-C does. Python gives a signal to the main thread alone."""
        thread = self._thread
        if thread is None or thread != threading.main_thread().ident:
            return
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(thread, signal.SIGINT)  # ends a sleep or a read as well
        else:
            _thread.interrupt_main()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    def restart(self) -> None:
        """Refuse: the kernel is the reader's.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError(
            "The local executor cannot be restarted by the agent.",
            executor=self.name,
            why="It is your own kernel.",
            hint="Restart it from the notebook's Kernel menu.",
        )

    def shutdown(self) -> None:
        """Nothing was opened."""

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:  # noqa: ARG002
        """Copy a file into the working directory, unless it lies there already."""
        destination = Path(inside(name))
        if not (destination.exists() and destination.samefile(source)):
            if destination.exists():
                raise ExecutorError(
                    f"{name} exists in the working directory and is another file than {source}.",
                    executor=self.name,
                    hint="Rename one of them.",
                )
            shutil.copyfile(source, destination)
        return FileInfo(name, destination.stat().st_size)

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file of the working directory.

        Raises:
            WorkspaceError: there is none of that name there.
        """
        found = Path(inside(name))
        if not found.is_file():
            raise WorkspaceError(f"There is no file {name} in the working directory.", hint="%agent files lists them.")
        shutil.copyfile(found, destination / found.name if destination.is_dir() else destination)

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the working directory, hidden ones left out."""
        return [FileInfo(name, size) for name, (size, _) in _listing().items()]

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Refuse: the agent does not change the reader's environment.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError(
            "Packages are not installed into your own environment.",
            executor=self.name,
            hint=f"Do it yourself, if you want them: %pip install {' '.join(packages)}",
        )

    def _ready_shell(self) -> InteractiveShell:
        if self._shell is None:
            from IPython import get_ipython
            from IPython.core.interactiveshell import InteractiveShell

            self._shell = get_ipython() or InteractiveShell.instance()
        return self._shell


class _Tee(io.TextIOBase):
    """A text stream whose writes become stream outputs."""

    def __init__(self, name: Literal["stdout", "stderr"], collector: OutputCollector) -> None:
        self._name: Literal["stdout", "stderr"] = name
        self._collector = collector

    def write(self, text: str) -> int:
        self._collector.add({"output_type": "stream", "name": self._name, "text": str(text)})
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def _caught(shell: InteractiveShell, collector: OutputCollector) -> Iterator[None]:
    """Catch what `shell` would show: streams, displays, results, tracebacks.

    IPython's own `capture_output` keeps streams and displays apart, so their order would be lost; and an ipykernel
    sends a traceback straight to its clients, which only replacing the instance's `_showtraceback` holds back.
    """
    from IPython.core.displayhook import CapturingDisplayHook
    from IPython.core.displaypub import CapturingDisplayPublisher

    class Publisher(CapturingDisplayPublisher):
        def publish(self, data: dict[str, JSON], metadata: dict[str, JSON] | None = None, **_: object) -> None:
            collector.add({"output_type": "display_data", "data": dict(data), "metadata": dict(metadata or {})})

        def clear_output(self, wait: bool = False) -> None:
            collector.clear(wait=wait)

    class Results(list):  # type: ignore[type-arg]
        def append(self, bundle: dict[str, dict[str, JSON]]) -> None:
            count = shell.execution_count
            data, metadata = dict(bundle["data"]), dict(bundle["metadata"])
            output: Output = {
                "output_type": "execute_result",
                "data": data,
                "metadata": metadata,
                "execution_count": count,
            }
            collector.add(output)

    def show_traceback(etype: type[BaseException], value: BaseException, lines: list[str]) -> None:
        collector.add({"output_type": "error", "ename": etype.__name__, "evalue": str(value), "traceback": list(lines)})

    trap = shell.display_trap
    saved = shell.display_pub, trap.hook, sys.displayhook, sys.stdout, sys.stderr
    shell.display_pub = Publisher()
    # Inside a magic the trap is set already and sys.displayhook counts; elsewhere run_cell sets the trap's own hook.
    trap.hook = sys.displayhook = CapturingDisplayHook(shell=shell, outputs=Results())
    sys.stdout, sys.stderr = _Tee("stdout", collector), _Tee("stderr", collector)
    shell._showtraceback = show_traceback
    try:
        yield
    finally:
        del shell._showtraceback
        shell.display_pub, trap.hook, sys.displayhook, sys.stdout, sys.stderr = saved


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitExceeded` in the code after `seconds`, where signals can do that."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signum: int, _frame: FrameType | None) -> None:
        raise TimeLimitExceeded(
            f"the code ran longer than {seconds:g} s and was stopped (AGENT_CELL_TIMEOUT, --timeout)"
        )

    previous = signal.signal(signal.SIGALRM, ring)
    # It rings again each second: code may have swallowed the first one.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _listing() -> dict[str, tuple[int, int]]:
    """Name to (size, mtime in ns) of the working directory's visible regular files."""
    found = {}
    with os.scandir() as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                info = entry.stat(follow_symlinks=False)
                found[entry.name] = (info.st_size, info.st_mtime_ns)
    return found
