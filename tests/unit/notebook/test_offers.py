"""What a kernel keeps of published cells, within which bounds, and which cells count as replaced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sandbox_agent_magic.notebook.cells import source_digest
from sandbox_agent_magic.notebook.offers import CellRequest, KeepingWriter, Offers
from sandbox_agent_magic.types import NotebookCell, RunResult

NOW = datetime.now(UTC)


def cell(name: str, source: str = "1") -> NotebookCell:
    return {"cell_type": "code", "id": name, "source": source, "metadata": {}, "outputs": [], "execution_count": 1}


def kept(offers: Offers) -> dict[str, list[str]]:
    return {run.run_id: [cell["id"] for cell in run.cells] for run in offers.runs()}


def queued(name: str, *, after_s: float, edited: bool = False, sent: bool = True) -> CellRequest:
    """A request for a `%%sandbox` cell, some seconds after the agent cell was asked for."""
    source = "%%sandbox\n1"
    note = {"sandbox_agent": {"source_sha256": source_digest(source)}}
    moment = NOW + timedelta(seconds=after_s) if sent else None
    return CellRequest(name, note, source + " + 1" if edited else source, moment)


@pytest.fixture
def offers() -> Offers:
    """With one finished run of the agent cell A, of two cells."""
    made = Offers()
    made.begin("first", CellRequest("A", sent=NOW))
    for name in ("one", "two"):
        made.keep("first", cell(name))
    return made


def test_the_latest_run_of_each_agent_cell_is_kept(offers: Offers) -> None:
    offers.begin("other", CellRequest("B"))
    offers.keep("other", cell("three"))
    assert kept(offers) == {"first": ["one", "two"], "other": ["three"]}
    offers.begin("second", CellRequest("A"))
    offers.keep("second", cell("four"))
    assert kept(offers) == {"other": ["three"], "second": ["four"]}


def test_a_cell_of_a_run_that_is_over_is_not_kept(offers: Offers) -> None:
    offers.begin("second", CellRequest("A"))
    offers.keep("first", cell("late"))
    assert kept(offers) == {}


def test_the_oldest_runs_go_where_there_are_too_many_cells() -> None:
    offers = Offers(max_cells=3)
    for run in "abc":
        offers.begin(run, CellRequest(f"cell {run}"))
        for number in range(2):
            offers.keep(run, cell(f"{run}{number}"))
    assert kept(offers) == {"c": ["c0", "c1"]}


def test_the_oldest_cells_of_a_long_run_go() -> None:
    offers = Offers(max_cells=2)
    offers.begin("a", CellRequest("A"))
    for number in range(4):
        offers.keep("a", cell(str(number)))
    assert kept(offers) == {"a": ["2", "3"]}


def test_bytes_are_bounded_and_a_cell_above_the_bound_does_not_push_out_the_others() -> None:
    offers = Offers(max_bytes=1_000)
    offers.begin("a", CellRequest("A"))
    offers.keep("a", cell("small"))
    offers.keep("a", cell("huge", "x" * 2_000))
    assert kept(offers) == {"a": ["small"]}
    offers.keep("a", cell("large", "x" * 850))
    assert kept(offers) == {"a": ["large"]}


def test_the_run_that_began_last_is_taken_back_once(offers: Offers) -> None:
    offers.begin("empty", CellRequest("B"))
    taken = offers.take_last()
    assert taken is not None
    assert taken.run_id == "first"
    assert offers.take_last() is None


def test_a_cell_that_was_queued_with_its_agent_cell_is_replaced_when_that_runs_again(offers: Offers) -> None:
    assert not offers.is_replaced(queued("one", after_s=1))
    offers.begin("second", CellRequest("A", sent=NOW))
    assert offers.is_replaced(queued("one", after_s=1))
    assert offers.is_replaced(queued("one", after_s=1, sent=False))
    assert not offers.is_replaced(queued("another", after_s=1))
    assert not offers.is_replaced(queued("one", after_s=1, edited=True))


def test_a_cell_that_the_reader_brought_back_runs(offers: Offers) -> None:
    offers.begin("second", CellRequest("A", sent=NOW))
    assert not offers.is_replaced(queued("one", after_s=24 * 3600))


def test_after_a_restart_the_cells_of_the_earlier_run_are_known_from_the_agent_cell() -> None:
    offers = Offers()
    offers.begin("new", CellRequest("A", {"sandbox_agent_inserted": ["one", 3]}, sent=NOW))
    assert offers.is_replaced(queued("one", after_s=0))


def test_what_is_written_is_kept_before_it_is_published() -> None:
    offers = Offers()
    offers.begin("a", CellRequest("A"))
    seen: list[object] = []

    class Writer:
        def add(self, cell: NotebookCell) -> None:
            seen.append(kept(offers))

        def finish(self, result: RunResult) -> None:
            seen.append(result.status)

    writer = KeepingWriter(Writer(), offers, run_id="a")
    writer.add(cell("one"))
    writer.finish(RunResult("completed", ""))
    assert seen == [{"a": ["one"]}, "completed"]
