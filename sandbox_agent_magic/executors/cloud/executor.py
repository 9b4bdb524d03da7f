"""The executor of cloud sandboxes: what is the same whatever the provider."""

from __future__ import annotations

import atexit
import os
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ...errors import ExecutorError, WorkspaceError
from ...outputs import OutputCollector, OutputLimits, mib
from ...sandbox import requirements
from ...types import Capabilities, ErrorInfo, ExecutionResult, ExecutionStatus, FileInfo, OutputHook, ProgressHook
from ..engines import EngineInfo
from ..names import file_infos
from ..names import inside as inside_name
from .box import CloudBox
from .engine import CloudEngine, CloudFailure, CloudTarget
from .failures import said
from .inside import PIP_S
from .target import is_id
from .worker import Run

Outcome = Literal["done", "late", "flood", "large"]

_GRACE_S = 10.0
"""After an interrupt, before the context is replaced: it has a way to go."""
_KEYBOARD_GRACE_S = 3.0
_LOOK_S = 5.0
_MARGIN_S = 30.0
"""What an SDK's own bound is above ours, which ends code better."""
_MAX_TEXT = 256
"""Times the text that is kept; code that prints more is stopped (AGENT_LIMIT_TEXT)."""
_COPY_S = 900.0
_MAX_FILE = 1 << 30
"""Bytes: of a file that is copied out, which is in memory as a whole."""


