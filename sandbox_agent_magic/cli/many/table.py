"""What became of many notebooks, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ...notebook.record import Spent
from ..words import clock, columns, cost_of, fit, padded, shown, tokens_of
from .pool import Run

_HEADS = ("notebook", "status", "time", "tokens", "cost", "written to")
_GAP = "  "
_LEAST_NAME = 12
"""Columns that a notebook's name and its result's place keep, however narrow the terminal is."""


def table(runs: Sequence[Run], *, duration_s: float, width: int | None) -> str:
    """One row for each notebook, a line for all, and why those that did not complete did not.

    Args:
        runs: all of them, in order.
        duration_s: of the whole command.
        width: of the terminal, in columns; None leaves names as long as they are.
    """
    rows = [_HEADS, *map(_row, runs)]
    if len(runs) > 1:
        rows.append(_all(runs, duration_s))
    widths = [max(columns(row[at]) for row in rows) for at in range(len(_HEADS))]
    if width is not None:
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        for at in (5, 0):  # the place is mostly the name again
            give = max(0, min(over, widths[at] - _LEAST_NAME))
            widths[at] -= give
            over -= give
    lines = [_line(row, widths) for row in rows]
    why = _why(runs)
    return "\n".join([*lines, *([""] if why else []), *why])


def _why(runs: Sequence[Run]) -> list[str]:
    """Why notebooks did not complete; a reason that several have in common is given once."""
    reasons: dict[str, list[Run]] = {}
    for run in runs:
        if run.problem:
            reasons.setdefault(run.problem, []).append(run)
    names = {reason: shown(those[0].job.source) for reason, those in reasons.items()}
    more = {reason: f" and {len(those) - 1} more" if len(those) > 1 else "" for reason, those in reasons.items()}
    return [f"{names[reason]}{more[reason]}: {reason}" for reason in reasons]


def _row(run: Run) -> tuple[str, ...]:
    return (
        shown(run.job.source),
        run.status,
        clock(run.duration_s) if run.began else "-",
        tokens_of(run.spent),
        cost_of(run.spent),
        shown(run.written) if run.written is not None else "-",
    )


def _all(runs: Sequence[Run], duration_s: float) -> tuple[str, ...]:
    spent = sum((run.spent for run in runs), Spent())
    done = sum(run.status in ("completed", "skipped") for run in runs)
    return (f"{len(runs)} notebooks", f"{done} done", clock(duration_s), tokens_of(spent), cost_of(spent), "")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for at, (text, width) in enumerate(zip(row, widths, strict=True)):
        cells.append(padded(fit(text, width, keep_end=at in (0, 5)), width, right=at in (2, 3, 4)))
    return _GAP.join(cells).rstrip()
