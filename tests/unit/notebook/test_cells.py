"""Cells: which ones a run leaves, what stands in them, and that nbformat accepts them."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from sandbox_agent_magic.errors import NotebookWriteError
from sandbox_agent_magic.notebook.cells import CellPlan, clean_markdown, fenced
from sandbox_agent_magic.notebook.expand import drop_earlier, expand
from sandbox_agent_magic.notebook.files import read_notebook, write_notebook
from sandbox_agent_magic.notebook.publish import CellPublisher
from sandbox_agent_magic.outputs import CELLS_MIMETYPE
from sandbox_agent_magic.types import (
    JSON,
    ErrorInfo,
    ExecutionResult,
    KeepPolicy,
    NotebookCell,
    Output,
    RunResult,
    Step,
    Usage,
)

PICTURE: Output = {
    "output_type": "display_data",
    "data": {"image/png": "iVBORw0KGgo=", "text/plain": "f"},
    "metadata": {},
}
ERROR: Output = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}
FAILED = Step(1, "x = 3\n1/0", ExecutionResult("error", (ERROR,), 1, ErrorInfo("E", "v")))
WORKED = Step(2, "print(x)", ExecutionResult("ok", ({"output_type": "stream", "name": "stdout", "text": "3\n"},), 2))
ALONE = Step(3, "y = 1", ExecutionResult("ok", (PICTURE,), 3), usage=Usage(10, 2, 3, 0.5))


def sources(keep: KeepPolicy, *steps: Step) -> list[str]:
    plan = CellPlan("run", keep=keep, cell_magic="%%sandbox", provenance={})
    cells = [cell for step in steps for cell in plan.step(step)]
    cells += plan.finish(RunResult("completed", "The answer.", steps))
    return [cell["source"] for cell in cells]


def published(*cells: NotebookCell) -> nbformat.NotebookNode:
    """A notebook whose agent cell has published `cells`, as a headless run stores it."""
    outputs: list[nbformat.NotebookNode] = []

    def publish(bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        stored = json.loads(json.dumps({"data": bundle, "metadata": metadata}))
        outputs.append(nbformat.v4.new_output("display_data", **stored))

    publisher = CellPublisher(publish, run_id="run", anchor=None)
    for cell in cells:
        publisher.add(cell)
    outputs.append(nbformat.v4.new_output("display_data", data={"text/plain": "Done"}))
    agent = nbformat.v4.new_code_cell("%%agent\nDo it.", outputs=outputs)
    return nbformat.v4.new_notebook(cells=[agent, nbformat.v4.new_code_cell("after")])


def cells_of(*steps: Step) -> list[NotebookCell]:
    plan = CellPlan("run", keep="ok", cell_magic="%%sandbox", provenance={"provider": "p", "model": "m"})
    made = [cell for step in steps for cell in plan.step(step)]
    return made + plan.finish(RunResult("completed", "Answer.", steps))


def test_keep_ok_leaves_failed_steps_out() -> None:
    assert sources("ok", FAILED, ALONE) == ["%%sandbox\ny = 1", "The answer."]


def test_keep_ok_inserts_a_failed_step_that_a_kept_one_needs_before_it() -> None:
    assert sources("ok", FAILED, WORKED) == ["%%sandbox\nx = 3\n1/0", "%%sandbox\nprint(x)", "The answer."]


def test_keep_all_inserts_everything_in_order() -> None:
    assert len(sources("all", FAILED, WORKED, ALONE)) == 4


def test_keep_final_inserts_the_last_that_worked_with_what_it_needs() -> None:
    assert sources("final", FAILED, ALONE, WORKED)[:-1] == ["%%sandbox\nx = 3\n1/0", "%%sandbox\nprint(x)"]
    assert sources("final", FAILED, WORKED, ALONE)[:-1] == ["%%sandbox\ny = 1"]


def test_a_failed_cell_that_is_kept_may_fail_again() -> None:
    plan = CellPlan("run", keep="all", cell_magic="", provenance={})
    assert plan.step(FAILED)[0]["metadata"]["tags"] == ["raises-exception"]


def test_code_of_the_readers_own_kernel_is_inserted_bare() -> None:
    plan = CellPlan("run", keep="ok", cell_magic="", provenance={})
    assert plan.step(ALONE)[0]["source"] == "y = 1"


def test_every_cell_says_where_it_came_from() -> None:
    note = cells_of(ALONE)[0]["metadata"]["sandbox_agent"]
    assert isinstance(note, dict)
    assert (note["run"], note["step"], note["provider"], note["model"]) == ("run", 3, "p", "m")
    assert note["usage"] == {"input_tokens": 10, "cached_tokens": 2, "output_tokens": 3, "cost_usd": 0.5}


def test_a_small_models_answer_is_labelled() -> None:
    plan = CellPlan("run", keep="ok", cell_magic="", provenance={})
    (cell,) = plan.finish(RunResult("completed", "42", label="may be wrong"))
    assert cell["source"] == "42\n\n*(may be wrong)*"


def test_the_models_markdown_loses_html_and_pictures_from_elsewhere() -> None:
    text = clean_markdown("a < b <script>x</script> ![p](http://evil/?d=1) <img src=x> <!-- c -->")
    assert "<script" not in text
    assert "<img" not in text
    assert "![" not in text
    assert "a < b" in text


def test_no_line_of_code_closes_its_fence() -> None:
    assert fenced("````\nx").splitlines()[0] == "`````"


def test_expanding_gives_a_valid_notebook_with_the_cells_below_the_agent_cell() -> None:
    notebook = expand(published(*cells_of(WORKED, ALONE)))
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells] == [
        "%%agent\nDo it.",
        "%%sandbox\nprint(x)",
        "%%sandbox\ny = 1",
        "Answer.",
        "after",
    ]
    assert notebook.cells[1].outputs[0].text == "3\n"
    assert notebook.cells[2].outputs[0].data["image/png"]
    assert [output.data["text/plain"] for output in notebook.cells[0].outputs] == ["Done"]


def test_expanding_twice_changes_nothing() -> None:
    notebook = published(*cells_of(ALONE))
    again = published(*cells_of(ALONE))
    once = expand(notebook)
    stored = nbformat.writes(once)
    assert nbformat.writes(expand(once)) == stored
    assert len(again.cells) == 2


def test_a_cell_that_the_reader_deleted_stays_deleted() -> None:
    notebook = published(*cells_of(ALONE))
    outputs = list(notebook.cells[0].outputs)
    expand(notebook)
    del notebook.cells[1]
    notebook.cells[0].outputs = outputs  # the page was reloaded: the outputs are offered again
    expand(notebook)
    assert [cell.source for cell in notebook.cells] == ["%%agent\nDo it.", "Answer.", "after"]


def test_running_again_drops_earlier_cells_but_not_edited_ones() -> None:
    notebook = expand(published(*cells_of(WORKED, ALONE)))
    notebook.cells[1].source += "  # mine"
    drop_earlier(notebook)
    assert [cell.source for cell in notebook.cells] == ["%%agent\nDo it.", "%%sandbox\nprint(x)  # mine", "after"]


def test_a_forged_payload_is_left_out() -> None:
    notebook = published()
    for payload in (3, {"cells": 3}, {"cells": [{"cell_type": "code"}, 7, {"id": 3}]}):
        output = nbformat.v4.new_output("display_data", data={CELLS_MIMETYPE: payload})
        notebook.cells[0].outputs.append(output)
    expand(notebook)
    assert len(notebook.cells) == 2


def test_an_old_notebook_gets_ids(tmp_path: Path) -> None:
    old = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 2}
    cell = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": None}
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps({**old, "cells": [cell]}))
    notebook = read_notebook(path)
    write_notebook(notebook, tmp_path / "new.ipynb")
    assert nbformat.read(tmp_path / "new.ipynb", 4).cells[0].id


def test_a_file_that_is_no_notebook_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_text("{}")
    with pytest.raises(NotebookWriteError, match="not a notebook"):
        read_notebook(tmp_path / "x.ipynb")
    with pytest.raises(NotebookWriteError, match="No such file"):
        read_notebook(tmp_path / "missing.ipynb")
