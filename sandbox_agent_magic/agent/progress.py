"""Where a run stands, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..types import RunStatus, Step, Usage


@dataclass(slots=True)
class Progress:
    """What a run has come to so far."""

    steps: list[Step] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    requests: int = 0
    turns: int = 0
    failures: int = 0
    """Failed steps in a row."""
    used_tools: bool = False
    answering: bool = False
    """A small model was asked for its answer: whatever it says next is that."""

    def count_request(self) -> None:
        """One more request was sent."""
        self.requests += 1


class Stop(Exception):
    """Ends the loop with a status."""

    def __init__(self, status: RunStatus, answer: str = "", reason: str = "") -> None:
        super().__init__(status)
        self.status: RunStatus = status
        self.answer = answer
        self.reason = reason
