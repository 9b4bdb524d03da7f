"""The executor of a Jupyter server, Kernel Gateway or Enterprise Gateway: code runs in a kernel over there."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import ExecutorError, KernelDied, MissingDependencyError
from ...outputs import OutputCollector, OutputLimits, mib
from ...types import (
    Capabilities,
    ErrorInfo,
    ExecutionResult,
    ExecutionStatus,
    FileInfo,
    OutputHook,
    ProgressHook,
    TextHook,
    no_text,
)
from ..engines import EngineInfo
from ..execution import Execution
from ..names import file_infos
from .files import RemoteFiles
from .kernel import RemoteKernel
from .line import Outcome
from .server import JupyterServer
from .socket import SocketClosed
from .target import Target

_GRACE_S = 10.0
"""After an interrupt, before the kernel is restarted: it has a way to go."""
_KEYBOARD_GRACE_S = 3.0
_ENDS = {
    "died": ErrorInfo("KernelDied", "The remote kernel ended while the code ran."),
    "gone": ErrorInfo("KernelDied", "The Jupyter server ended the kernel, or was started anew, while the code ran."),
    "cut": ErrorInfo(
        "ConnectionLost", "The connection to the Jupyter server was cut while the code ran, and did not come back."
    ),
}
"""Outcomes after which the kernel is not there any more."""


class RemoteExecutor:
    """Runs code in a kernel of a Jupyter server. How well that isolates is the server's business.

    Its rich output is cleaned as a sandbox's is. An own kernel works in a new folder of its own, and both are removed
    at `shutdown`; one that was there before is used as it is, and stays.

    Args:
        target: the server, and the kernel on it.
        limits: of the outputs of one execution.

    Raises:
        MissingDependencyError: the extra `remote` is not installed.
    """

    name = "remote"
    keeps_files = False
    capabilities = Capabilities(isolated=True, cell_magic="%%sandbox -e remote", label="isolated as its server does it")

    def __init__(self, target: Target, *, limits: OutputLimits | None = None) -> None:
        try:
            import requests  # noqa: F401
            import websocket  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "The remote executor cannot be loaded.", extra="remote", why=f"{error}."
            ) from None
        self.limits = limits or OutputLimits()
        self.trust_output = False
        """Rich output passes uncleaned from now on; sizes are bounded all the same."""
        self.owner_pid = os.getpid()
        self._kernel = RemoteKernel(JupyterServer(target), self.limits)
        self._files = RemoteFiles(self._kernel)
        self._spoiled = False
        """Nobody knows what the kernel is doing: restart it before the next execution."""
        self._execution: Execution | None = None
        """The last one that was sent."""
        _alive.add(self)

    def start(self) -> None:
        """Nothing yet: the kernel is started by what needs it first."""

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        result = self.attempt(code, timeout_s=timeout_s, on_output=on_output)
        if result is not None:
            return result
        result = self.attempt(code, timeout_s=timeout_s, on_output=on_output)
        if result is None:
            raise KernelDied(
                "The remote kernel is lost again and again.",
                executor=self.name,
                why="Another one took its place twice, before any code ran.",
                hint="Look at the server's log for what ends it, such as too little memory.",
            )
        return replace(result, state_lost=True)

    def attempt(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult | None:
        """As `Attempting.attempt`: None if another kernel has taken the place of the one before, and nothing ran."""
        began = time.monotonic()
        collector = OutputCollector(on_output, limits=self.limits, trusted=self.trust_output)
        self._execution = None
        status: ExecutionStatus = "interrupted"
        error: ErrorInfo | None = None

        def say(text: str) -> None:
            on_output({"output_type": "stream", "name": "stderr", "text": text})

        try:
            self._ready(say=say, asks=False)
            if self._take_lost():
                return None
            self._spoiled = True  # until the end is known: a second Ctrl-C may come at any moment
            done = self._run(code, collector, timeout_s, say)
            if done is None:
                self._spoiled = self._kernel.lost = False
                return None
            status, error = self._settle(*done)
        except KeyboardInterrupt:
            self._stop()
        execution = self._execution
        changed = self._changed(execution) if execution is not None and status != "died" and not self._spoiled else ()
        if error is None and status == "ok" and collector.breach:
            status, error = "error", ErrorInfo("OutputLimitExceeded", collector.breach)
        if error is not None:
            lines = [f"{error.ename}: {error.evalue}"]
            collector.add({"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": lines})
        outputs = collector.finish()
        if status == "error" and error is None and execution is not None:
            error = execution.error(outputs)
        return ExecutionResult(
            status=status,
            outputs=outputs,
            execution_count=execution.count if execution is not None else None,
            error=error,
            new_files=changed,
            duration_s=time.monotonic() - began,
            state_lost=self._take_lost(),
        )

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        if self._spoiled:
            self._kernel.interrupt()

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""
        self._spoiled = False
        self._kernel.restart()
        self._kernel.lost = False  # it was asked for

    def shutdown(self) -> None:
        """End an own kernel and remove its folder. Idempotent."""
        self._kernel.close()
        self._spoiled = False
        _alive.discard(self)

    def engines(self) -> Sequence[EngineInfo]:
        """As `ListsEngines.engines`: the kernel, as far as is known here."""
        kernel = self._kernel
        if not kernel.folder:
            return ()
        note = "was there before, and stays" if kernel.borrowed else ""
        return [EngineInfo(self.name, kernel.kernel_id, kernel.server.target.shown, kernel.started, note)]

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """As `Executor.put_file`."""
        self._ready()
        return self._files.put(source, name, on_progress=on_progress)

    def get_file(self, name: str, destination: Path) -> None:
        """As `Executor.get_file`."""
        self._ready()
        self._files.get(name, destination)

    def list_files(self) -> Sequence[FileInfo]:
        """As `Executor.list_files`."""
        self._ready()
        return self._files.list()

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Refuse: the environment over there may be shared.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError(
            "Packages are not installed on a Jupyter server.",
            executor=self.name,
            why="Its environment may be shared with others.",
            hint=f"Do it yourself, if it is yours: %%sandbox -e remote, and below it %pip install {' '.join(packages)}",
        )

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _ready(self, *, say: TextHook = no_text, asks: bool = True) -> None:
        if self._spoiled:
            self._kernel.restart(say=say)
            self._spoiled = False
        self._kernel.ready(say=say, asks=asks)

    def _take_lost(self) -> bool:
        """Whether variables were lost that nobody was told of; now somebody is."""
        lost, self._kernel.lost = self._kernel.lost, False
        return lost

    def _run(
        self, code: str, collector: OutputCollector, timeout_s: float, say: TextHook
    ) -> tuple[Execution, Outcome] | None:
        """Send the code and follow it; once more if the kernel was still clearing its queue."""
        for attempt in (1, 2):
            try:
                execution = self._kernel.begin(code, collector, timeout_s=timeout_s, say=say)
            except SocketClosed:
                self._kernel.ready(say=say)  # it went down since: this connects anew
                if self._kernel.lost:
                    return None
                continue
            if execution is None:
                return None
            self._execution = execution
            outcome = self._kernel.follow(execution, execution.deadline)
            if attempt == 2 or not (outcome == "done" and execution.aborted):
                return execution, outcome
        raise ExecutorError(
            "The connection to the remote kernel does not hold.", executor=self.name, hint="Try again; %agent restart."
        )

    def _settle(self, execution: Execution, outcome: Outcome) -> tuple[ExecutionStatus, ErrorInfo | None]:
        """What the outcome means; brings the kernel back to order."""
        if outcome == "done":
            self._spoiled = False
            return ("ok" if execution.succeeded else "error"), None
        if outcome in _ENDS:
            self._spoiled = False
            self._kernel.forget(lost=True)
            return "died", _ENDS[outcome]
        if outcome == "large":
            self._kernel.line.reconnect()
        self._interrupt_and_wait(execution, _GRACE_S, missed=outcome == "large")
        if outcome == "late":
            return "timeout", ErrorInfo(
                "CellTimeout",
                f"The code was stopped after {execution.timeout_s:g} seconds (AGENT_CELL_TIMEOUT, --timeout).",
            )
        if outcome == "large":
            limit = mib(self.limits.message_bytes)
            text = f"The code was stopped: one message may have {limit} (AGENT_LIMIT_MESSAGE)."
            return "error", ErrorInfo("OutputLimitExceeded", text)
        return "error", ErrorInfo(
            "OutputLimitExceeded",
            f"The code was stopped: it sent more than {self.limits.messages:,} messages (AGENT_LIMIT_MESSAGES).",
        )

    def _interrupt_and_wait(self, execution: Execution, grace_s: float, *, missed: bool = False) -> None:
        """Interrupt the code; a kernel that does not heed it stays spoiled, and is restarted before the next code.

        Where the end may have been `missed`, with a connection that was closed, a further answer tells that it came.
        """
        try:
            self._kernel.interrupt()
            if missed:
                self._spoiled = not self._kernel.call("same", timeout_s=grace_s)
                return
            outcome = self._kernel.follow(execution, time.monotonic() + grace_s)
        except (ExecutorError, SocketClosed):
            return
        self._spoiled = outcome != "done"

    def _stop(self) -> None:
        """Ctrl-C: stop the code; a second one leaves that to a restart."""
        if self._spoiled and self._execution is not None:
            try:
                self._interrupt_and_wait(self._execution, _KEYBOARD_GRACE_S)
            except KeyboardInterrupt:
                self._spoiled = True

    def _changed(self, execution: Execution) -> tuple[FileInfo, ...]:
        try:
            return tuple(file_infos(self._kernel.changes(execution)))
        except (SocketClosed, ExecutorError):
            return ()  # the next execution finds out what is the matter


_alive: weakref.WeakSet[RemoteExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():
            executor.shutdown()
