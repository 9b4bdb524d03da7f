"""The life of a kernel that we own: start, run code, interrupt, notice its death, start again.

How its process is started is somebody else's business (`KernelProcess`); how one speaks to it is `channel.py`, and one
execution is `execution.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from ..errors import ExecutorError, KernelDied
from ..outputs import OutputCollector, OutputLimits, mib
from ..types import ErrorInfo, ExecutionResult, ExecutionStatus, OutputHook
from .execution import Connection, Execution, KernelProcess, Outcome

START_S = 60.0
"""Longest start, seconds."""
INTERRUPT_GRACE_S = 1.0
"""After a timeout's interrupt, before the kernel is killed."""
KEYBOARD_GRACE_S = 0.5
"""After Ctrl-C's interrupt; the reader is waiting."""


class Kernel:
    """Runs code in a kernel, and replaces the kernel when it is lost.

    Args:
        launch: starts a process and returns at once.
        name: the executor's name, for errors.
        limits: of the outputs of one execution.
        breach: asked at the end of each execution: the limit that it broke, if any.
        start_s: longest start, seconds.
    """

    def __init__(
        self,
        launch: Callable[[], KernelProcess],
        *,
        name: str,
        limits: OutputLimits | None = None,
        breach: Callable[[], ErrorInfo | None] = lambda: None,
        start_s: float = START_S,
    ) -> None:
        self._launch = launch
        self._name = name
        self.limits = limits or OutputLimits()
        self._breach = breach
        self._start_s = start_s
        self.stopped = False
        """The last code was stopped before its end, and its kernel goes on."""
        self._process: KernelProcess | None = None
        self.started: datetime | None = None
        """When the process was started that runs now."""
        self._connection: Connection | None = None
        self._worked = False
        """A kernel has answered: from now on a failing start is a death."""
        self._spoiled = False
        """Nobody knows what the kernel is doing: replace it before the next execution."""
        self._state_lost = False
        """For the next result to tell."""

    def start(self) -> None:
        """Begin to start, unless that has happened."""
        if self._process is None:
            self._begin()

    @property
    def process(self) -> KernelProcess | None:
        """What was started and has not ended yet."""
        return self._process if self._process is not None and self._process.poll() is None else None

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        if self._process is not None:
            self._process.interrupt()

    def recover(self) -> bool:
        """Replace a kernel that has ended since its last execution; whether its variables are gone that way.

        Raises:
            KernelDied: another one could not be started.
        """
        ended = self._connection is not None and self._connection.process.poll() is not None
        if ended:
            self.restart()
        return ended

    def restart(self) -> None:
        """Kill the kernel and begin to start another.

        Raises:
            KernelDied: it could not be started.
        """
        self.shutdown()
        try:
            self.start()
            return
        except ExecutorError as error:
            failure = error
        except OSError as error:
            failure = ExecutorError(str(error), executor=self._name)
        raise self._died(failure)

    def shutdown(self) -> None:
        """Kill the kernel. Idempotent."""
        connection, self._connection = self._connection, None
        if self._process is not None:
            self._process.kill()  # again after a Ctrl-C in here: forget the process only when it is dead
            self._process = None
        self._spoiled = False
        if connection is not None:
            connection.close()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook, trusted: bool = False) -> ExecutionResult:
        """As `Executor.execute`; `new_files` is the caller's to fill. `trusted`: rich output passes uncleaned."""
        started = time.monotonic()
        collector = OutputCollector(on_output, limits=self.limits, trusted=trusted)
        execution: Execution | None = None
        error: ErrorInfo | None = None
        status: ExecutionStatus = "interrupted"
        try:
            connection = self._connect(started + self._start_s)
            self._spoiled = True  # until the end is known: a second Ctrl-C may come at any moment
            execution = connection.begin(code, collector, timeout_s=timeout_s)
            outcome = connection.follow(execution, execution.deadline)
            status, error = self._settle(connection, execution, outcome)
        except KeyboardInterrupt:
            self._stop(execution)
        self.stopped = status in ("timeout", "interrupted") and not self._state_lost
        broken = self._breach()
        if broken is None and status == "ok" and collector.breach:
            broken = ErrorInfo("OutputLimitExceeded", collector.breach)
        if broken is not None:
            status, error = "error", broken
        if error is not None:
            lines = [f"{error.ename}: {error.evalue}"]
            collector.add({"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": lines})
        outputs = collector.finish()
        if status == "error" and error is None and execution is not None:
            error = execution.error(outputs)
        lost, self._state_lost = self._state_lost, False
        return ExecutionResult(
            status=status,
            outputs=outputs,
            execution_count=execution.count if execution else None,
            error=error,
            duration_s=time.monotonic() - started,
            state_lost=lost,
        )

    def _begin(self) -> KernelProcess:
        """The process, started if need be."""
        if self._process is None:
            self._process = self._launch()
            self.started = datetime.now(UTC)
        return self._process

    def _connect(self, deadline: float) -> Connection:
        """A kernel that answers.

        Raises:
            KernelDied: there was one, and it could not be started again.
            ExecutorError: the first start failed.
        """
        connection = self._connection
        if self._spoiled or (connection is not None and connection.process.poll() is not None):
            self.replace()
        elif connection is not None:
            return connection
        try:
            process = self._begin()
            self._connection = Connection.open(process, deadline, self.limits)
            self._worked = True
            return self._connection
        except ExecutorError as error:
            failure = error
        self.shutdown()
        raise self._died(failure) if self._worked else failure

    def _settle(
        self, connection: Connection, execution: Execution, outcome: Outcome
    ) -> tuple[ExecutionStatus, ErrorInfo | None]:
        """What the outcome means; brings the kernel back to order."""
        if outcome == "done":
            self._spoiled = False
            if connection.too_large(execution):
                return "error", self._too_large()
            return ("ok" if execution.succeeded else "error"), None
        if outcome == "died":
            code = connection.process.poll()
            self.replace()
            return "died", ErrorInfo("KernelDied", f"The kernel ended while the code ran (status {code}).")
        connection.process.interrupt()
        if outcome == "late":
            self._end(connection, execution, INTERRUPT_GRACE_S)
            return "timeout", ErrorInfo(
                "CellTimeout",
                f"The code was stopped after {execution.timeout_s:g} seconds (AGENT_CELL_TIMEOUT, --timeout).",
            )
        if outcome == "flood":
            self._end(connection, execution, INTERRUPT_GRACE_S)
            return "error", self._flood(connection, execution)
        try:
            connection.resume(time.monotonic() + INTERRUPT_GRACE_S)
            self._spoiled = False
        except ExecutorError:
            self.replace()
        return "error", ErrorInfo("ConnectionBroken", "The code broke the connection to its kernel and was stopped.")

    def _too_large(self) -> ErrorInfo:
        limit = mib(self.limits.message_bytes)
        return ErrorInfo(
            "OutputLimitExceeded", f"An output is not shown: one message may have {limit} (AGENT_LIMIT_MESSAGE)."
        )

    def _flood(self, connection: Connection, execution: Execution) -> ErrorInfo:
        if connection.too_large(execution):
            return self._too_large()
        return ErrorInfo(
            "OutputLimitExceeded",
            f"The code was stopped: it sent more than {self.limits.messages:,} messages (AGENT_LIMIT_MESSAGES).",
        )

    def _stop(self, execution: Execution | None) -> None:
        """Ctrl-C: stop the code, or the kernel if the code does not stop; a second one kills it at once."""
        if not self._spoiled:
            return  # the kernel was still starting, or the code had just ended
        connection = self._connection
        try:
            if connection is None or execution is None:
                self.replace()
            else:
                connection.process.interrupt()
                self._end(connection, execution, KEYBOARD_GRACE_S)
        except KeyboardInterrupt:
            self.replace()

    def _end(self, connection: Connection, execution: Execution, grace_s: float) -> None:
        """Wait for interrupted code to end; kill the kernel if it does not."""
        if connection.follow(execution, time.monotonic() + grace_s) == "done":
            self._spoiled = False
        else:
            self.replace()

    def replace(self) -> None:
        """Kill the kernel and begin to start another; variables are lost."""
        self._state_lost = True
        self.restart()

    def _died(self, cause: ExecutorError) -> KernelDied:
        return KernelDied(
            "The kernel was lost and could not be started again.",
            executor=self._name,
            why=" ".join(cause.lines()[:2]),
            hint=cause.hint,
        )
