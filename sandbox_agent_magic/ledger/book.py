"""The book of requests: what each one used and cost, in one SQLite file that all notebooks of a user share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal, Self, TypeAlias, get_args

from ..folders import data_dir
from ..types import Usage

By: TypeAlias = Literal["cell", "model", "notebook", "day"]
BY: tuple[By, ...] = get_args(By)
_BUSY_S = 2.0
"""How long a write waits for other notebooks; theirs take a millisecond."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    time REAL NOT NULL, day TEXT NOT NULL, notebook TEXT NOT NULL, cell TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cost_usd REAL
);
CREATE INDEX IF NOT EXISTS requests_day ON requests (day);
CREATE INDEX IF NOT EXISTS requests_notebook ON requests (notebook);
"""
_KEYS: dict[By, str] = {
    "cell": "cell",
    "model": "provider || ' ' || model",
    "notebook": "notebook",
    "day": "day",
}
_SUMS = (
    "count(*), coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0), coalesce(sum(output_tokens), 0), "
    "sum(cost_usd), count(*) - count(cost_usd)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request."""

    notebook: str
    """Its path, or another name that stays the same for a session."""
    cell: str
    """Id of the agent cell, or of the run where the front end gives none."""
    provider: str
    model: str
    usage: Usage
    time: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    @property
    def day(self) -> str:
        """Its date where the reader is."""
        return date.fromtimestamp(self.time).isoformat()


@dataclass(frozen=True, slots=True)
class Total:
    """Several requests together."""

    label: str
    """What they have in common; empty for a sum of all."""
    first: float
    """When the first of them was answered, seconds since the epoch."""
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float | None
    """Of those whose price is known."""
    unpriced: int
    """Requests whose price is unknown."""

    @classmethod
    def of(cls, usage: Usage | None = None, *, label: str = "", time: float = 0.0) -> Total:
        """One request, or none."""
        if usage is None:
            return cls(label, time, 0, 0, 0, 0, None, 0)
        tokens = (usage.input_tokens, usage.cached_tokens, usage.output_tokens)
        return cls(label, time, 1, *tokens, usage.cost_usd, int(usage.cost_usd is None))

    def __add__(self, other: Total) -> Total:
        known = [total.cost_usd for total in (self, other) if total.cost_usd is not None]
        return Total(
            self.label,
            min(self.first, other.first),
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            sum(known) if known else None,
            self.unpriced + other.unpriced,
        )

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.input_tokens + self.output_tokens


def tell(message: str) -> None:
    """Warn the reader in one line."""
    print(message, file=sys.stderr)


class Ledger:
    """Enters and sums requests. A file that cannot be used is told of once, and then only this session counts.

    Each call opens the file anew: nothing is held between calls, not even by a process that forks.

    Args:
        path: of the file; its folder is made if need be.
        warn: tells the reader in one line.
    """

    def __init__(self, path: Path, *, warn: Callable[[str], None] = tell) -> None:
        self.path = path
        self._warn = warn
        self._warned = False
        self._unwritten: list[Entry] = []

    @classmethod
    def of_user(cls) -> Self:
        """The one that all notebooks of this user share."""
        return cls(data_dir() / "ledger.sqlite3")

    def enter(self, entry: Entry) -> None:
        """Add one request. Never raises."""
        usage = entry.usage
        row = (
            entry.time,
            entry.day,
            *(text.encode("utf-8", "replace").decode() for text in (entry.notebook, entry.cell)),
            *(text.encode("utf-8", "replace").decode() for text in (entry.provider, entry.model)),
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.cost_usd,
        )
        try:
            with self._open() as connection:
                connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except (sqlite3.Error, OSError) as exc:
            self._unwritten.append(entry)
            self._complain(exc)

    def spent(self, *, notebook: str | None = None, day: str | None = None) -> Total:
        """The sum of all requests of this notebook, or of this day, or of all. Never raises."""
        wanted = [("notebook", notebook), ("day", day)]
        return self._sum([(name, value) for name, value in wanted if value is not None], None)[0]

    def totals(self, by: By, *, notebook: str | None = None) -> list[Total]:
        """Sums by cell, model, notebook or day, the oldest first; of one notebook if it is given. Never raises."""
        return self._sum([("notebook", notebook)] if notebook is not None else [], by)

    def _sum(self, wanted: Sequence[tuple[str, str]], by: By | None) -> list[Total]:
        key = _KEYS[by] if by else "''"
        where = " AND ".join(f"{name} = ?" for name, _ in wanted) or "1"
        query = f"SELECT {key}, coalesce(min(time), 0), {_SUMS} FROM requests WHERE {where}"  # noqa: S608
        found: list[Total] = []
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(self._open())
                rows = connection.execute(query + (f" GROUP BY {key} ORDER BY 2" if by else ""), [v for _, v in wanted])
                found = [Total(*row) for row in rows]
            except (sqlite3.Error, OSError) as exc:
                self._complain(exc)
        for entry in self._unwritten:
            if all(getattr(entry, name) == value for name, value in wanted):
                found = _with(found, Total.of(entry.usage, label=_label(entry, by), time=entry.time))
        return found if found or by else [Total.of()]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction on the file."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level="IMMEDIATE")) as connection:
            # Readers and the writer do not wait for one another; a crash loses at most the last entries.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone():
                connection.executescript(_SCHEMA)
            with connection:
                yield connection

    def _complain(self, exc: Exception) -> None:
        if not self._warned:
            self._warned = True
            reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            self._warn(
                f"The book of costs cannot be used: {self.path} ({reason}). Until it can, only this session's costs "
                "are known, to budgets too. If it stays so, move the file away; a new one is begun."
            )


def _label(entry: Entry, by: By | None) -> str:
    if by == "model":
        return f"{entry.provider} {entry.model}"
    return getattr(entry, by) if by else ""


def _with(totals: Sequence[Total], new: Total) -> list[Total]:
    """The totals with one more request, which has a total of its own if it has a label of its own."""
    if not any(total.label == new.label for total in totals):
        return [*totals, new]
    return [total + new if total.label == new.label else total for total in totals]
