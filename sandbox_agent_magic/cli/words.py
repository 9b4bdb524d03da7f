"""Paths, names and amounts as a terminal may show them: on one line, without what would move its cursor."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from ..notebook.record import Spent


def shown(path: Path) -> str:
    """A path from the working directory, its unprintable characters as escapes: anybody may have named the file."""
    text = str(path)
    try:
        relative = os.path.relpath(path)
        text = text if relative.startswith("..") else relative
    except (OSError, ValueError):  # the working directory was removed, or another drive
        pass
    return one_line(text)


def one_line(text: str) -> str:
    """`text` with its unprintable characters, line ends among them, as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def columns(text: str) -> int:
    """How many columns a terminal takes to show `text`."""
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) != 0 for each in text)


def fit(text: str, width: int, *, keep_end: bool = False) -> str:
    """`text` in at most `width` columns, with an ellipsis for what is left out at its end, or its beginning."""
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text}…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """`text` filled up to `width` columns, on its left if it is to end `right`."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def clock(seconds: float) -> str:
    """Such as "0:07", "12:05" or "1:02:03"."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tokens_of(spent: Spent) -> str:
    """Such as "1,234"; a dash for none."""
    return f"{spent.tokens:,}" if spent.tokens else "-"


def cost_of(spent: Spent) -> str:
    """Such as "$0.0012", "unknown" or "$0.0012 + unknown"; a dash where nothing was asked."""
    if not spent.tokens and not spent.cost_usd:
        return "-"
    known = f"${spent.cost_usd:,.4f}" if spent.cost_usd else "$0" if spent.cost_usd is not None else ""
    return " + ".join(part for part in (known, "unknown" if spent.unpriced else "") if part)
