"""One sandbox in a provider's cloud: made or found, kept alive, asked whether it is still the one of before."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar

from ...errors import ExecutorError
from ...types import Output
from ..remote import inside as files_inside
from . import inside
from .engine import CloudEngine, CloudFailure, CloudTarget
from .failures import error_of
from .worker import Call, Run, bounded

T = TypeVar("T")

START_S = 180.0
"""Longest start of a sandbox, seconds: of a template that is not at hand it may take minutes."""
REQUEST_S = 60.0
CALL_S = 60.0
_FRESH_S = 1.0
"""For so long after an answer the sandbox is taken to be there: in a loop, no step asks twice."""
_END_S = 10.0
"""For the sandbox to be ended, when the kernel ends."""
_ABORTED_TRIES = 10
_ABORTED_S = 0.2
_MAX_ANSWER = 4 << 20


class CloudBox:
    """A sandbox, and the context in it that code runs in. Use it from one thread; `interrupt` may come from another."""

    def __init__(self, engine: CloudEngine, target: CloudTarget) -> None:
        self.engine = engine
        self.target = target
        self.keep = target.keep
        """An own sandbox goes on after the end."""
        self.borrowed = bool(target.session)
        """It was there before us and stays when we go."""
        self.sandbox_id = target.session
        self.folder = ""
        """Where code works, as the sandbox knows it."""
        self.lost = False
        """Its variables are gone, and nobody has been told."""
        self.spoiled = False
        """Nobody knows what the context is doing: it is replaced before it is used again."""
        self.started: datetime | None = None
        self._connected = False
        self._generation = ""
        self._pid = 0
        self._answered_at = 0.0
        self._extended_at = 0.0
        self._extension: Call[None] | None = None

    # ---- life -----------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Make sure that there is a sandbox, that it answers, and that its context is the one of before.

        Raises:
            ExecutorError: it cannot be had.
        """
        if self.spoiled:
            self.restart()
        if self._generation and time.monotonic() - self._answered_at < _FRESH_S:
            return
        if self._generation:
            try:
                if self._is_there():
                    return
            except CloudFailure as failure:
                if failure.kind != "gone" and not self._is_gone():
                    self.engine.disconnect()
                    raise self.error(failure) from None
                self._forget()
        self._open()

    def extend(self) -> None:
        """Put the end of the sandbox's life off, if that is due. Raises CloudFailure."""
        if time.monotonic() - self._extended_at > self.target.life_s / 4:
            bounded(lambda: self.engine.extend(self.target.life_s), REQUEST_S)
            self._extended_at = time.monotonic()

    def extend_meanwhile(self) -> None:
        """The same while code runs: nobody waits for it; what it finds is found again at the end."""
        if time.monotonic() - self._extended_at > self.target.life_s / 4:
            self._extended_at = time.monotonic()
            self._extension = Call(lambda: self.engine.extend(self.target.life_s))

    def interrupt(self) -> None:
        """Interrupt what runs in the context. Raises CloudFailure."""
        if self._pid:
            bounded(lambda: self.engine.interrupt(self._pid), REQUEST_S)

    def restart(self) -> None:
        """Another context: variables are lost, files stay.

        Raises:
            ExecutorError: it cannot be had.
        """
        if not self._generation:
            self.spoiled = False
            return
        self.lost = True
        self.engine.disconnect()
        try:
            bounded(lambda: self.engine.replace_context(self._pid), REQUEST_S)
        except CloudFailure as failure:
            if failure.kind != "gone" and not self._is_gone():
                raise self.error(failure) from None
            self._forget()
        self.spoiled = False
        self._open()

    def died(self, failure: CloudFailure | None) -> bool:
        """After a run that did not end well: whether the sandbox is gone, not only the context. Never raises."""
        self.lost = True
        self._answered_at = 0.0
        self.engine.disconnect()
        if (failure is not None and failure.kind == "gone") or self._is_gone():
            self._forget()
            return True
        return False

    def close(self) -> None:
        """End the sandbox, unless it is to stay, and close connections. Never raises."""
        if self.sandbox_id and not (self.borrowed or self.keep):
            ended = self.sandbox_id
            with contextlib.suppress(CloudFailure):
                bounded(lambda: self.engine.kill(ended), _END_S)
        if not self.borrowed:
            self.sandbox_id = ""
        self.engine.disconnect()
        self._connected = False
        self._generation = self.folder = ""
        self.spoiled = False
        if self._extension is not None:
            self._extension.ended.wait(_END_S)

    def ended(self) -> None:
        """It was ended on purpose: nothing is lost, and the next code gets a new one."""
        self._forget()
        self.lost = False

    # ---- requests -------------------------------------------------------------------------------------------------

    def begin(self, code: str, timeout_s: float) -> Run:
        """Run code in the context."""
        return Run(self.engine, code, timeout_s)

    def changes(self) -> list[object] | None:
        """Files that are new or changed since it was asked last; None if another context answers than the one before.

        Raises:
            CloudFailure: none answers.
        """
        answer = self.call("changes")
        if not self._generation or answer.get("generation") != self._generation:
            self._generation = ""
            return None
        changed = answer.get("changed")
        return changed if isinstance(changed, list) else []

    def call(
        self, what: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = CALL_S
    ) -> Mapping[str, object]:
        """Ask the far end; an empty answer if it is not there. Raises CloudFailure."""
        word = secrets.token_hex(12)
        request = f"{word!r}, {what!r}, {json.dumps(arguments or {})!r}"
        code = f"__import__('sys').modules[{files_inside.NAME!r}].say({request})"
        text, failed = self._printed(code, timeout_s)
        for _ in range(_ABORTED_TRIES):
            if text or failed:
                break
            time.sleep(_ABORTED_S)  # a kernel that was interrupted drops what had come meanwhile, without a word
            text, failed = self._printed(code, timeout_s)
        found = text.rpartition("\n" + word)[2].partition("\n")[0] if word in text else ""
        try:
            answer = json.loads(found)
        except (ValueError, RecursionError):
            return {}
        self._answered_at = time.monotonic()
        return answer if isinstance(answer, dict) else {}

    def request(self, function: Callable[[], T], timeout_s: float = REQUEST_S) -> T:
        """One request of the SDK's, such as for a file.

        Raises:
            ExecutorError: it failed.
        """
        try:
            return bounded(function, timeout_s)
        except CloudFailure as failure:
            raise self.error(failure) from None

    def error(self, failure: CloudFailure) -> ExecutorError:
        """What the reader is told of it."""
        return error_of(
            failure, self.target, name=self.engine.name, title=self.engine.title, sandbox_id=self.sandbox_id
        )

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """A context that answers, with the far end in it: in the sandbox of before if it is there, else in another."""
        self.lost = self.lost or bool(self._generation)
        try:
            if not self.sandbox_id:
                self.sandbox_id = self._created()
                self.started = datetime.now(UTC)
            elif not self._connected:
                bounded(lambda: self.engine.connect(self.sandbox_id), START_S)
            self._connected = True
            bounded(lambda: self.engine.extend(self.target.life_s), REQUEST_S)
            self._extended_at = time.monotonic()
            self._install()
        except CloudFailure as failure:
            raise self.error(failure) from None

    def _created(self) -> str:
        """A new sandbox. One that comes after it was given up is ended: it would cost, and nobody would know of it."""
        given_up = threading.Event()

        def create() -> str:
            made = self.engine.create()
            if given_up.is_set():
                self.engine.kill(made)
            return made

        call = Call(create)
        try:
            return call.result(START_S)
        except BaseException:
            given_up.set()
            raise

    def _install(self) -> None:
        """Send the far end. Raises CloudFailure, ExecutorError."""
        generation = secrets.token_hex(8)
        arguments = f"{files_inside.NAME!r}, {generation!r}, {self.folder!r}"
        programs = [*_programs(), self.engine.preamble]
        program = f"namespace = {{'__name__': 'far'}}\nfor program in {programs!r}:\n    exec(program, namespace)\n"
        program += f"namespace['begin']({arguments})\n"
        self._printed(f"__import__('builtins').exec({program!r}, {{}})", CALL_S)
        answer = self.call("begun")
        folder, pid = answer.get("folder"), answer.get("pid")
        if not isinstance(folder, str) or not isinstance(pid, int):
            raise ExecutorError(
                f"The {self.engine.title} sandbox cannot be used.",
                executor=self.engine.name,
                why="It did not take the few lines of Python that look after files.",
                hint=f"Set {self.engine.name.upper()}_TEMPLATE to one with a Python code interpreter, or leave it out.",
            )
        self.folder, self._pid, self._generation = folder, pid, generation
        if self.target.environment:
            self.call("environ", {"values": dict(self.target.environment)})

    def _is_there(self) -> bool:
        """Prolong the sandbox's life, and `_same`. Raises CloudFailure."""
        try:
            self.extend()
            return self._same()
        except CloudFailure as failure:
            if failure.kind != "cut":
                raise
        self.engine.disconnect()  # a connection that was idle for long may have ended without a word
        self.extend()
        return self._same()

    def _same(self) -> bool:
        """Whether the context is the one of before, with its variables. Raises CloudFailure."""
        answer = self.call("changes")
        found = answer.get("generation") == self._generation
        self.lost = self.lost or not found
        return found

    def _is_gone(self) -> bool:
        """Whether the provider says that the sandbox does not exist any more."""
        try:
            bounded(lambda: self.engine.extend(self.target.life_s), REQUEST_S)
        except CloudFailure as failure:
            return failure.kind == "gone"
        return False

    def _forget(self) -> None:
        """The sandbox is gone: the next one is new."""
        self.lost = True
        self.borrowed = False
        self._connected = False
        self.sandbox_id = self._generation = self.folder = ""
        self._pid = 0
        self.engine.disconnect()

    def _printed(self, code: str, timeout_s: float) -> tuple[str, bool]:
        """Run a line of ours: what is printed, and whether it failed. Raises CloudFailure."""
        pieces: list[str] = []
        length = 0
        failed = False
        run = self.begin(code, timeout_s)
        deadline = time.monotonic() + timeout_s
        try:
            while not run.ended:
                output: Output | None = run.take(deadline)
                if output is None and time.monotonic() >= deadline:
                    raise CloudFailure("late", f"no answer for {timeout_s:g} seconds")
                failed = failed or (output is not None and output["output_type"] == "error")
                if output is not None and output["output_type"] == "stream" and length < _MAX_ANSWER:
                    pieces.append(output["text"])
                    length += len(output["text"])
            run.finish()
        except BaseException:
            run.stop()
            raise
        return "".join(pieces), failed


@cache
def _programs() -> list[str]:
    return [Path(str(module.__file__)).read_text("utf-8") for module in (files_inside, inside)]
