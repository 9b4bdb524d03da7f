"""A row of the table, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HEADINGS = ("measure", "floor", "ours", "result", "bar", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """One measure.

    Args:
        measure: what was measured.
        ours: our value, in `unit`.
        bar: what the result may be at most (for `exact`: what it has to be).
        unit: of `ours` and `floor`.
        floor: the same job done in the plainest way that exists.
        kind: the result is `ours` itself, its ratio to the floor, its distance from the floor, or has to be exact.
    """

    measure: str
    ours: float
    bar: float
    unit: str = ""
    floor: float | None = None
    kind: Literal["value", "ratio", "over", "exact"] = "value"

    @property
    def result(self) -> float:
        """What is held against the bar."""
        if self.floor is None or self.kind in ("value", "exact"):
            return self.ours
        return self.ours / self.floor if self.kind == "ratio" else self.ours - self.floor

    @property
    def passed(self) -> bool:
        """Whether the bar was kept."""
        return self.result == self.bar if self.kind == "exact" else self.result <= self.bar

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        sign, unit = {
            "value": ("<= ", self.unit),
            "ratio": ("<= ", "x"),
            "over": ("<= +", self.unit),
            "exact": ("", ""),
        }[self.kind]
        return (
            self.measure,
            "" if self.floor is None else number(self.floor, self.unit),
            number(self.ours, self.unit),
            {"ratio": f"{self.result:.2f}x", "over": f"{self.result:+.3g} {self.unit}"}.get(self.kind, ""),
            sign + number(self.bar, unit),
            "ok" if self.passed else "MISSED",
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A measure that could not be taken."""

    measure: str
    reason: str
    passed: bool = False

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        return (self.measure, "", "", self.reason, "", "FAILED")


def number(value: float, unit: str) -> str:
    """A value with its unit, three significant digits."""
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text}{unit}" if unit == "x" else f"{text} {unit}".rstrip()


def table(rows: Sequence[Row | Failure]) -> str:
    """All rows, in columns."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(texts)
