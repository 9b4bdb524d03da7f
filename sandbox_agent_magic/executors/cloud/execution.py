"""One execution in a cloud sandbox: followed to its end, stopped where it must be, and what its end means."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ...errors import ExecutorError
from ...outputs import OutputCollector, OutputLimits, mib
from ...types import ErrorInfo, ExecutionStatus, FileInfo
from ..names import file_infos
from .box import CloudBox
from .engine import CloudFailure
from .worker import Run

Outcome = Literal["done", "late", "flood", "large"]
End: TypeAlias = tuple[ExecutionStatus, ErrorInfo | None, Sequence[FileInfo]]
"""The status, the error if it is not one of the code's own, and the files that changed."""

_GRACE_S = 10.0
"""After an interrupt, before the context is replaced: it has a way to go."""
_KEYBOARD_GRACE_S = 3.0
_PAUSE_S = 0.5
_LOOK_S = 5.0
_MARGIN_S = 30.0
"""What an SDK's own bound is above ours, which ends code better."""
_MAX_TEXT = 256
"""Times the text that is kept; code that prints more is stopped (AGENT_LIMIT_TEXT)."""


class CloudExecution:
    """Runs one piece of code.

    Args:
        box: the sandbox, which is ready. Until the end is known it is `spoiled`.
        collector: takes the outputs.
        limits: of them.
        count: of the reader's executions.
    """

    def __init__(self, box: CloudBox, collector: OutputCollector, *, limits: OutputLimits, count: int) -> None:
        self.box = box
        self._collector = collector
        self._limits = limits
        self._count = count
        self._run: Run | None = None
        self._silence: CloudFailure | None = None
        """Why the context did not say which files changed."""

    def run(self, code: str, timeout_s: float) -> End:
        """Run the code; what became of it. Brings the context back to order."""
        self.box.spoiled = True  # a second Ctrl-C may come at any moment
        run = self._run = self.box.begin(code, timeout_s + _GRACE_S + _MARGIN_S)
        outcome = self._follow(run, self._collector, time.monotonic() + timeout_s)
        if outcome == "done":
            self.box.spoiled = False
            try:
                run.finish()
            except CloudFailure as failure:
                return self._failed(failure)
            changed = self._changes()
            if changed is None:
                return "died", self._death(self._silence), ()
            return ("error" if run.failed else "ok"), None, changed
        status: ExecutionStatus = "timeout" if outcome == "late" else "error"
        error = self._stopped(outcome, timeout_s)
        self._interrupt_and_wait(run, self._collector if outcome == "late" else None, _GRACE_S)
        if not self.box.spoiled:
            changed = self._changes()
            if changed is not None:
                return status, error, changed
        try:
            self.box.restart()
        except ExecutorError:
            self.box.spoiled = True  # the next execution finds out what is the matter
        return status, error, ()

    def stop(self) -> None:
        """Ctrl-C: stop the code; a second one leaves that to a new context."""
        run = self._run
        if self.box.spoiled and run is not None:
            try:
                self._interrupt_and_wait(run, self._collector, _KEYBOARD_GRACE_S)
            except KeyboardInterrupt:
                self.box.spoiled = True
                run.stop()

    def abandon(self) -> None:
        """Take no more outputs: the sandbox is about to end."""
        if self._run is not None:
            self._run.stop()

    def _failed(self, failure: CloudFailure) -> End:
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
        self._silence = None
        for again in (True, False):
            try:
                changed = self.box.changes()
                return file_infos(changed) if changed is not None else None
            except CloudFailure as failure:
                self._silence = failure
                if failure.kind in ("gone", "late") or not again:
                    break
            self.box.engine.disconnect()
            time.sleep(_PAUSE_S)
        return None

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
            if length > self._limits.message_bytes:
                return "large"
            size += length if output["output_type"] == "stream" else 0
            if run.received > self._limits.messages or size > _MAX_TEXT * self._limits.text_bytes:
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
        limits = self._limits
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
        self.box.spoiled = True  # it may be busy still
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
        self.box.spoiled = self._follow(run, collector, time.monotonic() + grace_s) != "done"
        if self.box.spoiled:
            run.stop()


def _size(output: object) -> int:
    """Characters of an output, roughly."""
    if isinstance(output, str):
        return len(output)
    if isinstance(output, dict):
        return sum(map(_size, output.values()))
    if isinstance(output, list):
        return sum(map(_size, output))
    return 0
