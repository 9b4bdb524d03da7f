"""A running kernel at the other end of a channel, and one execution on it."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, Self

from ..errors import ExecutorError, ExecutorTimeout
from ..outputs import OutputCollector, OutputLimits, clean_text
from ..types import ErrorInfo, Output
from .channel import KernelChannel, KernelMessage
from .frames import Endpoint

Outcome = Literal["done", "late", "died", "broken", "flood"]

_RESEND_S = 0.1
_IDLE_PATIENCE_S = 1.0
_END_PATIENCE_S = 0.3
_MAX_OVERSIZED = 16  # times the limit of one message; then the code is stopped


class KernelProcess(Protocol):
    """A kernel that was started somewhere."""

    key: bytes
    """Signs messages in both directions."""

    @property
    def shell(self) -> Endpoint:
        """Endpoint of the shell channel."""

    @property
    def iopub(self) -> Endpoint:
        """Endpoint of the iopub channel."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def last_words(self) -> str:
        """Of one that ended while it started: what it said, one line."""

    def wait_started(self, deadline: float) -> None:
        """Wait until it is safe and useful to connect; raises what the start's failure is."""

    def interrupt(self) -> None:
        """Send SIGINT to the kernel."""

    def kill(self) -> None:
        """End it and what belongs to it, and return when it has ended. Idempotent."""


class Execution:
    """One execution: what the kernel said about it so far."""

    def __init__(
        self, request_id: str, collector: OutputCollector, *, timeout_s: float, received: int = 0, oversized: int = 0
    ) -> None:
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self._request_id = request_id
        self._collector = collector
        self._idle = False
        self._reply: Mapping[str, object] | None = None
        self.replied_at: float | None = None
        """Of `time.monotonic`."""
        self.received, self.oversized = received, oversized
        """The channel's counts when the execution began."""
        self.flooded = False

    @property
    def done(self) -> bool:
        """Whether the kernel answered and is idle again."""
        return self._idle and self._reply is not None

    @property
    def succeeded(self) -> bool:
        """Whether the code ended without an exception."""
        return self._reply is not None and self._reply.get("status") == "ok"

    @property
    def aborted(self) -> bool:
        """Whether the kernel did not begin: it was still clearing its queue after an earlier error."""
        return self._reply is not None and self._reply.get("status") == "aborted"

    def expression(self, name: str) -> str:
        """The text of the value of one of the request's `user_expressions`; empty where there is none."""
        found: object = self._reply or {}
        for key in ("user_expressions", name, "data", "text/plain"):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, str) else ""

    @property
    def count(self) -> int | None:
        """The execution count that the kernel claims."""
        return _count(self._reply or {})

    def error(self, outputs: Sequence[Output]) -> ErrorInfo:
        """The exception that ended the code, from its cleaned outputs, else from the reply."""
        for output in reversed(outputs):
            if output["output_type"] == "error":
                return ErrorInfo(output["ename"], output["evalue"], tuple(output["traceback"]))
        reply = self._reply or {}
        name, value = (clean_text(str(reply.get(key, "")))[:1000] for key in ("ename", "evalue"))
        return ErrorInfo(name or "UnknownError", value)

    def take(self, message: KernelMessage) -> None:
        """Use a message if it answers this execution; late ones of another are dropped."""
        if message.parent_id != self._request_id:
            return
        content = message.content
        if message.kind == "execute_reply":
            self._reply, self.replied_at = content, time.monotonic()
        elif message.kind == "status":
            self._idle = self._idle or content.get("execution_state") == "idle"
        elif message.kind == "clear_output":
            self._collector.clear(wait=bool(content.get("wait")))
        elif message.channel == "iopub":
            output = _output(message.kind, content)
            if output is not None:
                with contextlib.suppress(RecursionError):  # JSON nested just deep enough to be parsed
                    if message.kind == "update_display_data":
                        self._collector.update(output)
                    else:
                        self._collector.add(output)


