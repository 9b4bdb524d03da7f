"""How a run is put into words: statuses, amounts, the line at its end."""

from __future__ import annotations

from collections.abc import Iterable

from ..ledger import dollars
from ..types import ExecutionStatus, RunResult, RunStatus, Step, Usage

STEP_WORDS: dict[ExecutionStatus, str] = {
    "ok": "ok",
    "error": "failed",
    "timeout": "stopped at the time limit",
    "interrupted": "interrupted",
    "died": "kernel died",
}
_RUN_WORDS: dict[RunStatus, str] = {
    "completed": "Done",
    "failed": "Failed",
    "limit": "Stopped at a limit",
    "budget": "Stopped at the budget",
    "stuck": "Stuck",
    "interrupted": "Interrupted",
}
_LOST = "variables from before are gone. %agent restart --replay runs the cells that worked again."


def summary(result: RunResult) -> str:
    """How a run ended: one line with status, steps, time, tokens, cost and who did it; then why, where it needs one."""
    parts = [
        f"{_RUN_WORDS[result.status]} in {seconds(result.duration_s)}",
        count_steps(result.steps),
        amounts(result.usage),
        f"{result.provider} {result.model} in {result.executor}",
        result.label,
    ]
    lines = [" · ".join(part for part in parts if part)]
    if result.status != "interrupted":  # the reader knows who did it
        lines.append(result.reason)
    lost = [str(step.index) for step in result.steps if step.result.state_lost]
    if lost:
        lines.append(f"The sandbox was restarted in step {', '.join(lost)}: {_LOST}")
    return "\n".join(line for line in lines if line)


def step_title(step: Step) -> str:
    """A step's number, status and time."""
    return f"Step {step.index}: {STEP_WORDS[step.result.status]}, {step.result.duration_s:.1f} s"


def count_steps(steps: Iterable[Step]) -> str:
    """Such as "3 steps (1 failed, 1 interrupted)"."""
    statuses = [step.result.status for step in steps]
    interrupted = statuses.count("interrupted")
    failed = len(statuses) - statuses.count("ok") - interrupted
    bad = [f"{number} {word}" for number, word in ((failed, "failed"), (interrupted, "interrupted")) if number]
    return f"{len(statuses)} step{'s' if len(statuses) != 1 else ''}" + (f" ({', '.join(bad)})" if bad else "")


def amounts(usage: Usage) -> str:
    """Tokens and cost; empty where nobody counted."""
    if not usage.input_tokens:
        return ""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return " · ".join(
        part
        for part in (f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out", _cost(usage.cost_usd))
        if part
    )


def _cost(cost_usd: float | None) -> str:
    """Such as "$0.0125"; nothing for what is free, as the embedded model is."""
    if cost_usd is None:
        return "cost unknown"
    if cost_usd == 0:
        return ""
    return dollars(cost_usd)


def seconds(duration_s: float) -> str:
    """Such as "4.2 s" or "3 min 20 s"."""
    if duration_s < 100:
        return f"{duration_s:.1f} s"
    return f"{int(duration_s) // 60} min {int(duration_s) % 60} s"
