"""A kernel on a Jupyter server: opened, asked, interrupted, found again or found to be another one."""

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

from ...errors import ExecutorError, ExecutorTimeout
from ...outputs import OutputCollector, OutputLimits
from ...types import TextHook, no_text
from ..execution import Execution
from . import inside
from .line import KernelLine, Outcome
from .patience import Patience
from .refusals import KernelGone
from .server import JupyterServer
from .socket import NoWebSocket, SocketClosed

_CALL_S = 60.0
_STARTS = 5
"""Kernels that may end while they start, before that is an error."""
_PROBE_S = 1.5
"""For a kernel to say that it is the one of before: a few milliseconds of its time."""


class RemoteKernel:
    """One kernel and the line to it. Use it from one thread; `interrupt` may come from another."""

    def __init__(self, server: JupyterServer, limits: OutputLimits) -> None:
        self.server = server
        self.line = KernelLine(server, limits)
        self.borrowed = bool(server.target.kernel_id)
        """It was there before us and stays when we go."""
        self.kernel_id = server.target.kernel_id
        self.folder = ""
        """Where it works, as the kernel knows it."""
        self.lost = False
        """Its variables are gone, and nobody has been told."""
        self.started: datetime | None = None
        """When it was started, if we did that."""
        self._generation = ""
        """Of the far end that was sent last; empty: none is known to be there."""
        self._refuses = False
        """The far end can have code refused that meets another kernel than it was meant for."""

    def ready(self, *, say: TextHook = no_text, asks: bool = True) -> None:
        """Make sure that there is a kernel, that it answers, and that it is the one of before.

        Args:
            say: told of a long wait.
            asks: whether to ask the kernel for the latter; `begin` can find out by itself, on a line that is up.

        Raises:
            ExecutorError: it cannot be had.
        """
        self.line.say = say
        patience = Patience(self.server.target.start_s, say)
        if self.line.open and self._generation:
            try:
                self.line.drain()
                if not asks and self._refuses and self.line.sure:
                    return
                if self._same(timeout_s=_PROBE_S):
                    return
            except (SocketClosed, ExecutorTimeout):
                self.line.close()  # a server says nothing of a kernel that was ended: look for it below
        if self.kernel_id and self._generation:
            try:
                self._find(patience)
                if self._same():
                    return
            except (SocketClosed, KernelGone):
                self.line.close()
        self._open(patience)

    def interrupt(self) -> None:
        """Interrupt what runs, if anything does."""
        if self.kernel_id:
            self.server.interrupt(self.kernel_id)

    def restart(self, *, say: TextHook = no_text) -> None:
        """Restart the kernel: its variables are lost, its files stay. Raises as `ready`."""
        if not self._generation:
            return
        self.lost = True
        self.line.close()
        with contextlib.suppress(KernelGone):
            self.server.restart(self.kernel_id)
        self._open(Patience(self.server.target.start_s, say))

    def forget(self, *, lost: bool) -> None:
        """The kernel is not the one of before, or ended: the next `ready` finds the new one, or starts one."""
        self.lost = lost
        self._generation = ""
        self.line.close()

    def close(self) -> None:
        """End the kernel and remove its folder, if they are ours; else only say goodbye. Never raises."""
        ours = self.kernel_id and not self.borrowed
        if ours and self.line.open:
            with contextlib.suppress(SocketClosed, ExecutorError):
                self.call("end", timeout_s=5)
        self.line.close()
        if ours:
            with contextlib.suppress(ExecutorError):
                self.server.end_kernel(self.kernel_id)
            self.kernel_id = ""
        self._generation = self.folder = ""

    # ---- code -----------------------------------------------------------------------------------------------------

    def begin(self, code: str, collector: OutputCollector, *, timeout_s: float, say: TextHook) -> Execution | None:
        """Send `code`; what it left behind is asked for with it.

        Returns None if there is another kernel than before, which shows on the way: then nothing of it ran there.

        Raises:
            SocketClosed: the connection is gone, and the code was not sent.
            ExecutorTimeout: the kernel does not take it.
        """
        changes = _call("changes")
        if not (self._refuses and self.line.sure):
            return self.line.execute(code, collector, timeout_s=timeout_s, ask=changes)
        request_id = secrets.token_hex(16)
        # The kernel takes one after the other; so both can be sent at once, and no cell waits for two round trips.
        guard = self.line.execute("", _nowhere(), timeout_s=_PROBE_S, ask=_guard(request_id), silent=True)
        execution = self.line.execute(code, collector, timeout_s=timeout_s, ask=changes, request_id=request_id)
        if not self._passes(guard, execution, Patience(self.server.target.start_s, say)):
            self.forget(lost=True)
            return None
        execution.deadline = time.monotonic() + timeout_s
        return execution

    def _passes(self, guard: Execution, execution: Execution, patience: Patience) -> bool:
        """Whether the guard finds the kernel to be the one of before."""
        outcome = self.line.follow(guard, guard.deadline, behind=[execution])
        if outcome == "late":
            try:
                self.server.check_kernel(self.kernel_id)
            except KernelGone:
                return False
        while outcome in ("late", "flood", "large") and patience.left:
            patience.tell("Waiting for the remote kernel, which is busy")
            if outcome == "large":  # of something that went on from before
                self.line.reconnect()
            outcome = self.line.follow(guard, time.monotonic() + patience.look_s, behind=[execution])
        if outcome == "cut":
            self.server.check_kernel(self.kernel_id)  # says how the server cannot be reached
        if outcome in ("late", "cut"):
            raise ExecutorTimeout(
                "The remote kernel does not answer.",
                executor="remote",
                why=f"It was busy for {patience.seconds:g} seconds with something that it began before.",
                hint="%agent restart starts afresh.",
            )
        return outcome == "done" and _answer(guard.expression("far")).get("generation") == self._generation

    def follow(self, execution: Execution, deadline: float) -> Outcome:
        """As `KernelLine.follow`."""
        return self.line.follow(execution, deadline)

    def changes(self, execution: Execution) -> list[object]:
        """Files that the execution changed; notes if another kernel answers than the one of before."""
        answer = _answer(execution.expression("far"))
        if "generation" not in answer:  # code that fails leaves the question unasked
            answer = self.call("changes")
        if answer.get("generation") != self._generation:
            self.forget(lost=True)
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
        execution = self.line.execute("", _nowhere(), timeout_s=timeout_s, ask=_call(name, arguments), silent=True)
        outcome = self.line.follow(execution, execution.deadline)
        if outcome in ("cut", "gone", "large"):
            raise SocketClosed(outcome)
        if outcome != "done":
            raise ExecutorTimeout("The remote kernel does not answer.", executor="remote", hint="%agent restart")
        return _answer(execution.expression("far"))

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _find(self, patience: Patience) -> None:
        """Connect to the kernel of before, giving a server that was started anew the time to come up.

        Raises:
            KernelGone: the server does not have it any more.
            ExecutorError: the server stays away.
        """
        try:
            self.line.connect(self.kernel_id, patience)
        except (KernelGone, ExecutorTimeout):
            raise
        except ExecutorError:
            if self.line.reconnect() == "gone":
                self.server.check_kernel(self.kernel_id)
            self.line.connect(self.kernel_id, patience)

    def _open(self, patience: Patience) -> None:
        """A kernel that answers, with the far end in it: the known one if it is still there, else a new one."""
        before = bool(self._generation)
        try:
            if not self.kernel_id:
                self._start(patience)
            else:
                self.line.connect(self.kernel_id, patience)
        except KernelGone:
            if self.borrowed:
                raise
            self._start(patience)
        self.lost = self.lost or before
        self._generation = secrets.token_hex(8)
        own = not self.borrowed
        program = f"{_program()}\ninstall({self._generation!r}, {self.folder!r}, {own!r})\n"
        code = f"__import__('builtins').exec({program!r}, {{'__name__': 'far'}})"
        try:
            execution = self.line.execute(code, _nowhere(), timeout_s=_CALL_S, ask=_call("begin"), silent=True)
            self.line.follow(execution, execution.deadline)
            answer = _answer(execution.expression("far"))
            environment = dict(self.server.target.environment)
            if environment and answer:
                self.call("environ", {"values": environment})
        except SocketClosed:
            answer = {}
        folder = answer.get("folder")
        if not isinstance(folder, str):
            self.forget(lost=self.lost)
            raise ExecutorError(
                "The remote kernel cannot be used.",
                executor="remote",
                why="It did not take the few lines of Python that look after files.",
                hint="Set AGENT_REMOTE_KERNEL to a Python kernel of that server.",
            )
        self.folder = folder
        self._refuses = own and answer.get("refuses") is True

    def _start(self, patience: Patience) -> None:
        """A new kernel that answers; another one in its place if it ends before it does.

        Where many start at once on one machine, some find that others took the ports that their server chose for them,
        and a server that restarts those with the same ports does it in vain.
        """
        for attempt in range(1, _STARTS + 1):
            self.kernel_id = self.server.start_kernel(patience)
            self.started = datetime.now(UTC)
            try:
                self.line.connect(self.kernel_id, patience, fresh=True)
                return
            except ExecutorError as error:
                kernel_id, self.kernel_id = self.kernel_id, ""
                with contextlib.suppress(ExecutorError):
                    self.server.end_kernel(kernel_id)
                if attempt == _STARTS or not patience.left or not isinstance(error, (KernelGone, NoWebSocket)):
                    raise

    def _same(self, *, timeout_s: float = _CALL_S) -> bool:
        """Whether the kernel is the one of before, with its variables. Raises as `call`."""
        found = self.call("same", timeout_s=timeout_s).get("generation") == self._generation
        self.lost = self.lost or not found
        return found


def _call(name: str, arguments: Mapping[str, object] | None = None) -> str:
    """The expression that asks the far end."""
    return f"__import__('sys').modules[{inside.NAME!r}].call({name!r}, {json.dumps(arguments or {})!r})"


def _guard(request_id: str) -> str:
    """The expression that asks the far end who it is; where there is none, it has that request refused."""
    refuse = f"__import__('builtins').exec({_REFUSE!r}, {{'wanted': {request_id!r}}})"
    return f"{_call('same')} if {inside.NAME!r} in __import__('sys').modules else {refuse}"


_REFUSE = """
from IPython import get_ipython
from IPython.core.error import InputRejected
shell = get_ipython()
class Refuser:
    def visit(self, node):
        if shell.kernel.get_parent()["header"]["msg_id"] == wanted:
            shell.ast_transformers.remove(self)
            raise InputRejected("another kernel")
        return node
shell.ast_transformers.append(Refuser())
"""


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
