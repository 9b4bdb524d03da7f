"""What the reader watches while the agent works: one area in the cell's output, or lines in a terminal.

Nothing of the model or of the code is ever shown as markup: the area's HTML holds escaped text only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import TextIO

from .outputs import cap_text, clean_text, strip_colours, text_of
from .types import (
    JSON,
    CodeProposed,
    Event,
    OutputReceived,
    RequestSent,
    RetryScheduled,
    RunFinished,
    RunResult,
    Step,
    StepFinished,
    TextStreamed,
)

_UPDATE_EVERY_S = 0.1
"""Ten updates a second; at fifty the page was measured to stutter (worst frame 264 ms)."""
_STREAM_TAIL = 1_500
_TRANSCRIPT_BYTES = 4_000
_STATUS_WORDS = {
    "ok": "ok",
    "error": "failed",
    "timeout": "stopped at the time limit",
    "interrupted": "interrupted",
    "died": "kernel died",
}
_RUN_WORDS = {
    "completed": "Done",
    "failed": "Failed",
    "limit": "Stopped at a limit",
    "budget": "Stopped at the budget",
    "stuck": "Stuck",
    "interrupted": "Interrupted",
}

_LOST = "variables from before are gone. %agent restart --replay runs the cells that worked again."

UpdateHook = Callable[[dict[str, JSON]], None]
"""Shows a mime bundle in place of the one before."""


def summary(result: RunResult) -> str:
    """One line on how a run ended: status, steps, time, tokens, cost, who did it."""
    usage = result.usage
    failed = sum(step.result.status != "ok" for step in result.steps)
    steps = f"{len(result.steps)} step{'s' if len(result.steps) != 1 else ''}" + (
        f" ({failed} failed)" if failed else ""
    )
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    cost = f"${usage.cost_usd:.4f}" if usage.cost_usd is not None else ""
    parts = [
        f"{_RUN_WORDS[result.status]} in {result.duration_s:.1f} s",
        steps,
        f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out" if usage.input_tokens else "",
        cost,
        f"{result.provider} {result.model} in {result.executor}",
        result.label,
    ]
    lines = [" · ".join(part for part in parts if part), result.reason]
    lost = [str(step.index) for step in result.steps if step.result.state_lost]
    if lost:
        lines.append(f"The sandbox was restarted in step {', '.join(lost)}: {_LOST}")
    return "\n".join(line for line in lines if line)


class NotebookDisplay:
    """One area in the agent cell's output, updated in place; it ends as one line with a collapsible transcript.

    Args:
        update: shows a mime bundle in place of the one before.
    """

    def __init__(self, update: UpdateHook) -> None:
        self._update = update
        self._began = time.monotonic()
        self._drawn = 0.0
        self._doing = "starting"
        self._stream: list[str] = []
        self._steps: list[Step] = []
        self._retries: list[str] = []

    def __call__(self, event: Event) -> None:
        """Take one event of the run."""
        if isinstance(event, TextStreamed):
            self._stream.append(event.text)
            self._doing = "the model writes"
        elif isinstance(event, RequestSent):
            self._stream.clear()
            self._doing = "waiting for the model"
        elif isinstance(event, CodeProposed):
            self._stream = [event.code]
            self._doing = f"running step {event.index}"
        elif isinstance(event, OutputReceived):
            self._stream.append("\n" + text_of([event.output])[-_STREAM_TAIL:])
        elif isinstance(event, StepFinished):
            self._steps.append(event.step)
        elif isinstance(event, RetryScheduled):
            self._stream.clear()
            self._doing = f"{event.reason} Retry {event.attempt} in {event.wait_s:.1f} s"
            self._retries.append(self._doing)
        elif isinstance(event, RunFinished):
            self._finish(event.result)
            return
        now = time.monotonic()
        if now - self._drawn >= _UPDATE_EVERY_S:
            self._drawn = now
            self._draw(now)

    def fail(self) -> None:
        """The run ended by an error, whose text is shown below: keep the transcript."""
        if self._drawn:
            steps = len(self._steps)
            self._show(f"Stopped by an error after {steps} step{'s' if steps != 1 else ''}.", "")

    def _draw(self, now: float) -> None:
        tail = clean_text(strip_colours("".join(self._stream)))[-_STREAM_TAIL:]
        self._show(f"Agent: {self._doing} · {now - self._began:.0f} s", tail)

    def _finish(self, result: RunResult) -> None:
        self._show(summary(result), "")

    def _show(self, line: str, tail: str) -> None:
        head = escape(clean_text(strip_colours(line))).replace("\n", "<br>")
        html = f'<div role="status" style="opacity:.85">{head}</div>'
        if tail:
            html += f'<pre style="white-space:pre-wrap;max-height:16em;overflow:auto">{escape(tail)}</pre>'
        elif self._steps or self._retries:
            html += self._transcript()
        self._update({"text/html": html, "text/plain": f"{line}\n{tail}".rstrip()})

    def _transcript(self) -> str:
        rows = [f"<p>{escape(clean_text(text))}</p>" for text in self._retries]
        for step in self._steps:
            said = f"<p>{escape(clean_text(step.explanation))}</p>" if step.explanation else ""
            output = clean_text(cap_text(text_of(step.result.outputs), _TRANSCRIPT_BYTES))
            title = f"Step {step.index}: {_STATUS_WORDS[step.result.status]}, {step.result.duration_s:.1f} s"
            rows.append(
                f"<p><b>{escape(title)}</b></p>{said}"
                f'<pre style="white-space:pre-wrap">{escape(clean_text(step.code))}</pre>'
                f'<pre style="white-space:pre-wrap;opacity:.8">{escape(output)}</pre>'
            )
        return f"<details><summary>Transcript</summary>{''.join(rows)}</details>"


class TextDisplay:
    """Lines of plain text, for a terminal.

    Args:
        out: where to write.
        stream: whether the model's words are shown as they come.
    """

    def __init__(self, out: TextIO, *, stream: bool = True) -> None:
        self._out = out
        self._stream = stream
        self._open_line = False

    def __call__(self, event: Event) -> None:
        """Take one event of the run."""
        if isinstance(event, TextStreamed):
            if self._stream:
                self._write(clean_text(event.text))
        elif isinstance(event, CodeProposed):
            self._line(f"--- step {event.index}\n{clean_text(event.code)}\n---")
        elif isinstance(event, OutputReceived):
            self._line(clean_text(cap_text(text_of([event.output]), _TRANSCRIPT_BYTES)))
        elif isinstance(event, StepFinished):
            if event.step.result.status != "ok":
                self._line(f"(step {event.step.index}: {_STATUS_WORDS[event.step.result.status]})")
        elif isinstance(event, RetryScheduled):
            self._line(f"{event.reason} Retry {event.attempt} in {event.wait_s:.1f} s.")
        elif isinstance(event, RunFinished):
            self._line(summary(event.result))
        self._out.flush()

    def fail(self) -> None:
        """The run ended by an error, whose text is shown elsewhere."""
        if self._open_line:
            self._line("")

    def _write(self, text: str) -> None:
        self._out.write(text)
        if text:
            self._open_line = not text.endswith("\n")

    def _line(self, text: str) -> None:
        if self._open_line:
            self._out.write("\n")
        self._write(text.rstrip("\n") + "\n")
