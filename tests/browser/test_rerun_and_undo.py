"""A run again replaces what the reader has not edited; one undo takes a whole run back."""

from __future__ import annotations

import pytest

from tests.browser.conftest import SCREENSHOTS, Open
from tests.support.jupyter import Server
from tests.support.notebook_page import NotebookPage
from tests.support.scripted_notebook import LOAD, agent, answer, step, waiting

pytestmark = pytest.mark.integration

COUNT = "import glob, time\nopen(f'ran-{time.time_ns()}', 'w').close()\nlen(glob.glob('ran-*'))"
"""Says how often it has run in this sandbox's folder."""
TWO = [step("'one'"), step("'two'"), answer("Done.")]
ALL = [LOAD, "Work.", "'one'", "'two'", "Done.", "'below'"]


def shown(page: NotebookPage) -> list[str]:
    return [source.splitlines()[-1] for source in page.sources()]


def runs(page: NotebookPage) -> set[str]:
    """The runs that the notebook's cells are of."""
    return {cell.metadata.sandbox_agent.run for cell in page.cells() if "sandbox_agent" in cell.metadata}


def ids(page: NotebookPage) -> list[str]:
    return [cell.id for cell in page.cells()]


def test_running_again_replaces_the_cells(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(any_server, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    first = ids(page)
    page.run(1)
    assert shown(page) == ALL
    assert not set(ids(page)[2:5]) & set(first)
    assert len(runs(page)) == 1


def test_the_earlier_cells_are_gone_as_soon_as_the_cell_runs_again(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(
        lab, LOAD, agent("s"), "'below'", scripts={"s": 2 * [step(waiting("go") + "'one'"), answer("Done.")]}
    )
    page.run(0)
    page.run(1, wait=False)
    page.touch("go")
    page.wait_until_idle()
    page.run(1, wait=False)
    page.wait_for(lambda: shown(page) == [LOAD, "Work.", "'below'"])
    assert page.is_running(1)
    page.touch("go")
    page.wait_until_idle()
    assert shown(page) == [LOAD, "Work.", "'one'", "Done.", "'below'"]


def test_a_run_that_inserts_nothing_replaces_the_cells_too(lab: Server, open_notebook: Open) -> None:
    inline = "import os; os.environ['AGENT_INSERT'] = 'inline'"
    page = open_notebook(lab, LOAD, inline, agent("s"), "'below'", scripts={"s": 2 * TWO})
    page.run(0)
    page.run(2)
    assert shown(page) == [LOAD, inline, "Work.", "'one'", "'two'", "Done.", "'below'"]
    page.run(1)
    page.run(2)
    assert shown(page) == [LOAD, inline, "Work.", "'below'"]


def test_a_mistake_in_the_line_replaces_nothing(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    before = ids(page)
    page.set_source(1, agent("s", "--no-such-option"))
    page.run(1)
    assert page.cells()[1].outputs[0].output_type == "error"
    assert ids(page) == before


def test_an_edited_cell_stays_and_is_marked_as_detached(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(any_server, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    edited = page.cells()[2].id
    page.set_source(2, "%%sandbox\n'one, as I like it'")
    page.run(1)
    assert shown(page) == [*ALL[:5], "'one, as I like it'", "'below'"]
    kept = page.cells()[5]
    assert kept.id == edited
    assert kept.metadata.sandbox_agent.detached is True
    assert "agent_cell" not in kept.metadata.sandbox_agent
    page.run(1)
    assert shown(page) == [*ALL[:5], "'one, as I like it'", "'below'"]


def test_a_copy_that_the_reader_made_stays(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    page.evaluate("content.deselectAll(); content.activeCellIndex = 2")
    page.command("notebook:copy-cell")
    page.evaluate("content.activeCellIndex = 5")
    page.command("notebook:paste-cell-below")
    page.run(1)
    assert shown(page) == [*ALL, "'one'"]


@pytest.mark.parametrize("restart", [False, True], ids=["run all", "restart and run all"])
def test_under_run_all_a_replaced_cell_that_was_queued_does_nothing_and_says_so(
    restart: bool, lab: Server, open_notebook: Open
) -> None:
    page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": 2 * [step(COUNT), answer("Done.")]})
    page.run_all()
    assert page.cells()[2].outputs[0].data["text/plain"] == "1"
    if restart:
        page.evaluate("await panel.sessionContext.session.kernel.restart()")
    page.hear()
    page.run_all()
    cells = page.cells()
    assert shown(page) == [LOAD, "Work.", COUNT.splitlines()[-1], "Done.", "'below'"]
    assert cells[2].outputs[0].data["text/plain"] == "2"
    assert cells[4].outputs[0].data["text/plain"] == "'below'"
    said = "Nothing was run: the agent cell that made this cell has run again and replaced it.\n"
    assert page.heard().count(said) == 1
    page.run(2)
    assert page.cells()[2].outputs[0].data["text/plain"] == "3"  # the new one does run


def test_one_undo_takes_a_whole_run_back_and_redo_brings_it_again(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(any_server, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    finished = page.cells()[2:5]
    page.command("notebook:undo-cell-action")
    assert shown(page) == [LOAD, "Work.", "'below'"]
    page.command("notebook:redo-cell-action")
    assert shown(page) == ALL
    assert [(cell.id, cell.get("outputs")) for cell in page.cells()[2:5]] == [
        (cell.id, cell.get("outputs")) for cell in finished
    ]
    page.command("notebook:undo-cell-action")
    page.save()
    page.reload()
    page.page.wait_for_timeout(700)
    assert shown(page) == [LOAD, "Work.", "'below'"]  # and it is not offered again


def test_the_key_z_undoes_a_run_too(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    page.evaluate("content.mode = 'command'; content.node.focus(); content.activeCell.node.focus()")
    page.page.keyboard.press("z")
    page.wait_for(lambda: shown(page) == [LOAD, "Work.", "'below'"])


def test_one_undo_is_enough_whatever_the_reader_did_in_between(lab: Server, open_notebook: Open) -> None:
    steps = [step("'one'"), step(waiting("two") + "'two'"), step(waiting("three") + "'three'"), answer("Done.")]
    page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": steps})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(4)
    page.insert_cell(0, "'mine'")
    page.touch("two")
    page.wait_for_cells(6)
    page.insert_cell(1, "'mine too'")
    page.touch("three")
    page.wait_until_idle()
    assert shown(page) == ["'mine'", "'mine too'", LOAD, "Work.", "'one'", "'two'", "'three'", "Done.", "'below'"]
    page.command("notebook:undo-cell-action")
    assert shown(page) == ["'mine'", "'mine too'", LOAD, "Work.", "'below'"]
    page.command("notebook:redo-cell-action")
    assert shown(page) == ["'mine'", "'mine too'", LOAD, "Work.", "'one'", "'two'", "'three'", "Done.", "'below'"]
    page.command("notebook:undo-cell-action")
    page.command("notebook:undo-cell-action")
    assert shown(page) == ["'mine'", LOAD, "Work.", "'below'"]


def test_undo_of_a_second_run_brings_the_first_ones_cells_back_and_they_run(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    first = ids(page)
    page.run(1)
    page.command("notebook:undo-cell-action")
    assert ids(page) == first
    page.page.wait_for_timeout(5_000)  # a request as old as the run itself would be one of Run All
    page.run(2)
    assert page.cells()[2].outputs[0].data["text/plain"] == "'one'"
    page.run(1)
    assert shown(page) == ALL


def test_agent_undo_removes_the_last_run_in_one_step(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(any_server, LOAD, agent("s"), "%agent undo", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    page.run(5)
    assert shown(page) == [LOAD, "Work.", "%agent undo"]
    assert page.cells()[2].outputs[0].data["text/plain"] == "Removed 3 cells of the last run."
    page.screenshot(SCREENSHOTS, f"agent-undo-{any_server.name}")
    page.command("notebook:undo-cell-action")
    assert shown(page) == [*ALL[:5], "%agent undo"]
    page.run(5)
    assert "no run whose cells" in page.cells()[5].outputs[0].evalue


def test_agent_undo_leaves_what_the_reader_edited(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), "%agent undo", scripts={"s": 3 * TWO})
    page.run(0)
    page.run(1)
    page.set_source(3, "%%sandbox\n'mine'")
    page.run(5)
    assert shown(page) == [LOAD, "Work.", "'mine'", "%agent undo"]
    assert page.cells()[3].outputs[0].data["text/plain"] == "Removed 2 cells of the last run. 1 that you edited stayed."


def test_agent_undo_says_what_to_do_where_no_page_listens(lab: Server, open_notebook: Open) -> None:
    lab.enable_module(False)
    try:
        page = open_notebook(lab, LOAD, agent("s"), "%agent undo", scripts={"s": 3 * TWO})
    finally:
        lab.enable_module(True)
    page.run(0)
    page.run(1)
    page.run(2)
    assert "delete the 3 cells" in page.shown(2)


def test_one_undo_is_one_run_where_undo_is_for_the_whole_document(lab: Server, open_notebook: Open) -> None:
    settings = {"documentWideUndoRedo": True}
    lab.set("@jupyterlab/notebook-extension/tracker", settings)
    try:
        steps = [step("'one'"), step(waiting("go") + "'two'"), answer("Done.")]
        page = open_notebook(lab, LOAD, agent("s"), "'below'", scripts={"s": steps})
    finally:
        lab.set("@jupyterlab/notebook-extension/tracker", {})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(4)
    page.click_into(3)
    page.page.keyboard.type(" # mine")
    page.touch("go")
    page.wait_until_idle()
    assert shown(page) == [LOAD, "Work.", "'one'", "'two'", "Done.", "'below' # mine"]
    page.command("notebook:undo-cell-action")
    assert shown(page) == [LOAD, "Work.", "'below' # mine"]
    page.command("notebook:redo-cell-action")
    assert shown(page) == [LOAD, "Work.", "'one'", "'two'", "Done.", "'below' # mine"]
