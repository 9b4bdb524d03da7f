"""A run as text: readable, each line once, and in a terminal one line that moves."""

from __future__ import annotations

import io
import re
import time

import pytest

from sandbox_agent_magic.display import TextDisplay
from sandbox_agent_magic.types import (
    CodeProposed,
    Event,
    OutputReceived,
    RequestSent,
    RetryScheduled,
    RunFinished,
    RunResult,
    StepFinished,
    TextStreamed,
)
from tests.support.run_events import FAILED, HOSTILE, RESULT, WORKED

FIVE = OutputReceived(1, {"output_type": "stream", "name": "stdout", "text": "5\n"})


def shown(*events: Event, **options: object) -> list[str]:
    out = io.StringIO()
    display = TextDisplay(out, **options)  # type: ignore[arg-type]
    for event in events:
        display(event)
    display.close()
    return out.getvalue().splitlines()


def test_a_terminal_gets_lines_of_text() -> None:
    lines = shown(RequestSent(1, 1), TextStreamed("I sum."), CodeProposed(1, "print(5)"), FIVE, StepFinished(WORKED))
    assert lines == ["I sum.", "--- step 1", "print(5)", "---", "5"]


def test_code_that_the_model_wrote_into_its_text_is_not_shown_again() -> None:
    text = "I sum.\n```python\nprint(5)\n```\n"
    lines = shown(RequestSent(1, 1), TextStreamed(text), CodeProposed(1, "print(5)"), FIVE)
    assert lines == [*text.splitlines(), "--- step 1", "5"]


def test_an_answer_that_was_not_streamed_is_shown_and_one_that_was_is_not_repeated() -> None:
    answer = RunResult("completed", "It is 5.")
    assert "It is 5." in shown(RequestSent(1, 1), RunFinished(answer))
    streamed = shown(RequestSent(1, 1), TextStreamed("It is"), TextStreamed(" 5."), RunFinished(answer))
    assert streamed[0] == "It is 5."
    assert streamed[1].startswith("Done in 0.0 s")
    assert len(streamed) == 2


def test_a_failed_step_and_a_retry_are_said() -> None:
    lines = shown(RetryScheduled(1, 2.0, "Too many requests."), StepFinished(FAILED))
    assert lines == ["Too many requests. Retry 1 in 2.0 s.", "(step 1: failed)"]


def test_where_cells_show_what_worked_only_failures_are_shown_in_full() -> None:
    waiting = RequestSent(1, 1)
    events = (
        waiting,
        TextStreamed("I sum."),
        CodeProposed(1, "print(5)"),
        FIVE,
        StepFinished(WORKED),
        RunFinished(RESULT),
    )
    lines = shown(*events, stream=False, steps="failed")
    assert lines[:2] == ["Agent: waiting for the model", "--- step 1"]
    assert lines[2].startswith("Done")
    assert len(lines) == 3
    failed = shown(CodeProposed(1, HOSTILE), StepFinished(FAILED), stream=False, steps="failed")
    assert failed == ["--- step 1", *["<script>alert(1)</script>"] * 2, "(step 1: failed)"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> str:
        """What is left to see: a line that was erased is not."""
        return re.sub(r"[^\n]*\r\x1b\[K", "", self.getvalue())


def test_the_last_line_of_a_terminal_says_what_is_waited_for_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    display = TextDisplay(out)
    display(RequestSent(1, 1))
    end = time.monotonic() + 5
    while "[2 s · waiting for the model]" not in out.getvalue() and time.monotonic() < end:
        time.sleep(0.05)
    assert out.screen == "[2 s · waiting for the model]"
    display(TextStreamed("Hello"))
    time.sleep(1.2)  # it stays away while a line is being written
    assert out.screen == "Hello"
    display(RunFinished(RunResult("completed", "Hello")))
    display.close()
    assert out.screen.splitlines()[0] == "Hello"
    assert len(out.screen.splitlines()) == 2


def test_a_dumb_terminal_gets_no_line_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    display = TextDisplay(out)
    display(RequestSent(1, 1))
    time.sleep(1.2)
    display.close()
    assert out.getvalue() == ""
