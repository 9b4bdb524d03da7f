"""The book of requests: what is entered is found again, by several processes at once, and a bad file stops nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from sandbox_agent_magic.ledger import BY, CostReport, Entry, Ledger, Total
from sandbox_agent_magic.types import Usage

TODAY = date.today().isoformat()
PRICED = Usage(1_000, 200, 50, 0.25)
UNPRICED = Usage(10, 0, 5)


def entry(usage: Usage = PRICED, *, notebook: str = "/n/a.ipynb", cell: str = "one", model: str = "m") -> Entry:
    return Entry(notebook, cell, "openai", model, usage)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def ledger(tmp_path: Path, warnings: list[str]) -> Ledger:
    return Ledger(tmp_path / "data" / "ledger.sqlite3", warn=warnings.append)


def test_what_is_entered_is_summed_by_notebook_and_by_day(ledger: Ledger) -> None:
    ledger.enter(entry())
    ledger.enter(entry(UNPRICED, cell="two"))
    ledger.enter(entry(notebook="/n/b.ipynb"))
    spent = ledger.spent(notebook="/n/a.ipynb")
    assert (spent.requests, spent.input_tokens, spent.cached_tokens, spent.output_tokens) == (2, 1_010, 200, 55)
    assert (spent.cost_usd, spent.unpriced) == (0.25, 1)
    assert ledger.spent(day=TODAY).cost_usd == 0.5
    assert ledger.spent(day="1999-12-31").requests == 0


@pytest.mark.parametrize(
    ("by", "labels"),
    [
        ("cell", ["one", "two"]),
        ("model", ["openai m", "openai other"]),
        ("notebook", ["/n/a.ipynb", "/n/b.ipynb"]),
        ("day", [TODAY]),
    ],
)
def test_requests_are_grouped(ledger: Ledger, by: str, labels: list[str]) -> None:
    ledger.enter(entry())
    ledger.enter(entry(cell="two", model="other", notebook="/n/b.ipynb"))
    assert [total.label for total in ledger.totals(by)] == labels  # type: ignore[arg-type]


def test_another_session_finds_what_this_one_entered(ledger: Ledger) -> None:
    ledger.enter(entry())
    assert Ledger(ledger.path).spent().requests == 1


def test_only_its_owner_can_read_it(ledger: Ledger) -> None:
    ledger.enter(entry())
    assert ledger.path.stat().st_mode & 0o077 == 0
    assert ledger.path.parent.stat().st_mode & 0o077 == 0


WRITER = """
import sys
from pathlib import Path
from sandbox_agent_magic.ledger import Entry, Ledger
from sandbox_agent_magic.types import Usage
ledger = Ledger(Path(sys.argv[1]))
for number in range(50):
    ledger.enter(Entry(sys.argv[2], "cell", "openai", "m", Usage(1, 0, 1, 0.01)))
"""


def test_several_notebooks_write_at_once_and_nothing_is_lost(ledger: Ledger) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(ledger.path), f"notebook {number}"], stderr=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == ""
    assert [total.requests for total in ledger.totals("notebook")] == [50] * 4
    assert ledger.spent().cost_usd == pytest.approx(2.0)


def corrupt(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database at all " * 100)


def folder_is_a_file(path: Path) -> None:
    path.parent.write_text("in the way")


def file_is_a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def other_tables(path: Path) -> None:
    import sqlite3

    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE requests (something TEXT)")
    connection.close()


@pytest.mark.parametrize("spoil", [corrupt, folder_is_a_file, file_is_a_folder, other_tables])
def test_a_file_that_cannot_be_used_is_told_of_once_and_this_session_still_counts(
    ledger: Ledger, warnings: list[str], spoil: object
) -> None:
    spoil(ledger.path)  # type: ignore[operator]
    ledger.enter(entry())
    ledger.enter(entry())
    assert ledger.spent(notebook="/n/a.ipynb").cost_usd == 0.5
    assert [total.requests for total in ledger.totals("model")] == [2]
    assert len(warnings) == 1
    assert str(ledger.path) in warnings[0]


def test_a_file_that_another_program_holds_is_waited_for_and_then_done_without(
    ledger: Ledger, warnings: list[str]
) -> None:
    import sqlite3

    ledger.enter(entry())
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    ledger.enter(entry())
    assert time.monotonic() - begun < 5
    assert "locked" in warnings[0]
    holder.close()
    assert ledger.spent().requests == 2


def test_entering_a_request_takes_no_time_worth_speaking_of(ledger: Ledger) -> None:
    ledger.enter(entry())
    begun = time.process_time()
    for _ in range(20):
        ledger.enter(entry())
    assert (time.process_time() - begun) / 20 < 0.01


# ---- the table --------------------------------------------------------------------------------------------------


def report(*totals: Total, by: str = "model") -> CostReport:
    return CostReport(totals, by=by, title="Costs by model", notes=["Budget of today: $1 of $5."])  # type: ignore[arg-type]


def test_the_table_has_the_dearest_first_a_total_and_bars_to_scale() -> None:
    cheap = Total("openai mini", 0, 3, 1_000, 0, 50, 0.1, 0)
    dear = Total("anthropic opus", 0, 1, 2_000, 500, 70, 0.4, 0)
    lines = str(report(cheap, dear)).splitlines()
    assert lines[0] == "Costs by model"
    assert lines[2].split()[:2] == ["anthropic", "opus"]
    assert lines[2].count("█") == 4 * lines[3].count("█") == 24
    assert lines[4].split() == ["total", "4", "3,000", "500", "120", "$0.5000"]
    assert lines[5] == "Budget of today: $1 of $5."


def test_a_price_that_nobody_knows_is_said_to_be_unknown_and_never_made_up() -> None:
    unknown = Total("openai m", 0, 2, 100, 0, 5, None, 2)
    partly = Total("openai n", 0, 2, 100, 0, 5, 0.5, 1)
    text = str(report(unknown, partly))
    assert "unknown" in text
    assert "$0.5000 + unknown" in text


def test_without_any_price_the_bars_show_tokens() -> None:
    text = str(report(Total("a b", 0, 1, 100, 0, 0, None, 1), Total("c d", 0, 1, 50, 0, 0, None, 1)))
    assert [line.count("█") for line in text.splitlines() if "█" in line] == [24, 12]


def test_the_notebooks_table_shows_names_as_text() -> None:
    html = report(Total("<script>alert(1)</script>", 0, 1, 1, 0, 1, 0.1, 0))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_an_empty_book_says_so() -> None:
    assert str(report()).startswith("Costs by model: no request yet.")


def test_every_grouping_has_rows_that_can_be_shown(ledger: Ledger) -> None:
    ledger.enter(entry(notebook=str(Path.home() / "n.ipynb")))
    for by in BY:
        assert "$0.25" in str(CostReport(ledger.totals(by), by=by, title="Costs"))
    assert "~/n.ipynb" in str(CostReport(ledger.totals("notebook"), by="notebook", title="Costs"))