class Connection:
    """A kernel that answers. `open` makes one; `process` stays the caller's to kill."""

    def __init__(self, process: KernelProcess, limits: OutputLimits) -> None:
        self.process = process
        self._limits = limits
        self._channel = KernelChannel(process.shell, process.iopub, process.key, max_bytes=limits.message_bytes)

    @classmethod
    def open(cls, process: KernelProcess, deadline: float, limits: OutputLimits) -> Self:
        """Wait until `process` has started and answers.

        Args:
            process: the kernel.
            deadline: of `time.monotonic`.
            limits: of one execution's outputs.

        Raises:
            ExecutorTimeout: the deadline passed.
            ExecutorError: the process ended; or what its start raises.
        """
        process.wait_started(deadline)
        connection = cls(process, limits)
        try:
            connection.greet(deadline)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the channel. Idempotent."""
        self._channel.close()

    def greet(self, deadline: float) -> None:
        """Ask for the kernel's info until both channels have answered: only then outputs are not missed.

        Raises:
            ExecutorTimeout: the deadline passed.
            ExecutorError: the process ended.
        """
        asked: set[str] = set()
        answered: set[str] = set()
        again = 0.0
        while len(answered) < 2:
            now = time.monotonic()
            if self.process.poll() is not None:
                why = self.process.last_words()
                raise ExecutorError("The kernel ended while it started.", executor="kernel", why=why)
            if now > deadline:
                raise ExecutorTimeout("The kernel did not answer in time.", executor="kernel")
            if not asked or (answered and now >= again):
                asked.add(self._channel.request("kernel_info_request", {}))
                again = now + _RESEND_S
            self._channel.wait(min(deadline, again) if answered else deadline, also=self.process.fileno())
            answered |= {message.channel for message in self._channel.receive() if message.parent_id in asked}
            if self._channel.broken:
                self._channel.reconnect()
                asked.clear()

    def resume(self, deadline: float) -> None:
        """After `broken`: connect anew and wait until the kernel is through with its code. Raises as `greet`."""
        self._channel.reconnect()
        self.greet(deadline)

    def begin(self, code: str, collector: OutputCollector, *, timeout_s: float) -> Execution:
        """Send `code` to the kernel; its outputs will go to `collector`."""
        content: dict[str, object] = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        channel = self._channel
        return Execution(
            channel.request("execute_request", content),
            collector,
            timeout_s=timeout_s,
            received=channel.received,
            oversized=channel.oversized_bytes,
        )

    def too_large(self, execution: Execution) -> bool:
        """Whether a message was skipped for its size."""
        return self._channel.oversized_bytes > execution.oversized

    def follow(self, execution: Execution, deadline: float) -> Outcome:
        """Take messages until the execution has ended, one way or another, or the deadline passed."""
        while True:
            dead = self.process.poll() is not None
            for message in self._channel.receive():
                execution.take(message)
            if execution.done:
                return "done"
            if dead or (self._channel.broken and self._ends_soon()):
                self._drain(execution)
                return "died"
            if self._channel.broken:
                return "broken"
            if not execution.flooded and self._is_flood(execution):
                execution.flooded = True
                return "flood"
            now = time.monotonic()
            if now >= deadline:
                return "late"
            wake = deadline
            if execution.replied_at is not None:
                # The last message may be lost (forged, dropped); do not wait for it for long.
                wake = min(deadline, execution.replied_at + _IDLE_PATIENCE_S)
                if now >= wake:
                    return "done"
            self._channel.wait(wake, also=self.process.fileno())

    def _is_flood(self, execution: Execution) -> bool:
        """Whether there were more messages, or larger ones, than any honest code sends."""
        oversized = self._channel.oversized_bytes - execution.oversized
        return (
            self._channel.received - execution.received > self._limits.messages
            or oversized > _MAX_OVERSIZED * self._limits.message_bytes
        )

    def _ends_soon(self) -> bool:
        """Whether the process ends within a moment: its sockets close a little earlier."""
        select.select([self.process], [], [], _END_PATIENCE_S)
        return self.process.poll() is not None

    def _drain(self, execution: Execution) -> None:
        """Take what a dead kernel left in the queues."""
        while messages := list(self._channel.receive()):
            for message in messages:
                execution.take(message)


def _output(kind: str, content: Mapping[str, object]) -> Output | None:
    """A message's content as an output in nbformat's schema, as far as its shape allows."""
    if kind == "stream":
        name: Literal["stdout", "stderr"] = "stderr" if content.get("name") == "stderr" else "stdout"
        text = content.get("text")
        return {"output_type": "stream", "name": name, "text": text} if isinstance(text, str) else None
    if kind == "error":
        ename, evalue, lines = (content.get(key) for key in ("ename", "evalue", "traceback"))
        if not (isinstance(ename, str) and isinstance(evalue, str) and isinstance(lines, list)):
            return None
        return {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": [str(line) for line in lines]}
    data, metadata = content.get("data"), content.get("metadata")
    data = data if isinstance(data, dict) else {}
    metadata = metadata if isinstance(metadata, dict) else {}
    if kind in ("display_data", "update_display_data"):
        transient = content.get("transient")
        transient = transient if isinstance(transient, dict) else {}
        return {"output_type": "display_data", "data": data, "metadata": metadata, "transient": transient}
    return {
        "output_type": "execute_result",
        "data": data,
        "metadata": metadata,
        "execution_count": _count(content),
    }


def _count(content: Mapping[str, object]) -> int | None:
    """An execution count that may be one."""
    count = content.get("execution_count")
    return count if isinstance(count, int) and 0 < count < 1 << 31 else None
