"""The line at the end of a run."""

from __future__ import annotations

import dataclasses

import pytest

from sandbox_agent_magic.display import summary
from sandbox_agent_magic.display.words import amounts
from sandbox_agent_magic.types import ExecutionResult, Step, Usage
from tests.support.run_events import FAILED, INTERRUPTED, RESULT


def test_the_summary_says_steps_tokens_cost_and_who() -> None:
    line = summary(RESULT)
    assert "Done in 0.0 s · 1 step (1 failed) · 1,200 tokens in (200 cached), 30 out · $0.0125" in line
    assert line.endswith("openai m in sandbox")


def test_an_interrupted_step_is_not_called_failed() -> None:
    stopped = Step(2, "x", ExecutionResult("interrupted"))
    line = summary(dataclasses.replace(INTERRUPTED, steps=(FAILED, stopped), duration_s=200.0))
    assert line.startswith("Interrupted in 3 min 20 s · 2 steps (1 failed, 1 interrupted)")
    assert len(line.splitlines()) == 1


def test_a_reason_and_lost_variables_are_lines_of_their_own() -> None:
    lost = Step(1, "x", ExecutionResult("died", state_lost=True))
    lines = summary(dataclasses.replace(RESULT, status="limit", reason="No answer.", steps=(lost,))).splitlines()
    assert lines[1] == "No answer."
    assert "restarted in step 1" in lines[2]


def test_a_result_is_short_where_it_is_the_last_line_of_a_cell() -> None:
    assert repr(RESULT) == "<RunResult completed: '5', 1 steps in sandbox>"


@pytest.mark.parametrize(
    ("cost_usd", "shown"),
    [(None, "5 out · cost unknown"), (0.0, "5 out"), (0.00002, "5 out · under $0.0001"), (0.5, "5 out · $0.5000")],
)
def test_a_cost_that_nobody_knows_is_said_and_a_free_one_is_not(cost_usd: float | None, shown: str) -> None:
    assert amounts(Usage(10, output_tokens=5, cost_usd=cost_usd)) == f"10 tokens in, {shown}"


def test_nothing_is_said_of_what_nobody_counted() -> None:
    assert amounts(Usage()) == ""
