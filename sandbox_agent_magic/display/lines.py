"""A run as lines of plain text: for a terminal, and for front ends that may not update what they have shown."""

from __future__ import annotations

import os
import shutil
import threading
from typing import Literal, TextIO

from ..outputs import cap_text, clean_text, strip_colours, text_of
from ..types import (
    CodeProposed,
    Event,
    Output,
    OutputReceived,
    RequestSent,
    RetryScheduled,
    RunFinished,
    RunResult,
    Step,
    StepFinished,
    TextStreamed,
)
from .ticker import Ticker
from .view import RunView
from .words import STEP_WORDS, summary

_OUTPUT_BYTES = 4_000
ERASE = "\r\x1b[K"
"""Takes a terminal's last line away."""
_LIVE_EVERY_S = 0.5


def is_live(out: TextIO) -> bool:
    """Whether `out` is a terminal whose last line can be replaced."""
    return out.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class TextDisplay:
    """Lines of plain text; in a terminal with a last line that says what is being waited for.

    Args:
        out: where to write.
        stream: whether the model's words are shown as they come, and its answer.
        steps: whose code and output are shown: of `all`, or only of the `failed` ones where the others become cells.
    """

    def __init__(self, out: TextIO, *, stream: bool = True, steps: Literal["all", "failed"] = "all") -> None:
        self._out = out
        self._stream = stream
        self._all = steps == "all"
        self._view = RunView()
        self._lock = threading.Lock()
        self._open_line = False
        self._said = ""
        """What the model has said since its last request."""
        self._ticker = Ticker(self._tick, least_s=_LIVE_EVERY_S, most_s=_LIVE_EVERY_S) if is_live(out) else None
        self._live_line = ""
        self._ended = False

    def __call__(self, event: Event) -> None:
        """Take one event of the run."""
        with self._lock:
            self._ended = isinstance(event, RunFinished)
            self._view.take(event)
            self._show(event)
            self._out.flush()
        if self._ticker is not None and not self._ended:
            self._ticker.wake()

    def close(self) -> None:
        """The run is over; an error that ended it is shown elsewhere."""
        with self._lock:
            self._ended = True
            self._erase_live_line()
            if self._open_line:
                self._write("\n")
            self._out.flush()
        if self._ticker is not None:
            self._ticker.stop()

    def _show(self, event: Event) -> None:
        if isinstance(event, RequestSent):
            self._said = ""
            if event.turn == event.attempt == 1 and not self._all:
                self._line("Agent: waiting for the model")
        elif isinstance(event, TextStreamed):
            self._said += event.text
            if self._stream:
                self._write(clean_text(event.text))
        elif isinstance(event, CodeProposed):
            self._line(f"--- step {event.index}")
            # A reply that brings its code as a fenced block has shown it already.
            if self._all and not (self._stream and event.code.strip() in self._said):
                self._line(f"{clean_text(event.code)}\n---")
        elif isinstance(event, OutputReceived):
            if self._all:
                self._show_output(event.output)
        elif isinstance(event, StepFinished):
            self._show_end_of(event.step)
        elif isinstance(event, RetryScheduled):
            self._line(f"{event.reason} Retry {event.attempt} in {event.wait_s:.1f} s.")
        elif isinstance(event, RunFinished):
            self._finish(event.result)

    def _show_output(self, output: Output) -> None:
        if output["output_type"] == "stream":
            self._write(clean_text(cap_text(output["text"], _OUTPUT_BYTES)))
        else:
            self._line(clean_text(cap_text(text_of([output]), _OUTPUT_BYTES)))

    def _show_end_of(self, step: Step) -> None:
        status = step.result.status
        if status == "ok":
            return
        if not self._all:
            self._line(clean_text(step.code))
            self._line(clean_text(cap_text(text_of(step.result.outputs), _OUTPUT_BYTES)))
        self._line(f"(step {step.index}: {STEP_WORDS[status]})")

    def _finish(self, result: RunResult) -> None:
        if self._stream and result.answer.strip() not in self._said:  # a small model's answer is an output, say
            self._line(clean_text(result.answer))
        self._line(summary(result))

    def _write(self, text: str) -> None:
        self._erase_live_line()
        self._out.write(text)
        if text:
            self._open_line = not text.endswith("\n")

    def _line(self, text: str) -> None:
        if not text.strip():
            return
        self._erase_live_line()
        if self._open_line:
            self._out.write("\n")
        self._write(text.rstrip("\n") + "\n")

    # ---- the live line ------------------------------------------------------------------------------------------

    def _tick(self) -> bool:
        with self._lock:
            if self._ended or self._open_line:
                return False
            status = strip_colours(self._view.status).replace("\n", " ")
            width = shutil.get_terminal_size().columns - 1
            line = f"[{status}]"[:width]
            if line == self._live_line:
                return False
            self._live_line = line
            self._out.write(ERASE + line)
            self._out.flush()
            return True

    def _erase_live_line(self) -> None:
        if self._live_line:
            self._live_line = ""
            self._out.write(ERASE)
