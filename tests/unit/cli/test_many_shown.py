"""The bar, the lines and the table of many notebooks."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sandbox_agent_magic.cli.many.plan import Job
from sandbox_agent_magic.cli.many.pool import Run, Status
from sandbox_agent_magic.cli.many.progress import Progress
from sandbox_agent_magic.cli.many.table import table
from sandbox_agent_magic.cli.words import clock, columns, cost_of, fit, one_line, padded
from sandbox_agent_magic.notebook.record import RunRecord, Spent

EARLIER = RunRecord("completed", "a.ipynb", "", "", "2026-11-24T13:40:00+00:00", 1.0, Spent())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


def made(name: str, status: Status = "waiting", problem: str = "", spent: Spent | None = None) -> Run:
    job = Job(Path(name), Path(f"{name}-run"), None, "", EARLIER)
    run = Run(job, status, problem, spent=spent or Spent())
    if status not in ("waiting", "skipped", "not started"):
        run.began, run.duration_s, run.written = 1.0, 65.0, job.target
    return run


def progress(*runs: Run, out: io.StringIO | None = None) -> tuple[Progress, io.StringIO, list[float]]:
    now = [100.0]
    shown = out if out is not None else Terminal()
    return Progress(runs, shown, clock=lambda: now[0]), shown, now


def test_the_bar_says_where_it_all_stands() -> None:
    going = made("alice/demo.ipynb", "running", spent=Spent(10, 0.02))
    going.cell, going.cells, going.doing = 3, 7, "waiting"
    runs = [*(made(f"{n}", "completed", spent=Spent(1, 0.05)) for n in range(2)), going]
    runs += [made("x", "failed"), *(made(f"w{n}") for n in range(8))]
    view, _, now = progress(*runs)
    now[0] += 221
    assert view.bar == "[ 3/12] ###.........  1 running  1 failed  $0.1200  3:41  alice/demo.ipynb 3/7 waiting"


def test_the_bar_is_drawn_below_the_lines_fits_the_terminal_and_goes_away() -> None:
    run = made("a" * 200, "running")
    view, out, _ = progress(run, made("b"))
    view.tick()
    view.tick()  # nothing has changed
    assert out.getvalue().count("\r\x1b[K") == 1
    assert len(out.getvalue().removeprefix("\r\x1b[K")) == 79
    view.say("A line.")
    assert "\r\x1b[KA line.\n\r\x1b[K[0/2]" in out.getvalue()
    view.close()
    assert out.getvalue().endswith("\r\x1b[K")


def test_without_a_terminal_there_are_lines_and_now_and_then_a_sign_of_life() -> None:
    run = made("a", "running")
    view, out, now = progress(run, made("b"), out=io.StringIO())
    for _ in range(130):
        now[0] += 1
        view.tick()
    assert out.getvalue().splitlines() == [
        "[0/2] ............  1 running  1:00  a",
        "[0/2] ............  1 running  2:00  a",
    ]


def test_the_reason_why_many_are_not_started_is_told_once() -> None:
    runs = [made(name, "not started", "The budget is used up.") for name in "abc"]
    view, out, _ = progress(*runs, out=io.StringIO())
    for run in runs:
        view.ended(run)
    assert out.getvalue() == "[3/3] a: not started. The budget is used up.\n"


def test_the_table_has_a_row_for_each_and_the_reasons_below() -> None:
    runs = [
        made("a.ipynb", "completed", spent=Spent(1234, 0.0125)),
        made("b.ipynb", "failed", "It broke.", Spent(5, None, 1)),
        made("c.ipynb", "skipped"),
        made("d.ipynb", "not started", "No money."),
        made("e.ipynb", "not started", "No money."),
    ]
    assert table(runs, duration_s=3725, width=None).splitlines() == [
        "notebook     status          time  tokens               cost  written to",
        "a.ipynb      completed       1:05   1,234            $0.0125  a.ipynb-run",
        "b.ipynb      failed          1:05       5            unknown  b.ipynb-run",
        "c.ipynb      skipped            -       -                  -  -",
        "d.ipynb      not started        -       -                  -  -",
        "e.ipynb      not started        -       -                  -  -",
        "5 notebooks  2 done       1:02:05   1,239  $0.0125 + unknown",
        "",
        "b.ipynb: It broke.",
        "d.ipynb and 1 more: No money.",
    ]


@pytest.mark.parametrize("name", ["x" * 100, "数据" * 30, "数" * 13 + ".ipynb"])
def test_the_table_fits_the_terminal_and_its_columns_stay_straight(name: str) -> None:
    lines = table([made(name, "completed"), made("b", "failed")], duration_s=1, width=80).splitlines()
    assert all(columns(line) <= 80 for line in lines)
    at = columns(lines[0][: lines[0].index("status")])
    assert columns(lines[1][: lines[1].index("completed")]) == at
    assert table([made(name, "completed")], duration_s=1, width=None).count(name) == 2  # a pipe gets it whole


def test_names_cannot_move_the_cursor_nor_turn_the_line_around() -> None:
    assert one_line("a\x1b[2J\nb\u202ec\udcff") == "a\\x1b[2J\\nb\\u202ec\\udcff"


def test_texts_are_cut_and_filled_by_the_columns_that_they_take() -> None:
    assert fit("abcdef", 4) == "abc…"
    assert fit("abcdef", 4, keep_end=True) == "…def"
    assert fit("数据分析", 5) == "数据…"
    assert padded("数", 4) == "数  "
    assert padded("e\u0301", 3, right=True) == "  e\u0301"


def test_amounts_are_told_apart() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 60, 3600)] == ["0:00", "0:59", "1:00", "1:00:00"]
    assert cost_of(Spent()) == "-"
    assert cost_of(Spent(1, 0.0)) == "$0"
    assert cost_of(Spent(1, 0.00001)) == "$0.0000"
    assert cost_of(Spent(1, None, 1)) == "unknown"
