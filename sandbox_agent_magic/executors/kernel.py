"""The life of a kernel that we own: start, run code, interrupt, notice its death, start again.

How its process is started is somebody else's business (`KernelProcess`); how one speaks to it is `channel.py`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from ..errors import ExecutorError, ExecutorTimeout, KernelDied
from ..outputs import OutputCollector
from ..types import ErrorInfo, ExecutionResult, ExecutionStatus, Output, OutputHook
from .channel import KernelChannel, KernelMessage

START_S = 60.0
"""Longest start."""
INTERRUPT_GRACE_S = 1.0
"""After a timeout's interrupt, before the kernel is killed."""
KEYBOARD_GRACE_S = 0.5
"""After Ctrl-C's interrupt; the reader is waiting."""
_RESEND_S = 0.1
_IDLE_PATIENCE_S = 1.0
_END_PATIENCE_S = 0.3


class KernelProcess(Protocol):
    """A kernel that was started somewhere."""

    key: bytes

    @property
    def shell(self) -> str:
        """Endpoint of the shell channel."""

    @property
    def iopub(self) -> str:
        """Endpoint of the iopub channel."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def wait_started(self, deadline: float) -> None:
        """Wait until it is safe and useful to connect; raises what the start's failure is."""

    def interrupt(self) -> None:
        """Send SIGINT to the kernel."""

    def kill(self) -> None:
        """End it and what belongs to it, and return when it has ended."""


Outcome = Literal["done", "late", "died", "broken"]


class _Run:
    """One execution: what its messages said so far."""

    def __init__(self, request_id: str, collector: OutputCollector) -> None:
        self.request_id = request_id
        self.collector = collector
        self.idle = False
        self.reply: Mapping[str, object] | None = None
        self.replied_at = 0.0

    def take(self, message: KernelMessage) -> None:
        """Use a message if it answers this execution; late ones of another are dropped."""
        if message.parent_id != self.request_id:
            return
        content = message.content
        if message.kind == "execute_reply":
            self.reply, self.replied_at = content, time.monotonic()
        elif message.kind == "status":
            self.idle = self.idle or content.get("execution_state") == "idle"
        elif message.kind == "clear_output":
            self.collector.clear(wait=bool(content.get("wait")))
        elif message.kind != "kernel_info_reply":
            output = _output(message.kind, content)
            if output is not None:
                self.collector.add(output)

    @property
    def count(self) -> int | None:
        """The execution count that the kernel claims."""
        count = (self.reply or {}).get("execution_count")
        return count if isinstance(count, int) else None


