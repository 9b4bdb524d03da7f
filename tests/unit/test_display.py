"""What the reader watches: escaped, throttled, and tidy in the end."""

from __future__ import annotations

import io

from sandbox_agent_magic.display import NotebookDisplay, TextDisplay, summary
from sandbox_agent_magic.types import (
    JSON,
    CodeProposed,
    ErrorInfo,
    ExecutionResult,
    OutputReceived,
    RequestSent,
    RetryScheduled,
    RunFinished,
    RunResult,
    Step,
    StepFinished,
    TextStreamed,
    Usage,
)

HOSTILE = "<script>alert(1)</script>\x1b]0;title\x07\x1b[2J"
FAILED = Step(1, HOSTILE, ExecutionResult("error", error=ErrorInfo("E", HOSTILE, (HOSTILE,))), HOSTILE)
RESULT = RunResult(
    "completed", "5", (FAILED,), Usage(1200, 200, 30, 0.0125), provider="openai", model="m", executor="sandbox"
)


def drawn() -> tuple[list[dict[str, JSON]], NotebookDisplay]:
    bundles: list[dict[str, JSON]] = []
    return bundles, NotebookDisplay(bundles.append)


def test_nothing_of_the_model_or_the_code_is_markup() -> None:
    bundles, display = drawn()
    for event in (
        RequestSent(1, 1),
        TextStreamed(HOSTILE),
        RetryScheduled(1, 2.0, HOSTILE),
        CodeProposed(1, HOSTILE),
        OutputReceived(1, {"output_type": "stream", "name": "stdout", "text": HOSTILE}),
        StepFinished(FAILED),
        RunFinished(RESULT),
    ):
        display._drawn = 0.0  # draw every event
        display(event)
    html = "".join(str(bundle["text/html"]) for bundle in bundles)
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "\x1b" not in html


def test_two_hundred_chunks_are_at_most_a_few_updates() -> None:
    bundles, display = drawn()
    for _ in range(200):
        display(TextStreamed("word "))
    assert len(bundles) <= 3


def test_the_end_is_one_line_with_a_transcript() -> None:
    bundles, display = drawn()
    display(StepFinished(FAILED))
    display(RunFinished(RESULT))
    assert bundles[-1]["text/plain"] == summary(RESULT)
    assert "<details><summary>Transcript</summary>" in str(bundles[-1]["text/html"])


def test_the_summary_says_steps_tokens_cost_and_who() -> None:
    line = summary(RESULT)
    assert "Done in 0.0 s · 1 step (1 failed) · 1,200 tokens in (200 cached), 30 out · $0.0125" in line
    assert line.endswith("openai m in sandbox")


def test_an_error_before_anything_was_drawn_leaves_no_area() -> None:
    bundles, display = drawn()
    display.fail()
    assert bundles == []


def test_a_terminal_gets_lines_of_text() -> None:
    out = io.StringIO()
    display = TextDisplay(out)
    for event in (TextStreamed("I sum."), CodeProposed(1, "print(5)"), StepFinished(FAILED), RunFinished(RESULT)):
        display(event)
    assert out.getvalue().splitlines()[:5] == ["I sum.", "--- step 1", "print(5)", "---", "(step 1: failed)"]


def test_a_result_is_short_where_it_is_the_last_line_of_a_cell() -> None:
    assert repr(RESULT) == "<RunResult completed: '5', 1 steps in sandbox>"
