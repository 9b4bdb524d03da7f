"""Expanding a notebook that ran before: what an earlier run left goes, what is the reader's stays."""

from __future__ import annotations

import copy

import nbformat

from sandbox_agent_magic.notebook.cells import source_digest
from sandbox_agent_magic.notebook.expand import drop_earlier, expand
from sandbox_agent_magic.outputs import CELLS_MIMETYPE


def published(run: str, *sources: str) -> list[nbformat.NotebookNode]:
    """Outputs that carry one cell for each source, as `run` stores them."""
    outputs = []
    for number, source in enumerate(sources):
        note = {"run": run, "source_sha256": source_digest(source)}
        cell = {
            "id": f"{run}-{number}",
            "cell_type": "code",
            "source": source,
            "metadata": {"sandbox_agent": note},
            "outputs": [],
            "execution_count": None,
        }
        data = {CELLS_MIMETYPE: {"version": 1, "run": run, "after": None, "cells": [cell]}}
        outputs.append(nbformat.v4.new_output("display_data", data=data))
    return outputs


def ran(run: str, *sources: str) -> nbformat.NotebookNode:
    """An expanded notebook."""
    agent = nbformat.v4.new_code_cell("%%agent\nDo it.", id="agent", outputs=published(run, *sources))
    cells = [agent, nbformat.v4.new_code_cell("after", id="after")]
    return expand(nbformat.v4.new_notebook(cells=cells))


def run_again(notebook: nbformat.NotebookNode, run: str, *sources: str) -> nbformat.NotebookNode:
    """As a tool that knows nothing of us would: every cell runs, the agent cell publishes anew."""
    notebook.cells[0].outputs = published(run, *sources)
    return expand(notebook)


def sources_of(notebook: nbformat.NotebookNode) -> list[str]:
    nbformat.validate(notebook)
    return [cell.source for cell in notebook.cells]


def test_what_an_earlier_run_left_is_replaced_even_if_nobody_dropped_it_before() -> None:
    notebook = run_again(ran("first", "a", "b"), "second", "c")
    assert sources_of(notebook) == ["%%agent\nDo it.", "c", "after"]
    assert sources_of(run_again(notebook, "third", "d")) == ["%%agent\nDo it.", "d", "after"]


def test_a_cell_that_was_edited_stays_and_belongs_to_no_agent_cell_any_more() -> None:
    for again in (lambda n: run_again(n, "second", "c"), drop_earlier):
        notebook = ran("first", "a", "b")
        notebook.cells[1].source = "a  # mine"
        again(notebook)
        mine = next(cell for cell in notebook.cells if cell.source == "a  # mine")
        assert mine.metadata.sandbox_agent.detached is True
        assert "agent_cell" not in mine.metadata.sandbox_agent
        assert "b" not in sources_of(notebook)
        mine.source = "a"  # as it was, but detached is detached
        assert "a" in sources_of(run_again(notebook, "third", "d"))


def test_a_copy_that_the_reader_made_stays_as_it_is() -> None:
    notebook = ran("first", "a")
    copied = copy.deepcopy(notebook.cells[1])
    copied.id = "copied"
    notebook.cells.append(copied)
    assert sources_of(drop_earlier(notebook)) == ["%%agent\nDo it.", "after", "a"]
    assert "detached" not in notebook.cells[2].metadata.sandbox_agent


def test_cells_that_a_page_did_not_take_go_below_those_that_it_did() -> None:
    notebook = ran("first", "a")
    notebook.cells[0].outputs = published("first", "a", "b")
    assert sources_of(expand(notebook)) == ["%%agent\nDo it.", "a", "b", "after"]


def test_a_cell_that_is_offered_twice_is_inserted_once() -> None:
    notebook = ran("first")
    notebook.cells[0].outputs = published("first", "a") * 2
    assert sources_of(expand(notebook)) == ["%%agent\nDo it.", "a", "after"]


def test_an_agent_cell_that_did_not_run_keeps_its_cells() -> None:
    notebook = ran("first", "a")
    assert sources_of(expand(notebook)) == ["%%agent\nDo it.", "a", "after"]


def test_metadata_of_any_shape_is_survived() -> None:
    for note in (None, 3, "x", [], {}, {"agent_cell": []}, {"agent_cell": "agent", "run": []}):
        notebook = ran("first", "a")
        notebook.cells[2].metadata.sandbox_agent = note
        notebook.cells[2].metadata.sandbox_agent_inserted = note
        notebook.cells[0].metadata.sandbox_agent_inserted = note
        assert "after" in sources_of(run_again(notebook, "second", "c"))
        assert "after" in sources_of(drop_earlier(notebook))
