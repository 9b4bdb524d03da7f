"""The line to one kernel: requests go out, what answers them is followed, and a line that is cut is taken up again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Literal

from ...errors import ExecutorError, ExecutorTimeout
from ...outputs import OutputCollector, OutputLimits
from ...types import TextHook, no_text
from ..channel import KernelMessage
from ..execution import Execution
from .patience import Patience
from .refusals import KernelGone, no_kernel
from .server import JupyterServer
from .socket import KernelSocket, SocketClosed

Outcome = Literal["done", "late", "died", "cut", "gone", "flood", "large"]

_RESEND_S = 1.0
_REPLY_PATIENCE_S = 2.0
_RECONNECT_S = 30.0
"""For a server that was started anew, or a network that comes back."""
_DRAIN_S = 1.0
_SURE_S = 30.0
"""A line on which something came within these seconds is up."""


class KernelLine:
    """A connection to a kernel. Use it from one thread."""

    def __init__(self, server: JupyterServer, limits: OutputLimits) -> None:
        self.server = server
        self.limits = limits
        self.kernel_id = ""
        self.say: TextHook = no_text
        """Told when a cut lasts."""
        self._session_id = secrets.token_hex(16)
        self._socket: KernelSocket | None = None

    @property
    def open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._socket is not None

    @property
    def sure(self) -> bool:
        """Whether something came a short while ago: what is sent now arrives."""
        return self._socket is not None and time.monotonic() - self._socket.last_s < _SURE_S

    def connect(self, kernel_id: str, patience: Patience, *, fresh: bool = False) -> None:
        """Connect and wait until the kernel has answered on both channels: only then outputs are not missed.

        Args:
            kernel_id: of the kernel.
            patience: how long it may take.
            fresh: it was started a moment ago, and has never answered.

        Raises:
            KernelGone: there is no such kernel; or a fresh one ended while it started.
            ExecutorTimeout: it did not answer in time.
            ExecutorError: the server cannot be reached or refuses.
        """
        self.close()
        self.kernel_id = kernel_id
        shown = self.server.target.shown
        asked: set[str] = set()
        answered: set[str] = set()
        again = 0.0
        while len(answered) < 2:
            patience.tell(f"Waiting for the kernel on {shown} to answer")
            if not patience.left:
                self.close()
                raise ExecutorTimeout(
                    "The remote kernel did not answer in time.",
                    executor="remote",
                    why=f"{shown} had {patience.seconds:g} seconds (AGENT_REMOTE_START_TIMEOUT).",
                    hint="Look whether it is busy, or ended; %agent restart starts afresh.",
                )
            try:
                now = time.monotonic()
                self._socket = self._socket or self._plug()
                if now >= again:
                    asked.add(self._socket.request("kernel_info_request", {}))
                    again = now + _RESEND_S
                message = self._socket.receive(min(again, now + patience.look_s))
            except SocketClosed:
                patience.sleep(0.2, f"Waiting for {shown}")
                self.close()
                again = 0.0
                continue
            if message is None:
                continue
            if fresh and _tells_an_end(message):
                self.close()
                raise no_kernel(self.server.target, kernel_id)
            if message.parent_id in asked:
                answered.add(message.channel)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def drain(self) -> None:
        """Drop what came between two executions, such as the prints of a thread that goes on. Raises SocketClosed."""
        end = time.monotonic() + _DRAIN_S
        while time.monotonic() < end and self._connected().receive(0) is not None:
            pass

    def execute(
        self,
        code: str,
        collector: OutputCollector,
        *,
        timeout_s: float,
        ask: str,
        silent: bool = False,
        request_id: str = "",
    ) -> Execution:
        """Send code, and an expression that is evaluated after it if it does not fail. Raises SocketClosed."""
        socket = self._connected()
        content: dict[str, object] = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {"far": ask},
            "allow_stdin": False,
            "stop_on_error": not silent,
        }
        received = socket.received
        request_id = socket.request("execute_request", content, request_id=request_id)
        return Execution(request_id, collector, timeout_s=timeout_s, received=received)

    def follow(self, execution: Execution, deadline: float, *, behind: Sequence[Execution] = ()) -> Outcome:
        """Take messages until the execution has ended, one way or another, or the deadline passed.

        With others `behind` it in the kernel's queue, which take theirs meanwhile, its reply is its end.
        """
        while True:
            if execution.done or (behind and execution.replied_at is not None):
                return "done"
            now = time.monotonic()
            if execution.replied_at is not None and now > execution.replied_at + _REPLY_PATIENCE_S:
                return "done"  # the last status did not come
            if now >= deadline:
                return "late"
            try:
                socket = self._connected()
                wake = deadline if execution.replied_at is None else min(deadline, now + _REPLY_PATIENCE_S)
                message = socket.receive(wake)
            except SocketClosed as closed:
                if closed.too_large:
                    return "large"
                failure = self.reconnect()
                if failure:
                    return failure
                continue
            if message is None:
                continue
            if _tells_an_end(message):
                return "died"
            for each in (execution, *behind):
                each.take(message)
            if not execution.flooded and socket.received - execution.received > self.limits.messages:
                execution.flooded = True
                return "flood"

    def reconnect(self) -> Literal["", "cut", "gone"]:
        """After a cut: come back with the same session, for which the server has kept the messages.

        Returns what is the matter if that cannot be: the server stays away, or it has come back without the kernel.
        """
        patience = Patience(_RECONNECT_S, self.say)
        pause = 0.2
        while patience.left:
            self.close()
            try:
                self._socket = self._plug()
                return ""
            except KernelGone:
                return "gone"
            except ExecutorError:
                patience.sleep(pause, f"The connection was cut; waiting for {self.server.target.shown}")
                pause = min(2.0, pause * 2)
        return "cut"

    def _plug(self) -> KernelSocket:
        return KernelSocket(self.server, self.kernel_id, self._session_id, max_bytes=self.limits.message_bytes)

    def _connected(self) -> KernelSocket:
        if self._socket is None:
            raise SocketClosed("it is closed")
        return self._socket


def _tells_an_end(message: KernelMessage) -> bool:
    """Whether the server says that the kernel ended; another one may take its place."""
    return message.kind == "status" and message.content.get("execution_state") in ("restarting", "dead")
