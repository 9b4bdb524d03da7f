"""The executor of cloud sandboxes: what is the same whatever the provider."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace

from ...errors import ExecutorError
from ...outputs import OutputCollector, OutputLimits
from ...types import Capabilities, ErrorInfo, ExecutionResult, ExecutionStatus, FileInfo, OutputHook
from ..engines import EngineInfo
from .box import CloudBox
from .engine import CloudEngine, CloudFailure, CloudTarget
from .execution import CloudExecution
from .files import CloudFiles
from .target import is_id


class CloudExecutor(CloudFiles):
    """Runs code in a sandbox of a provider. Its rich output is cleaned as our own sandbox's is.

    An own sandbox is ended at `shutdown` and when the process ends, unless it is to be kept; one that was there before
    is used as it is, and stays.

    Args:
        engine: speaks with the provider; made for `target`, closed here.
        target: the account, and the sandbox's kind and life.
        limits: of the outputs of one execution.
    """

    keeps_files = False
    """Each sandbox has its own."""

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
        self._execution: CloudExecution | None = None
        """The last one that was begun."""
        self._count = 0
        _alive.add(self)

    def start(self) -> None:
        """Nothing yet: a sandbox costs, and is made by what needs it first."""

    def recover(self) -> bool:
        """As `Recoverable.recover`: whether another sandbox has taken the place of the one before."""
        self.box.ready()
        lost, self.box.lost = self.box.lost, False
        return lost

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        began = time.monotonic()
        collector = OutputCollector(on_output, limits=self.limits, trusted=self.trust_output)
        execution = self._execution = None
        status: ExecutionStatus = "interrupted"
        error: ErrorInfo | None = None
        changed: Sequence[FileInfo] = ()
        try:
            self.box.ready()
            if code.strip():
                self._count += 1
                execution = CloudExecution(self.box, collector, limits=self.limits, count=self._count)
                self._execution = execution
                status, error, changed = execution.run(code, timeout_s)
            else:
                status = "ok"
        except KeyboardInterrupt:
            if execution is not None:
                execution.stop()
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
        if self.box.spoiled:
            try:
                self.box.interrupt()
            except CloudFailure as failure:
                raise self.box.error(failure) from None

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""
        self._count = 0
        self.box.restart()
        self.box.lost = False  # it was asked for

    def shutdown(self) -> None:
        """End an own sandbox, unless it is to be kept. Idempotent."""
        if self._execution is not None:
            self._execution.abandon()
        self.box.close()
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


_alive: weakref.WeakSet[CloudExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():
            executor.shutdown()
