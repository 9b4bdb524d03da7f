"""Running what worked again, in a sandbox that was started afresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import ExecutionResult, Executor, OutputHook

REPLAY_HINT = "%agent restart --replay runs the cells that worked again."


@dataclass(frozen=True, slots=True)
class Replay:
    """What a restart did."""

    known: int
    """Cells that worked in the sandbox so far."""
    asked: bool = False
    """Whether they were to run again."""
    done: int = 0
    """Cells that ran again."""
    code: str = ""
    """Of the cell at which the replay stopped."""
    failure: ExecutionResult | None = None
    """That cell's result."""
    sent: tuple[str, ...] = ()
    """The reader's variables that were sent again, as they are now."""
    unsent: tuple[str, ...] = ()
    """Those that had been sent and are not to be had now."""

    def __str__(self) -> str:
        """What the reader is told."""
        told = "The sandbox was restarted: its variables are gone, its files are there."
        if not self.known:
            return f"{told} No cell has worked in it so far." if self.asked else told
        if not self.asked:
            return f"{told} {REPLAY_HINT}"
        sent = f" Sent again, as they are now: {', '.join(self.sent)}." if self.sent else ""
        sent += f" Not sent again: {', '.join(self.unsent)}." if self.unsent else ""
        if self.failure is None:
            return f"The sandbox was restarted, and all {self.known} cells that had worked ran again.{sent}"
        error = self.failure.error
        reason = f"{error.ename}: {error.evalue}" if error is not None else self.failure.status
        first = self.code.strip().partition("\n")[0][:100]
        return (
            f"The sandbox was restarted, and {self.done} of {self.known} cells ran again.{sent}\n"
            f"Then this one failed, and the rest was left out: {first}\n{reason}"
        )


def replay(executor: Executor, codes: Sequence[str], *, timeout_s: float, on_output: OutputHook) -> Replay:
    """Run `codes` in order, up to the first that fails now.

    Args:
        executor: where.
        codes: what worked once.
        timeout_s: for each.
        on_output: takes their outputs as they come.

    Raises:
        ExecutorError: code cannot be run.
    """
    for done, code in enumerate(codes):
        result = executor.execute(code, timeout_s=timeout_s, on_output=on_output)
        if result.status != "ok":
            return Replay(len(codes), asked=True, done=done, code=code, failure=result)
    return Replay(len(codes), asked=True, done=len(codes))
