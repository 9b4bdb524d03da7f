"""Costs as a table with bars: text for a terminal, HTML for a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import reduce
from html import escape
from operator import add
from pathlib import Path

from .book import By, Total

_BAR = 24
"""Characters of the longest bar."""
_MAX_ROWS = 40
_HEADS = ("requests", "tokens in", "cached", "out", "cost")


class CostReport:
    """What requests cost, by cell, model, notebook or day.

    Args:
        totals: one row each.
        by: what they are grouped by.
        title: what was counted.
        notes: lines below the table, such as the state of a budget.
    """

    def __init__(self, totals: Sequence[Total], *, by: By, title: str, notes: Sequence[str] = ()) -> None:
        rows = list(totals)
        if by in ("model", "notebook"):
            rows.sort(key=lambda total: (-(total.cost_usd or 0.0), -total.tokens))
        self._left_out = max(0, len(rows) - _MAX_ROWS)
        # By time the newest rows matter, by cost the dearest.
        self._rows = rows[:_MAX_ROWS] if by in ("model", "notebook") else rows[-_MAX_ROWS:]
        self._all = rows
        self._by = by
        self._title = title
        self._notes = list(notes)
        # Where no price is known the bars show tokens: they say at least where the work was.
        self._priced = any(total.cost_usd for total in rows)

    def __str__(self) -> str:
        if not self._all:
            return "\n".join([f"{self._title}: no request yet.", *self._notes])
        lines = [(self._by, *_HEADS, ""), *((*self._cells(row), "█" * self._size(row, _BAR)) for row in self._rows)]
        if len(self._all) > 1:
            lines.append((*self._cells(reduce(add, self._all), "total"), ""))
        widths = [max(len(line[column]) for line in lines) for column in range(6)]
        table = [
            "  ".join([line[0].ljust(widths[0]), *(line[c].rjust(widths[c]) for c in range(1, 6)), line[6]]).rstrip()
            for line in lines
        ]
        more = [f"({self._left_out:,} more rows are in the total)"] if self._left_out else []
        return "\n".join([self._title, *table, *more, *self._notes])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        if not self._all:
            return f"<p>{escape(str(self))}</p>"
        heads = "".join(f"<th>{head}</th>" for head in (self._by, *_HEADS, "in money" if self._priced else "in tokens"))
        rows = [self._html_row(self._cells(row), self._size(row, 100)) for row in self._rows]
        if len(self._all) > 1:
            rows.append(self._html_row(self._cells(reduce(add, self._all), "total"), 0))
        more = [f"{self._left_out:,} more rows are in the total."] if self._left_out else []
        notes = "".join(f"<div>{escape(note)}</div>" for note in [*more, *self._notes])
        return (
            f"<div><b>{escape(self._title)}</b><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
            f"</table>{notes}</div>"
        )

    def _html_row(self, cells: Sequence[str], percent: int) -> str:
        first, *rest = (escape(cell) for cell in cells)
        numbers = "".join(f'<td style="text-align:right">{cell}</td>' for cell in rest)
        bar = f'<div style="width:{percent}%;height:.8em;background:#4c78a8"></div>' if percent else ""
        return f'<tr><td style="text-align:left">{first}</td>{numbers}<td style="width:12em">{bar}</td></tr>'

    def _cells(self, total: Total, label: str = "") -> tuple[str, str, str, str, str, str]:
        return (
            label or _shown(total, self._by),
            f"{total.requests:,}",
            f"{total.input_tokens:,}",
            f"{total.cached_tokens:,}",
            f"{total.output_tokens:,}",
            money(total),
        )

    def _size(self, total: Total, longest: int) -> int:
        """Length of a row's bar."""

        def value(row: Total) -> float:
            return (row.cost_usd or 0.0) if self._priced else row.tokens

        most = max(value(row) for row in self._all)
        return max(1, round(longest * value(total) / most)) if most and value(total) else 0


def dollars(cost_usd: float) -> str:
    """An amount as it is shown everywhere, such as "$0.0125"."""
    return f"${cost_usd:,.4f}" if cost_usd >= 0.0001 else "under $0.0001" if cost_usd > 0 else "$0"


def money(total: Total) -> str:
    """What it cost, as far as that is known."""
    known = dollars(total.cost_usd) if total.cost_usd is not None else ""
    if not total.unpriced:
        return known or "-"
    return f"{known} + unknown" if known else "unknown"


def _shown(total: Total, by: By) -> str:
    if by == "cell":
        return f"{time.strftime('%d %b %H:%M', time.localtime(total.first))}  {total.label[:8]}"
    if by == "notebook":
        path = Path(total.label)
        home = Path.home()
        return f"~/{path.relative_to(home)}" if path.is_absolute() and path.is_relative_to(home) else total.label
    return total.label