class CloudExecutor:
    """Runs code in a sandbox of a provider. Its rich output is cleaned as our own sandbox's is.

    An own sandbox is ended at `shutdown` and when the process ends, unless it is to be kept; one that was there before
    is used as it is, and stays.

    Args:
        engine: speaks with the provider; made for `target`, closed here.
        target: the account, and the sandbox's kind and life.
        limits: of the outputs of one execution.
    """

    def __init__(self, engine: CloudEngine, target: CloudTarget, *, limits: OutputLimits | None = None) -> None:
        self.name = engine.name
        self.capabilities = Capabilities(
            isolated=True, cell_magic=f"%%sandbox -e {engine.name}", install=True, label=f"in {engine.title}'s cloud"
        )
        self.limits = limits or OutputLimits()
        self.trust_output = False
        """Rich output passes uncleaned from now on; sizes are bounded all the same."""
        self.owner_pid = os.getpid()
        self.box = CloudBox(engine, target)
        self._spoiled = False
        """Nobody knows what the context is doing: replace it before the next execution."""
        self._run: Run | None = None
        """The last one that was begun."""
        self._count = 0
        _alive.add(self)

    def start(self) -> None:
        """Nothing yet: a sandbox costs, and is made by what needs it first."""

    def recover(self) -> bool:
        """As `Recoverable.recover`: whether another sandbox has taken the place of the one before."""
        self._ready()
        lost, self.box.lost = self.box.lost, False
        return lost

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        began = time.monotonic()
        collector = OutputCollector(on_output, limits=self.limits, trusted=self.trust_output)
        self._run = None
        status: ExecutionStatus = "interrupted"
        error: ErrorInfo | None = None
        changed: Sequence[FileInfo] = ()
        try:
            self._ready()
            self._spoiled = True  # until the end is known: a second Ctrl-C may come at any moment
            self._count += 1
            status, error, changed = self._settle(collector, code, timeout_s)
        except KeyboardInterrupt:
            self._stop(collector)
        if error is None and status == "ok" and collector.breach:
            status, error = "error", ErrorInfo("OutputLimitExceeded", collector.breach)
        if error is not None:
            lines = [f"{error.ename}: {error.evalue}"]
            collector.add({"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": lines})
        outputs = collector.finish()
        if status == "error" and error is None:
            error = next(
                (
                    ErrorInfo(each["ename"], each["evalue"], tuple(each["traceback"]))
                    for each in reversed(outputs)
                    if each["output_type"] == "error"
                ),
                ErrorInfo("UnknownError", ""),
            )
        lost, self.box.lost = self.box.lost, False
        if lost:
            self._count = 0
        return ExecutionResult(
            status=status,
            outputs=outputs,
            execution_count=self._count or None,
            error=error,
            new_files=tuple(changed),
            duration_s=time.monotonic() - began,
            state_lost=lost,
        )

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        if self._spoiled:
            try:
                self.box.interrupt()
            except CloudFailure as failure:
                raise self.box.error(failure) from None

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""
        self._spoiled = False
        self._count = 0
        self.box.restart()
        self.box.lost = False  # it was asked for

    def shutdown(self) -> None:
        """End an own sandbox, unless it is to be kept. Idempotent."""
        if self._run is not None:
            self._run.stop()
        self.box.close()
        self._spoiled = False
        _alive.discard(self)

    # ---- as `RentsEngines` ----------------------------------------------------------------------------------------

    def engines(self) -> Sequence[EngineInfo]:
        """As `ListsEngines.engines`: its own, then all others of the account."""
        box = self.box
        place = f"{box.engine.title}'s cloud"
        found: list[EngineInfo] = []
        if box.sandbox_id:
            note = "was there before, and stays" if box.borrowed else "goes on after this kernel" if box.keep else ""
            found.append(EngineInfo(self.name, box.sandbox_id, place, box.started, note))
        try:
            others = box.request(box.engine.list)
        except ExecutorError as error:
            if not found:
                raise
            note = f"{found[0].note or 'ends with this kernel'}; the account's others: {error.message}"
            return [replace(found[0], note=note)]
        for each in others:
            if each.sandbox_id != box.sandbox_id:
                note = "of another notebook, or left over" if each.ours else "not made here"
                found.append(EngineInfo(self.name, each.sandbox_id, place, each.started, note))
        return found

    def engine_id(self) -> str:
        """As `RentsEngines.engine_id`."""
        return self.box.sandbox_id

    def fits(self, session: str) -> bool:
        """As `RentsEngines.fits`."""
        return session in (self.box.sandbox_id, self.box.target.session)

    def keep(self) -> None:
        """As `RentsEngines.keep`."""
        self.box.keep = True

    def kept(self) -> bool:
        """As `RentsEngines.kept`."""
        return bool(self.box.sandbox_id) and (self.box.keep or self.box.borrowed)

    def end(self, engine_id: str) -> bool:
        """As `RentsEngines.end`."""
        ended = is_id(engine_id) and self.box.request(lambda: self.box.engine.kill(engine_id))
        if engine_id == self.box.sandbox_id:
            self.box.ended()
        return ended

    # ---- files and packages ---------------------------------------------------------------------------------------

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy a file into the sandbox's folder."""
        name = inside_name(name)
        self._ready()
        try:
            with open(source, "rb") as reader:
                total = os.fstat(reader.fileno()).st_size
                self._ask("make_room", f"copy {name}", {"name": name})
                if on_progress is not None:
                    on_progress(0, total)
                self.box.request(lambda: self.box.engine.write(f"{self.box.folder}/{name}", reader), _COPY_S)
        except OSError as problem:
            raise WorkspaceError(f"Cannot read {source}.", why=f"{problem.strerror or problem}.") from None
        if self._ask("came", f"copy {name}", {"name": name}).get("size") != total:
            raise WorkspaceError(f"Cannot copy {name} to the sandbox.", why="It did not arrive whole.")
        if on_progress is not None:
            on_progress(total, total)
        return FileInfo(name, total)

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the sandbox's folder."""
        name = inside_name(name)
        self._ready()
        total = self._ask("size", f"copy {name}", {"name": name}).get("size")
        if not isinstance(total, int) or total < 0:
            raise WorkspaceError(f"There is no file {name[:200]} in the sandbox.", hint="%agent files")
        if total > _MAX_FILE:
            raise WorkspaceError(
                f"{name} is too large to be copied from the sandbox.",
                why=f"It has {mib(total)}; {self.box.engine.title}'s SDK holds a file in memory.",
                hint=f"Pieces of up to {mib(_MAX_FILE)} can be copied.",
            )
        data = self.box.request(lambda: self.box.engine.read(f"{self.box.folder}/{name}"), _COPY_S)
        if len(data) != total:
            raise WorkspaceError(f"Cannot copy {name} from the sandbox.", why="It did not arrive whole.")
        destination = destination / Path(name).name if destination.is_dir() else destination
        part, temporary = tempfile.mkstemp(dir=destination.parent, prefix=".part-")
        try:
            with open(part, "wb") as writer:
                writer.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, destination)
        except BaseException:
            os.unlink(temporary)
            raise

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the sandbox's folder."""
        self._ready()
        files = self._ask("list", "list the files").get("files")
        return file_infos(files)

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Let pip in the sandbox install wheels.

        Raises:
            UsageError: one is not a name of a package.
            ExecutorError: pip failed.
        """
        wanted = requirements(packages)
        if not wanted:
            return []
        self._ready()
        names = ", ".join(wanted)
        answer = self._ask("pip", f"install {names}", {"packages": wanted}, timeout_s=PIP_S + _MARGIN_S)
        added = answer.get("added")
        if not isinstance(added, list):
            why = f"pip in the sandbox says: {said(answer.get('problem', 'nothing'))}."
            raise ExecutorError(f"Cannot install {names}.", executor=self.name, why=why)
        return [str(each)[:200] for each in added[:1_000] if str(each).isprintable()]

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        if self._spoiled:
            self.box.restart()
            self._spoiled = False
        self.box.ready()

    def _settle(
        self, collector: OutputCollector, code: str, timeout_s: float
    ) -> tuple[ExecutionStatus, ErrorInfo | None, Sequence[FileInfo]]:
        """Run the code; what became of it, and the files that it changed. Brings the context back to order."""
        run = self._run = self.box.begin(code, timeout_s + _GRACE_S + _MARGIN_S)
        outcome = self._follow(run, collector, time.monotonic() + timeout_s)
        if outcome == "done":
            self._spoiled = False
            try:
                run.finish()
            except CloudFailure as failure:
                return self._failed(failure)
            changed = self._changes()
            if changed is None:
                return "died", self._death(None), ()
            return ("error" if run.failed else "ok"), None, changed
        status: ExecutionStatus = "timeout" if outcome == "late" else "error"
        error = self._stopped(outcome, timeout_s)
        self._interrupt_and_wait(run, collector if outcome == "late" else None, _GRACE_S)
        if not self._spoiled:
            changed = self._changes()
            if changed is not None:
                return status, error, changed
        self._spoiled = False
        self.box.restart()
        return status, error, ()

    def _failed(self, failure: CloudFailure) -> tuple[ExecutionStatus, ErrorInfo, Sequence[FileInfo]]:
        """The run ended with the connection, not with the code: whether the context is still there, and usable."""
        self.box.engine.disconnect()
        if failure.kind != "gone":
            try:
                self.box.interrupt()  # the code may go on over there
            except CloudFailure as worse:
                return "died", self._death(worse), ()
            changed = self._changes()
            if changed is not None:
                return "error", self._connection_lost(failure), changed
        return "died", self._death(failure), ()

    def _changes(self) -> Sequence[FileInfo] | None:
        """Files that the code changed; None if its context does not answer."""
        try:
            changed = self.box.changes()
        except CloudFailure:
            return None
        return file_infos(changed) if changed is not None else None

    def _follow(self, run: Run, collector: OutputCollector | None, deadline: float) -> Outcome:
        """Take outputs until the run has ended, or the deadline passed, or they are too many."""
        size = 0
        while not run.ended:
            now = time.monotonic()
            if now >= deadline:
                return "late"
            output = run.take(min(deadline, now + _LOOK_S))
            self.box.extend_meanwhile()
            if output is None or collector is None:
                continue
            try:
                length = _size(output)
            except RecursionError:  # JSON nested just deep enough to be parsed
                continue
            if length > self.limits.message_bytes:
                return "large"
            size += length if output["output_type"] == "stream" else 0
            if run.received > self.limits.messages or size > _MAX_TEXT * self.limits.text_bytes:
                return "flood"
            if output["output_type"] == "execute_result":
                output["execution_count"] = self._count
            run.failed = run.failed or output["output_type"] == "error"
            collector.add(output)
        return "done"

    def _stopped(self, outcome: Outcome, timeout_s: float) -> ErrorInfo:
        if outcome == "late":
            text = f"The code was stopped after {timeout_s:g} seconds (AGENT_CELL_TIMEOUT, --timeout)."
            return ErrorInfo("CellTimeout", text)
        limits = self.limits
        text = (
            f"one output may have {mib(limits.message_bytes)} (AGENT_LIMIT_MESSAGE)"
            if outcome == "large"
            else f"it sent more than {limits.messages:,} outputs (AGENT_LIMIT_MESSAGES), "
            f"or {mib(_MAX_TEXT * limits.text_bytes)} of text (AGENT_LIMIT_TEXT)"
        )
        return ErrorInfo("OutputLimitExceeded", f"The code was stopped: {text}.")

    def _death(self, failure: CloudFailure | None) -> ErrorInfo:
        """Another context answers than the one that ran the code, or none: what to call that."""
        title = self.box.engine.title
        if self.box.died(failure):
            return ErrorInfo("SandboxLost", f"The sandbox at {title} ended while the code ran.")
        if failure is None:
            return ErrorInfo("KernelDied", f"The kernel in the {title} sandbox ended while the code ran.")
        self._spoiled = True  # it may be busy still
        return self._connection_lost(failure)

    def _connection_lost(self, failure: CloudFailure) -> ErrorInfo:
        error = self.box.error(failure)
        return ErrorInfo("ConnectionLost", " ".join(filter(None, (error.message, error.why))))

    def _interrupt_and_wait(self, run: Run, collector: OutputCollector | None, grace_s: float) -> None:
        """Interrupt the code; a context that does not heed it stays spoiled."""
        try:
            self.box.interrupt()
        except CloudFailure:
            run.stop()
            return
        if collector is None:
            run.stop()
        self._spoiled = self._follow(run, collector, time.monotonic() + grace_s) != "done"
        if self._spoiled:
            run.stop()

    def _stop(self, collector: OutputCollector) -> None:
        """Ctrl-C: stop the code; a second one leaves that to a new context."""
        if self._spoiled and self._run is not None:
            try:
                self._interrupt_and_wait(self._run, collector, _KEYBOARD_GRACE_S)
            except KeyboardInterrupt:
                self._spoiled = True
                self._run.stop()

    def _ask(
        self, what: str, doing: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = 60.0
    ) -> Mapping[str, object]:
        """Ask the far end.

        Raises:
            WorkspaceError: the sandbox's system refuses.
            ExecutorError: it does not answer.
        """
        try:
            answer = self.box.call(what, arguments, timeout_s=timeout_s)
        except CloudFailure as failure:
            if failure.kind == "late":
                self._spoiled = True
            raise self.box.error(failure) from None
        except KeyboardInterrupt:
            self._spoiled = True  # it may go on over there
            raise
        if not answer:
            raise ExecutorError(
                f"Cannot {doing}: the sandbox gave no answer.", executor=self.name, hint="%agent restart"
            )
        if "error" in answer:
            raise WorkspaceError(f"Cannot {doing}.", why=f"The sandbox says: {said(answer['error'])}.")
        return answer


def _size(output: object) -> int:
    """Characters of an output, roughly."""
    if isinstance(output, str):
        return len(output)
    if isinstance(output, dict):
        return sum(map(_size, output.values()))
    if isinstance(output, list):
        return sum(map(_size, output))
    return 0


_alive: weakref.WeakSet[CloudExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():
            executor.shutdown()
