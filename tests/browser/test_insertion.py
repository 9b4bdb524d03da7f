"""Cells appear in the open notebook while the agent works, and everything else stays as the reader has it."""

from __future__ import annotations

import time

import nbformat
import pytest

from tests.browser.conftest import SCREENSHOTS, Open
from tests.support.jupyter import Server
from tests.support.scripted_notebook import LOAD, PICTURE, TABLE, agent, answer, step, waiting, write_notebook

pytestmark = pytest.mark.integration

THREE = [
    step("1/0"),
    step(TABLE),
    step(waiting("go") + PICTURE),
    answer("It **rises**."),
]


def first_lines(cells: list[nbformat.NotebookNode]) -> list[str]:
    return [cell.source.splitlines()[-1] for cell in cells]


def test_each_step_appears_when_it_has_finished_then_the_answer(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(any_server, LOAD, agent("three"), "'below'", scripts={"three": THREE})
    page.run(0)
    page.run(1, wait=False)
    before = page.wait_for_cells(4)
    assert [cell.source.splitlines()[0] for cell in before[1:]] == [
        before[1].source.splitlines()[0],
        "%%sandbox",
        "'below'",
    ]
    assert page.is_running(1)
    table = before[2]
    assert [output.output_type for output in table.outputs] == ["stream", "execute_result"]
    assert table.execution_count == table.outputs[1].execution_count == 2
    page.screenshot(SCREENSHOTS, f"while-it-works-{any_server.name}")

    page.touch("go")
    page.wait_until_idle()
    cells = page.cells()
    assert [cell.cell_type for cell in cells] == ["code", "code", "code", "code", "markdown", "code"]
    assert cells[3].outputs[0].data["image/png"]
    assert cells[4].source == "It **rises**."
    assert [output.output_type for output in cells[1].outputs] == ["display_data"]  # the progress area, nothing else
    page.screenshot(SCREENSHOTS, f"done-{any_server.name}")
    assert page.shown(4) == "It rises."

    saved = page.save()
    nbformat.validate(saved)
    assert [cell.id for cell in saved.cells] == [cell.id for cell in cells]


def test_the_reader_goes_on_typing_in_the_same_place(any_server: Server, open_notebook: Open) -> None:
    steps = [step(waiting("one") + "1"), step(waiting("two") + "print('x\\n' * 30)"), answer("Done.")]
    fillers = [f"# cell {number}\n#\n#" for number in range(30)]
    page = open_notebook(any_server, LOAD, agent("two"), *fillers, scripts={"two": steps})
    page.run(0)
    page.run(1, wait=False)
    page.click_into(12)
    page.page.keyboard.type("before ")
    before = page.view()
    assert (before["mode"], before["focused"]) == ("edit", True)
    page.touch("one")
    page.wait_for_cells(33)
    page.page.keyboard.type("between ")
    page.touch("two")
    page.wait_for_cells(35)
    page.page.keyboard.type("after")
    page.wait_until_idle()
    time.sleep(0.5)  # what scrolls late has scrolled by now
    after = page.view()
    assert page.sources()[15] == "# cell 10\n#\n#before between after"
    assert after["active"] == before["active"]
    assert (after["mode"], after["focused"], after["selected"]) == ("edit", True, before["selected"])
    assert after["cursor"]["column"] == before["cursor"]["column"] + len("between after")
    assert abs(after["top"] - before["top"]) <= 2


def test_what_the_reader_reads_further_down_stays_where_it_is(any_server: Server, open_notebook: Open) -> None:
    steps = [step(waiting("one") + "print('x\\n' * 30)"), step(waiting("two") + "2"), answer("Done.")]
    fillers = [f"# cell {number}\n" + "#\n" * 8 for number in range(30)]
    page = open_notebook(any_server, LOAD, agent("s"), *fillers, scripts={"s": steps})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for(lambda: page.is_running(1))
    name = page.cells()[20].id
    where = "return Math.round(content.widgets.find(w => w.model.id === argument).node.getBoundingClientRect().top)"

    def is_in_view() -> bool:
        """Scroll there; the page may still be on its way to the cell that has just been run."""
        page.evaluate("content.widgets[20].node.scrollIntoView()")
        time.sleep(1)
        return 0 <= page.evaluate(where, name) < 700

    page.wait_for(is_in_view)
    before = page.evaluate(where, name)
    for count, file in enumerate(("one", "two"), 33):
        page.touch(file)
        page.wait_for_cells(count)
    page.wait_until_idle()
    time.sleep(0.5)
    assert abs(page.evaluate(where, name) - before) <= 2


def test_the_readers_selection_stays(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(
        lab, LOAD, agent("two"), *"abcde", scripts={"two": [step(waiting("go") + "1"), answer("Done.")]}
    )
    page.run(0)
    page.run(1, wait=False)
    page.evaluate("content.activeCellIndex = 3; content.mode = 'command'; content.extendContiguousSelectionTo(5)")
    before = page.view()
    assert len(before["selected"]) == 3
    page.touch("go")
    page.wait_for_cells(9)
    page.wait_until_idle()
    after = page.view()
    assert (after["selected"], after["active"], after["mode"]) == (before["selected"], before["active"], "command")


def test_cells_that_the_reader_adds_moves_and_deletes_meanwhile_are_respected(lab: Server, open_notebook: Open) -> None:
    steps = [
        step("1"),
        step(waiting("two") + "2"),
        step(waiting("three") + "3"),
        step(waiting("four") + "4"),
        answer("End."),
    ]
    page = open_notebook(lab, LOAD, agent("four"), "'below'", scripts={"four": steps})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(4)
    page.insert_cell(0, "'above all'")
    page.insert_cell(4, "'after one'")
    page.touch("two")
    page.wait_for_cells(7)
    assert first_lines(page.cells()) == ["'above all'", LOAD, "Work.", "1", "2", "'after one'", "'below'"]
    page.move_cell(3, 6)  # the first step, to the end
    page.touch("three")
    page.wait_for_cells(8)
    deleted = page.cells()[3]
    assert deleted.source.endswith("2")
    page.delete_cell(3)
    page.touch("four")
    page.wait_until_idle()
    assert deleted.id not in [cell.id for cell in page.cells()]
    assert first_lines(page.cells()) == [
        *("'above all'", LOAD, "Work.", "'after one'", "'below'", "1"),
        *("3", "4", "End."),
    ]


def test_several_agent_cells_under_run_all_keep_their_order(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(
        any_server,
        LOAD,
        agent("a"),
        "'between'",
        agent("b"),
        "'last'",
        scripts={"a": [step("'a1'"), step("'a2'"), answer("A.")], "b": [step("'b1'"), answer("B.")]},
    )
    page.run_all()
    assert first_lines(page.cells()) == [
        *(LOAD, "Work.", "'a1'", "'a2'", "A.", "'between'"),
        *("Work.", "'b1'", "B.", "'last'"),
    ]
    assert page.cells()[5].outputs[0].data["text/plain"] == "'between'"


def test_two_tabs_on_one_notebook_do_not_insert_twice(notebook7: Server, open_notebook: Open) -> None:
    first = open_notebook(notebook7, LOAD, agent("one"), scripts={"one": [step("'step'"), answer("Done.")]})
    second = open_notebook(notebook7, name=first.name, again=True)
    first.run(0)
    first.run(1)
    second.wait_until_idle()
    time.sleep(0.5)
    assert first_lines(first.cells()) == [LOAD, "Work.", "'step'", "Done."]
    assert first_lines(second.cells()) == [LOAD, "Work."]
    first.save()
    second.evaluate("await panel.context.revert()")
    second.reload()
    time.sleep(0.5)
    assert first_lines(second.cells()) == [LOAD, "Work.", "'step'", "Done."]


def test_a_second_notebook_on_the_page_is_not_touched(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("one"), scripts={"one": [step("'step'"), answer("Done.")]})
    write_notebook(lab.folder, "other.ipynb", LOAD, agent("one"))
    page.evaluate("""
        const kernel = {id: panel.sessionContext.session.kernel.id};
        const other = await app.commands.execute('docmanager:open', {path: 'other.ipynb', kernel});
        await other.context.ready;
        await other.sessionContext.ready;
    """)
    page.run(0)
    page.run(1)
    page.wait_for_cells(4)
    kernels = "return [...app.shell.widgets('main')].map(w => w.sessionContext?.session?.kernel?.id)"
    assert len(set(page.evaluate(kernels))) == 1
    page.name, name = "other.ipynb", page.name
    assert first_lines(page.cells()) == [LOAD, "Work."]
    page.name = name
    assert first_lines(page.cells()) == [LOAD, "Work.", "'step'", "Done."]