class Kernel:
    """Runs code in a kernel, and replaces the kernel when it is lost.

    Args:
        launch: starts a process and returns at once.
        name: the executor's name, for errors.
    """

    def __init__(self, launch: Callable[[], KernelProcess], *, name: str) -> None:
        self._launch = launch
        self._name = name
        self._process: KernelProcess | None = None
        self._channel: KernelChannel | None = None
        self._ready = False
        self._lost = False
        self._ever_ready = False
        self._spoiled = False

    def start(self) -> None:
        """Begin to start, unless that has happened."""
        if self._process is None:
            self._process = self._launch()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`, without `new_files`."""
        started = time.monotonic()
        collector = OutputCollector(on_output)
        try:
            self._make_ready(started + START_S)
        except KeyboardInterrupt:
            return self._result("interrupted", collector, started)
        assert self._channel is not None
        run: _Run | None = None
        self._spoiled = True  # until the end is known: a second Ctrl-C may come at any moment
        try:
            run = _Run(self._channel.request("execute_request", _request(code)), collector)
            outcome = self._follow(run, time.monotonic() + timeout_s)
            status, error = self._settle(run, outcome, timeout_s)
        except KeyboardInterrupt:
            status, error = "interrupted", None
            try:
                self._interrupt(run)
            except KeyboardInterrupt:
                self._replace()
        return self._result(status, collector, started, run=run, error=error)

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        if self._process is not None:
            self._process.interrupt()

    def restart(self) -> None:
        """Kill the kernel and begin to start another.

        Raises:
            KernelDied: it could not be started.
        """
        self.shutdown()
        failure: ExecutorError | None = None
        try:
            self.start()
        except (ExecutorError, OSError) as error:
            failure = error if isinstance(error, ExecutorError) else ExecutorError(str(error), executor=self._name)
        if failure is not None:
            raise self._dead(failure)

    def shutdown(self) -> None:
        """Kill the kernel. Idempotent."""
        channel, self._channel = self._channel, None
        process, self._process = self._process, None
        self._ready = self._spoiled = False
        try:
            if process is not None:
                process.kill()
        finally:
            if channel is not None:
                channel.close()

    # ---- readiness -----------------------------------------------------------------------------------------------

    def _make_ready(self, deadline: float) -> None:
        """A kernel that answers, or an error."""
        dead = self._process is not None and self._ready and self._process.poll() is not None
        if self._spoiled or dead:
            self._replace()
        self.start()
        if self._ready:
            return
        assert self._process is not None
        failure: ExecutorError | None = None
        try:
            self._process.wait_started(deadline)
            if self._channel is None:
                self._channel = KernelChannel(self._process.shell, self._process.iopub, self._process.key)
            self._greet(deadline)
        except ExecutorError as error:
            failure = error
        if failure is not None:
            self.shutdown()
            raise self._dead(failure) if self._ever_ready else failure
        self._ready = self._ever_ready = True

    def _greet(self, deadline: float) -> None:
        """Ask for the kernel's info until both channels have answered: only then outputs are not missed."""
        assert self._channel is not None
        assert self._process is not None
        asked: set[str] = set()
        answered: set[str] = set()
        again = 0.0
        while len(answered) < 2:
            now = time.monotonic()
            if self._process.poll() is not None:
                status = self._process.poll()
                raise KernelDied("The kernel ended while it started.", executor=self._name, why=f"status {status}")
            if now > deadline:
                raise ExecutorTimeout(f"The kernel did not answer within {START_S:g} s.", executor=self._name)
            if not asked or (answered and now >= again):
                asked.add(self._channel.request("kernel_info_request", {}))
                again = now + _RESEND_S
            self._channel.wait(min(deadline, again) if answered else deadline, also=self._process.fileno())
            for message in self._channel.receive():
                if message.parent_id in asked:
                    answered.add(message.channel)
            if self._channel.broken:
                self._channel.reconnect()
                asked.clear()

    # ---- one execution -------------------------------------------------------------------------------------------

    def _follow(self, run: _Run, deadline: float) -> Outcome:
        """Take messages until the execution has ended, one way or another."""
        assert self._channel is not None
        assert self._process is not None
        while True:
            dead = self._process.poll() is not None
            for message in self._channel.receive():
                run.take(message)
            if run.idle and run.reply is not None:
                return "done"
            if dead or (self._channel.broken and self._ends_soon()):
                self._drain(run)
                return "died"
            if self._channel.broken:
                return "broken"
            now = time.monotonic()
            if now >= deadline:
                return "late"
            wake = deadline
            if run.reply is not None:  # the kernel may drop messages, even the last: do not wait for it for long
                wake = min(deadline, run.replied_at + _IDLE_PATIENCE_S)
                if now >= wake:
                    return "done"
            self._channel.wait(wake, also=self._process.fileno())

    def _ends_soon(self) -> bool:
        """Whether the process ends within a moment: its sockets close a little earlier."""
        assert self._process is not None
        select.select([self._process], [], [], _END_PATIENCE_S)
        return self._process.poll() is not None

    def _drain(self, run: _Run) -> None:
        """Take what a dead kernel left in the queues."""
        assert self._channel is not None
        messages = list(self._channel.receive())
        while messages:
            for message in messages:
                run.take(message)
            messages = list(self._channel.receive())

    def _settle(self, run: _Run, outcome: Outcome, timeout_s: float) -> tuple[ExecutionStatus, ErrorInfo | None]:
        """What the outcome means, and the kernel brought back to order."""
        assert self._process is not None
        if outcome == "late":
            self._process.interrupt()
            if self._follow(run, time.monotonic() + INTERRUPT_GRACE_S) == "done":
                self._spoiled = False
            else:
                self._replace()
            return "timeout", ErrorInfo("CellTimeout", f"The code was stopped after {timeout_s:g} seconds.")
        if outcome == "died":
            status = self._process.poll()
            self._replace()
            return "died", ErrorInfo("KernelDied", f"The kernel ended while the code ran (status {status}).")
        if outcome == "broken":
            return "error", self._resume(run, timeout_s)
        self._spoiled = False
        return ("ok" if (run.reply or {}).get("status") == "ok" else "error"), None

    def _resume(self, run: _Run, timeout_s: float) -> ErrorInfo:
        """After a message over the limit: connect anew, and wait until the kernel is through with the code."""
        assert self._channel is not None
        assert self._process is not None
        self._channel.reconnect()
        try:
            self._greet(time.monotonic() + timeout_s)
            failed = False
        except ExecutorError:
            failed = True
        if failed:
            self._replace()
        self._spoiled = False
        return ErrorInfo("OutputLimitExceeded", "One output was over 16 MiB; it and what followed were not shown.")

    def _interrupt(self, run: _Run | None) -> None:
        """Ctrl-C: stop the code, or the kernel if the code does not stop."""
        assert self._process is not None
        self._process.interrupt()
        if run is not None and self._follow(run, time.monotonic() + KEYBOARD_GRACE_S) == "done":
            self._spoiled = False
        else:
            self._replace()

    def _replace(self) -> None:
        """Kill the kernel and begin to start another; variables are lost."""
        self._lost = True
        self.restart()

    def _result(
        self,
        status: ExecutionStatus,
        collector: OutputCollector,
        started: float,
        *,
        run: _Run | None = None,
        error: ErrorInfo | None = None,
    ) -> ExecutionResult:
        lost, self._lost = self._lost, False
        outputs = collector.finish()
        return ExecutionResult(
            status=status,
            outputs=outputs,
            execution_count=run.count if run else None,
            error=_raised(outputs) if status == "error" and error is None else error,
            duration_s=time.monotonic() - started,
            state_lost=lost,
        )

    def _dead(self, cause: ExecutorError) -> KernelDied:
        return KernelDied(
            "The kernel was lost and could not be started again.",
            executor=self._name,
            why=" ".join(cause.lines()[:2]),
            hint=cause.hint,
        )


def _request(code: str) -> dict[str, object]:
    return {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }


def _raised(outputs: Sequence[Output]) -> ErrorInfo:
    """The exception that ended the code, from the cleaned outputs."""
    for output in reversed(outputs):
        if output["output_type"] == "error":
            return ErrorInfo(output["ename"], output["evalue"], tuple(output["traceback"]))
    return ErrorInfo("UnknownError", "The code failed and did not say how.")


def _output(kind: str, content: Mapping[str, object]) -> Output | None:
    """A message's content as an output in nbformat's schema, as far as its shape allows."""
    data, metadata = content.get("data"), content.get("metadata")
    data = data if isinstance(data, dict) else {}
    metadata = metadata if isinstance(metadata, dict) else {}
    if kind == "stream":
        name: Literal["stdout", "stderr"] = "stderr" if content.get("name") == "stderr" else "stdout"
        text = content.get("text")
        return {"output_type": "stream", "name": name, "text": text} if isinstance(text, str) else None
    if kind == "display_data":
        return {"output_type": "display_data", "data": data, "metadata": metadata}
    if kind == "execute_result":
        count = content.get("execution_count")
        count = count if isinstance(count, int) else None
        return {"output_type": "execute_result", "data": data, "metadata": metadata, "execution_count": count}
    lines = content.get("traceback")
    return {
        "output_type": "error",
        "ename": str(content.get("ename", "")),
        "evalue": str(content.get("evalue", "")),
        "traceback": [str(line) for line in lines] if isinstance(lines, list) else [],
    }
