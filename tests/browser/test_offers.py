"""Nothing is lost: what a page has missed is offered again, once, and what the reader deleted stays deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.browser.conftest import Open
from tests.support.jupyter import Server
from tests.support.notebook_page import NotebookPage
from tests.support.scripted_notebook import LOAD, PICTURE, agent, answer, step, waiting

pytestmark = pytest.mark.integration

STEPS = [step("'one'"), step(waiting("go") + "'two'"), step("'three'"), answer("Done.")]
ALL = [LOAD, "Work.", "'one'", "'two'", "'three'", "Done."]


@pytest.fixture
def without_module(lab: Server) -> Iterator[Server]:
    """The same JupyterLab, its pages without our module."""
    lab.enable_module(False)
    yield lab
    lab.enable_module(True)


def shown(page: NotebookPage) -> list[str]:
    return [source.splitlines()[-1] for source in page.sources()]


def test_a_reload_while_the_agent_works_loses_no_cell(any_server: Server, open_notebook: Open) -> None:
    page = open_notebook(any_server, LOAD, agent("s"), scripts={"s": STEPS})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(3)
    page.reload()
    assert shown(page) == ALL[:2]
    page.touch("go")
    page.wait_for_cells(6)
    assert shown(page) == ALL


def test_a_tab_that_was_closed_finds_everything_when_it_comes_back(notebook7: Server, open_notebook: Open) -> None:
    page = open_notebook(notebook7, LOAD, agent("s"), scripts={"s": STEPS})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(3)
    page.save()
    page.close()
    page.touch("go")
    time.sleep(1)
    again = open_notebook(notebook7, name=page.name, again=True)
    again.wait_for_cells(6)
    assert shown(again) == ALL


def test_a_connection_that_broke_meanwhile_loses_no_cell(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), scripts={"s": STEPS})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(3)
    page.expect_errors = True  # the front end says on the console that it lost the connection
    page.evaluate("panel.sessionContext.session.kernel._ws.close()")
    page.touch("go")
    page.wait_for_cells(6)
    assert shown(page) == ALL


def test_without_the_module_all_is_in_the_agent_cell_and_becomes_cells_once_it_is_there(
    without_module: Server, open_notebook: Open
) -> None:
    steps = [step("print('one')"), step(PICTURE), answer("Done.")]
    page = open_notebook(without_module, LOAD, agent("s"), scripts={"s": steps})
    page.run(0)
    page.run(1)
    assert shown(page) == [LOAD, "Work."]
    inside = page.shown(1)
    assert all(text in inside for text in ("print('one')", "import base64", "Done."))
    assert any("image/png" in output.get("data", {}) for output in page.cells()[1].outputs)
    page.save()
    without_module.enable_module(True)
    page.reload()
    page.wait_for_cells(5)
    assert shown(page) == [LOAD, "Work.", "print('one')", PICTURE.splitlines()[-1], "Done."]
    assert len(page.cells()[1].outputs) == 1  # what became cells is not shown twice
    assert page.cells()[3].outputs[0].data["image/png"]


def test_insert_brings_back_what_is_missing_and_nothing_that_the_reader_deleted(
    lab: Server, open_notebook: Open
) -> None:
    steps = [step("'one'"), step("'two'"), answer("Done.")]
    page = open_notebook(lab, LOAD, agent("s"), "%agent insert", scripts={"s": steps})
    page.save()
    page.run(0)
    page.run(1)
    page.evaluate("await panel.context.revert()")  # as if the page had missed them
    assert len(page.cells()) == 3
    page.run(2)
    assert shown(page)[:5] == [LOAD, "Work.", "'one'", "'two'", "Done."]
    page.delete_cell(3)
    page.run(4)
    assert shown(page) == [LOAD, "Work.", "'one'", "Done.", "%agent insert"]
    assert "Offered 3 cells again" in page.cells()[4].outputs[0].text
    page.save()
    page.reload()
    time.sleep(1)
    assert shown(page) == [LOAD, "Work.", "'one'", "Done.", "%agent insert"]


def test_a_notebook_without_an_agent_asks_the_kernel_for_nothing(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, "1 + 1")
    page.run(0)
    page.evaluate("""
        window.sent = [];
        panel.sessionContext.session.kernel.anyMessage.connect((_, m) => m.direction === 'send' && sent.push(m.msg));
        panel.sessionContext.session.kernel._ws.close();
    """)
    page.expect_errors = True
    time.sleep(2)
    page.wait_until_connected()
    page.run(0, wait=False)
    time.sleep(1)
    sent = page.evaluate("return window.sent.map(m => [m.header.msg_type, m.content.target_name])")
    assert sent
    assert ["comm_info_request", "sandbox_agent"] not in sent


def test_where_inserting_fails_the_output_stays_in_the_agent_cell(lab: Server, open_notebook: Open) -> None:
    page = open_notebook(lab, LOAD, agent("s"), scripts={"s": [step("print('one')"), step(PICTURE), answer("Done.")]})
    page.run(0)
    page.evaluate("content.model.sharedModel.insertCells = () => { throw new Error('full') }")
    page.run(1)
    assert shown(page) == [LOAD, "Work."]
    inside = page.shown(1)
    assert all(text in inside for text in ("print('one')", "import base64", "Done."))
    assert any("image/png" in output.get("data", {}) for output in page.cells()[1].outputs)
    assert [error.split(" ")[0] for error in page.errors] == 3 * ["sandbox-agent-magic"]  # it is said, once for each
    page.errors.clear()


def test_where_the_agent_cell_is_gone_its_cells_are_still_to_be_had(lab: Server, open_notebook: Open) -> None:
    steps = [step(waiting("go") + "'one'"), answer("Done.")]
    page = open_notebook(lab, LOAD, agent("s"), "%agent insert", scripts={"s": steps})
    page.run(0)
    page.run(1, wait=False)
    page.wait_for(lambda: page.is_running(1))
    page.delete_cell(1)
    page.touch("go")
    page.run(1)
    assert shown(page) == [LOAD, "%agent insert"]
    assert "'one'" in page.shown(1)
    assert "Done." in page.shown(1)
