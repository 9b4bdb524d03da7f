"""The line at the end of a run."""

from __future__ import annotations

import dataclasses

from sandbox_agent_magic.display import summary
from sandbox_agent_magic.types import ExecutionResult, Step
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
