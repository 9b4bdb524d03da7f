"""What there is to show of a run at any moment, as its events tell it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..outputs import clean_text, strip_colours, text_of
from ..types import (
    CodeProposed,
    Event,
    OutputReceived,
    ReasoningStreamed,
    ReplyReceived,
    RequestSent,
    RetryScheduled,
    RunFinished,
    Step,
    StepFinished,
    TextStreamed,
    Usage,
)
from .words import amounts

_TAIL_CHARACTERS = 4_000
"""Of what streams in, kept for showing."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something of a run that came to nothing: a request that was sent again, a reply or code that was cut off."""

    title: str
    text: str = ""


class RunView:
    """Follows a run.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._doing = "starting"
        self._retry_at: float | None = None
        self._tail = ""
        self._running: CodeProposed | None = None
        self._writing = False
        self._shown = False
        self.entries: list[Step | Attempt] = []
        """The transcript so far, in order."""
        self.usage = Usage()
        """Of the replies that have come."""

    def take(self, event: Event) -> bool:
        """Take one event; whether what the run is doing has changed."""
        before = self._doing
        if isinstance(event, TextStreamed):
            if not self._writing:
                self._begin("the model writes")
                self._writing = True
            self._add(event.text)
        elif isinstance(event, ReasoningStreamed):
            self._add(event.text)
            self._doing = "the model thinks"
        elif isinstance(event, ReplyReceived):
            self.usage += event.usage
        elif isinstance(event, RequestSent):
            self._begin("waiting for the model")
        elif isinstance(event, CodeProposed):
            self._begin(f"running step {event.index}")
            self._running = event
            self._add(event.code + "\n")
        elif isinstance(event, OutputReceived):
            output = event.output
            if not self._shown:
                self._add("\n")  # between code and output
            self._shown = True
            self._add(output["text"] if output["output_type"] == "stream" else text_of([output]) + "\n")
        elif isinstance(event, StepFinished):
            self._begin("waiting for the model")
            self.entries.append(event.step)
        elif isinstance(event, RetryScheduled):
            self.entries.append(
                Attempt(f"{event.reason} Retry {event.attempt} after {event.wait_s:.1f} s.", self._words)
            )
            self._begin(f"{event.reason} Retry {event.attempt}")
            self._retry_at = self._clock() + event.wait_s
        elif isinstance(event, RunFinished):
            self.usage = event.result.usage
            if event.result.status == "interrupted":
                self.cut_off()
        return self._doing != before

    def cut_off(self) -> None:
        """The run ends here: what the model was writing, or the code that ran, enters the transcript unfinished."""
        if self._running is not None:
            self.entries.append(Attempt(f"Step {self._running.index}: interrupted before it ended", self.tail))
        elif self._words:
            self.entries.append(Attempt("Interrupted while the model wrote this", self._words))
        self._begin("")

    @property
    def steps(self) -> list[Step]:
        """Those that have ended."""
        return [entry for entry in self.entries if isinstance(entry, Step)]

    @property
    def counting_down(self) -> bool:
        """Whether it waits for a retry, so that each second counts."""
        return self._retry_at is not None

    @property
    def doing(self) -> str:
        """What it is doing now, and until when where it waits."""
        if self._retry_at is not None:
            return f"{self._doing} in {max(0, math.ceil(self._retry_at - self._clock()))} s"
        return self._doing

    @property
    def status(self) -> str:
        """One line: for how long the run has been going on, what it is doing now, what it has used."""
        parts = (f"{int(self._clock() - self._began)} s", self.doing, amounts(self.usage))
        return " · ".join(strip_colours(clean_text(part)) for part in parts if part)

    @property
    def tail(self) -> str:
        """The end of what streams in: the model's words, or the code and its output."""
        text = strip_colours(clean_text(self._tail))
        if len(self._tail) == _TAIL_CHARACTERS:
            text = text.partition("\n")[2] or text  # its first line begins somewhere
        return text.strip("\n")

    @property
    def _words(self) -> str:
        """What the model has written of the reply that streams in."""
        return self.tail if self._writing else ""

    def _begin(self, doing: str) -> None:
        self._doing = doing
        self._retry_at = None
        self._tail = ""
        self._running = None
        self._writing = self._shown = False

    def _add(self, text: str) -> None:
        self._tail = (self._tail + text[-_TAIL_CHARACTERS:])[-_TAIL_CHARACTERS:]
