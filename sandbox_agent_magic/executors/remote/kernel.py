"""A kernel on a Jupyter server: opened, followed, interrupted, found again or found to be another one."""

from __future__ import annotations

import ast
import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

from ...errors import ExecutorError, ExecutorTimeout
from ...outputs import OutputCollector, OutputLimits
from ..execution import Execution
from . import inside
from .server import JupyterServer, KernelGone
from .socket import KernelSocket, SocketClosed

Outcome = Literal["done", "late", "died", "cut", "flood", "large"]

START_S = 120.0
"""Longest start, seconds: a gateway may have to find a machine first."""
_RESEND_S = 1.0
_REPLY_PATIENCE_S = 2.0
_CALL_S = 60.0
_PROBE_S = 3.0
"""For a kernel to say, before each execution, that it is the one of before: a few milliseconds of its time."""
_RECONNECT_S = 15.0
_DRAIN_S = 1.0


class RemoteKernel:
    """One kernel and the connection to it. Use it from one thread; `interrupt` may come from another."""

    def __init__(self, server: JupyterServer, limits: OutputLimits) -> None:
        self.server = server
        self.limits = limits
        self.borrowed = bool(server.target.kernel_id)
        """It was there before us and stays when we go."""
        self.kernel_id = server.target.kernel_id
        self.folder = ""
        """Where it works, as the kernel knows it."""
        self.lost = False
        """Its variables are gone, and nobody has been told."""
        self.started: datetime | None = None
        """When it was started, if we did that."""
        self._session_id = secrets.token_hex(16)
        self._generation = ""
        self._socket: KernelSocket | None = None

    def ready(self) -> None:
        """Make sure that there is a kernel, that it answers, and that it is the one of before.

        Raises:
            ExecutorError: it cannot be had.
        """
        deadline = time.monotonic() + START_S
        if self._socket is not None:
            try:
                self._drain()
                if self._same(timeout_s=_PROBE_S):
                    return
            except (SocketClosed, ExecutorTimeout):
                self._disconnect()  # a server says nothing of a kernel that was ended: look for it below
        if self.kernel_id and self._generation:
            try:
                self._connect(deadline)
                if self._same():
                    return
            except (SocketClosed, KernelGone):
                self._disconnect()
        self._open(deadline)

    def interrupt(self) -> None:
        """Interrupt what runs, if anything does."""
        if self.kernel_id:
            self.server.interrupt(self.kernel_id)

    def restart(self) -> None:
        """Restart the kernel: its variables are lost, its files stay. Raises as `ready`."""
        if not self._generation:
            return
        self.lost = True
        self._disconnect()
        with contextlib.suppress(KernelGone):
            self.server.restart(self.kernel_id)
        self._open(time.monotonic() + START_S)

    def close(self) -> None:
        """End the kernel and remove its folder, if they are ours; else only say goodbye. Never raises."""
        ours = self.kernel_id and not self.borrowed
        if ours and self._socket is not None:
            with contextlib.suppress(SocketClosed, ExecutorError):
                self.call("end", timeout_s=5)
        self._disconnect()
        if ours:
            with contextlib.suppress(ExecutorError):
                self.server.end_kernel(self.kernel_id)
            self.kernel_id = ""
        self._generation = self.folder = ""

    # ---- code -----------------------------------------------------------------------------------------------------

    def begin(self, code: str, collector: OutputCollector, *, timeout_s: float) -> Execution:
        """Send `code`; what it left behind is asked for with it. Raises SocketClosed."""
        return self._execute(code, collector, timeout_s=timeout_s, ask=_call("changes"))

    def follow(self, execution: Execution, deadline: float) -> Outcome:
        """Take messages until the execution has ended, one way or another, or the deadline passed."""
        while True:
            if execution.done:
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
                if not self.reconnect():
                    return "cut"
                continue
            if message is None:
                continue
            if message.kind == "status" and message.content.get("execution_state") in ("restarting", "dead"):
                return "died"
            execution.take(message)
            if not execution.flooded and socket.received - execution.received > self.limits.messages:
                execution.flooded = True
                return "flood"

    def changes(self, execution: Execution) -> list[object]:
        """Files that the execution changed; notes if another kernel answers than the one of before."""
        answer = _answer(execution.expression("far"))
        if "generation" not in answer:  # code that fails leaves the question unasked
            answer = self.call("changes")
        if answer.get("generation") != self._generation:
            self._generation = ""
            self.lost = True
            return []
        changed = answer.get("changed")
        return changed if isinstance(changed, list) else []

    def call(
        self, name: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = _CALL_S
    ) -> Mapping[str, object]:
        """Ask the far end; an empty answer if it is not there.

        Raises:
            SocketClosed: the connection is gone.
            ExecutorTimeout: no answer in time.
        """
        execution = self._execute("", _nowhere(), timeout_s=timeout_s, ask=_call(name, arguments), silent=True)
        outcome = self.follow(execution, execution.deadline)
        if outcome in ("cut", "large"):
            raise SocketClosed(outcome)
        if outcome != "done":
            raise ExecutorTimeout("The remote kernel does not answer.", executor="remote", hint="%agent restart")
        return _answer(execution.expression("far"))

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _open(self, deadline: float) -> None:
        """A kernel that answers, with the far end in it: the known one if it is still there, else a new one."""
        before = bool(self._generation)
        try:
            if not self.kernel_id:
                self._start()
            self._connect(deadline)
        except KernelGone:
            if self.borrowed:
                raise
            self._start()
            self._connect(deadline)
        self.lost = self.lost or before
        self._generation = secrets.token_hex(8)
        own = not self.borrowed
        program = f"{_program()}\ninstall({self._generation!r}, {self.folder!r}, {own!r})\n"
        code = f"__import__('builtins').exec({program!r}, {{'__name__': 'far'}})"
        try:
            execution = self._execute(code, _nowhere(), timeout_s=_CALL_S, ask=_call("begin"), silent=True)
            self.follow(execution, execution.deadline)
            answer = _answer(execution.expression("far"))
            environment = dict(self.server.target.environment)
            if environment and answer:
                self.call("environ", {"values": environment})
        except SocketClosed:
            answer = {}
        folder = answer.get("folder")
        if not isinstance(folder, str):
            self._disconnect()
            self._generation = ""
            raise ExecutorError(
                "The remote kernel cannot be used.",
                executor="remote",
                why="It did not take the few lines of Python that look after files.",
                hint="Set AGENT_REMOTE_KERNEL to a Python kernel of that server.",
            )
        self.folder = folder

    def _start(self) -> None:
        self.kernel_id = self.server.start_kernel()
        self.started = datetime.now(UTC)

    def _same(self, *, timeout_s: float = _CALL_S) -> bool:
        """Whether the kernel is the one of before, with its variables. Raises as `call`."""
        answer = self.call("changes", timeout_s=timeout_s)
        found = bool(self._generation) and answer.get("generation") == self._generation
        self.lost = self.lost or not found
        return found

    def _drain(self) -> None:
        """Drop what came between two executions, such as the prints of a thread that goes on."""
        end = time.monotonic() + _DRAIN_S
        while time.monotonic() < end and self._connected().receive(0) is not None:
            pass

    def _connect(self, deadline: float) -> None:
        """Connect and wait until the kernel has answered on both channels."""
        self._disconnect()
        self._socket = self._plug()
        asked: set[str] = set()
        answered: set[str] = set()
        again = 0.0
        while len(answered) < 2:
            now = time.monotonic()
            if now > deadline:
                self._disconnect()
                raise ExecutorTimeout(
                    "The remote kernel did not answer in time.",
                    executor="remote",
                    why=f"{self.server.target.shown} gave it {START_S:g} seconds.",
                    hint="Look whether it is busy, or ended; %agent restart starts afresh.",
                )
            try:
                if now >= again:
                    asked.add(self._socket.request("kernel_info_request", {}))
                    again = now + _RESEND_S
                message = self._socket.receive(min(deadline, again))
            except SocketClosed:
                time.sleep(0.2)
                self._disconnect()
                self._socket = self._plug()
                again = 0.0
                continue
            if message is not None and message.parent_id in asked:
                answered.add(message.channel)

    def _plug(self) -> KernelSocket:
        return KernelSocket(self.server, self.kernel_id, self._session_id, max_bytes=self.limits.message_bytes)

    def died(self) -> None:
        """The server said that the kernel ended: the next `ready` finds the new one, or starts one."""
        self.lost = True
        self._disconnect()

    def reconnect(self) -> bool:
        """After a cut: come back with the same session, for which the server has kept the messages."""
        end = time.monotonic() + _RECONNECT_S
        pause = 0.2
        while time.monotonic() < end:
            self._disconnect()
            try:
                self._socket = self._plug()
                return True
            except KernelGone:
                return False
            except ExecutorError:
                time.sleep(pause)
                pause = min(2.0, pause * 2)
        return False

    def _connected(self) -> KernelSocket:
        if self._socket is None:
            raise SocketClosed("it is closed")
        return self._socket

    def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _execute(
        self, code: str, collector: OutputCollector, *, timeout_s: float, ask: str, silent: bool = False
    ) -> Execution:
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
        return Execution(socket.request("execute_request", content), collector, timeout_s=timeout_s, received=received)


def _call(name: str, arguments: Mapping[str, object] | None = None) -> str:
    """The expression that asks the far end."""
    return f"__import__('sys').modules[{inside.NAME!r}].call({name!r}, {json.dumps(arguments or {})!r})"


def _answer(shown: str) -> Mapping[str, object]:
    """What an expression's text says; empty if it is not what the far end would say. Hostile."""
    try:
        found = json.loads(ast.literal_eval(shown))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {}
    return found if isinstance(found, dict) else {}


def _nowhere() -> OutputCollector:
    return OutputCollector(lambda _: None)


@cache
def _program() -> str:
    return Path(inside.__file__).read_text("utf-8")
