"""What the sandbox showed was cleaned, so it is inserted trusted: nothing hostile runs, the reader's trust stays."""

from __future__ import annotations

import json
from collections.abc import Iterator

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.sign import NotebookNotary

from tests.browser.conftest import Open
from tests.support import payloads
from tests.support.browser import Counter, counting_server, dom_after
from tests.support.jupyter import Server
from tests.support.notebook_page import NotebookPage
from tests.support.scripted_notebook import LOAD, agent, answer, step

pytestmark = pytest.mark.integration

SHOW_ALL = """
import json
from IPython.display import display
for bundle in json.load(open('payloads.json')):
    display({**bundle, 'text/plain': 'plain'}, raw=True)
"""
OWN = "from IPython.display import HTML\nHTML('<b>mine</b><script>window.mine = (window.mine || 0) + 1</script>')"
PWNED = 'data-pwned="1"'


@pytest.fixture
def leak() -> Iterator[Counter]:
    """Where the payloads try to go."""
    with counting_server() as server:
        yield server


def bundles(address: str) -> list[dict[str, str]]:
    """Every payload, aimed at `address`."""
    made = [{"text/html": html} for html in payloads.HTML.values()]
    made += [{"image/svg+xml": payloads.svg(inner)} for inner in payloads.SVG.values()]
    made += [{"image/svg+xml": document} for document in payloads.SVG_DOCUMENTS.values()]
    made += [{"text/markdown": text} for text in payloads.MARKDOWN.values()]
    return [{key: value.replace(payloads.ADDRESS, address) for key, value in each.items()} for each in made]


def attack(open_notebook: Open, server: Server, leak: Counter) -> NotebookPage:
    """An agent that shows every payload and says some in its answer; beside it a script of the reader's own."""
    (server.folder / "payloads.json").write_text(json.dumps(bundles(leak.address)))
    said = "\n\n".join(text.replace(payloads.ADDRESS, leak.address) for text in payloads.MARKDOWN.values())
    steps = [step(SHOW_ALL), answer(said)]
    page = open_notebook(server, LOAD, agent("s", "-f payloads.json"), OWN, scripts={"s": steps})
    page.expect_errors = True  # of what does not load
    page.run_all()
    page.wait_for_cells(5)
    return page


def look_at_all(page: NotebookPage) -> None:
    """Scroll through the notebook, so that everything is rendered."""
    for index in range(len(page.cells())):
        page.evaluate("content.widgets[argument].node.scrollIntoView()", index)
        page.page.wait_for_timeout(300)


def is_pwned(page: NotebookPage) -> bool:
    found: bool = page.page.evaluate("document.documentElement.hasAttribute('data-pwned')")
    return found


@pytest.mark.parametrize("name", ["lab", "lab41"])
def test_nothing_hostile_runs_live_nor_after_save_and_reload_nor_in_the_exported_page(
    name: str, request: pytest.FixtureRequest, open_notebook: Open, leak: Counter
) -> None:
    page = attack(open_notebook, request.getfixturevalue(name), leak)
    outputs = page.cells()[2].outputs
    assert sum(output.output_type == "display_data" for output in outputs) > 60
    look_at_all(page)
    assert page.page.evaluate("window.mine") == 1  # scripts do run here: the reader's own did
    assert (is_pwned(page), leak.requests) == (False, [])

    saved = page.save()
    page.reload()
    look_at_all(page)
    assert page.page.evaluate("window.mine") == 1
    assert (is_pwned(page), leak.requests) == (False, [])

    exporter = HTMLExporter(mathjax_url="", require_js_url="", mermaid_js_url="", jquery_url="")
    html = dom_after(exporter.from_notebook_node(saved)[0])
    assert "mine" in html
    assert PWNED not in html
    assert leak.requests == []


def test_the_notebook_stays_signed_and_the_readers_own_output_trusted(lab: Server, open_notebook: Open) -> None:
    table = step("import pandas as pd\npd.DataFrame({'a': [1]})")
    page = open_notebook(lab, LOAD, agent("s"), OWN, scripts={"s": [table, answer("Done.")]})
    page.run_all()
    saved = page.save()
    notary = NotebookNotary(data_dir=lab.environment["JUPYTER_DATA_DIR"])
    assert notary.check_signature(saved)
    assert not any("trusted" in cell.metadata for cell in saved.cells)  # Jupyter keeps that in its signature
    page.reload()
    trusted = page.evaluate(
        "return [...content.model.cells].filter(cell => cell.type === 'code').map(cell => cell.trusted)"
    )
    assert trusted == [True] * 4
    assert page.page.evaluate("window.mine") == 1
    nbformat.validate(saved)


def test_what_is_no_cell_of_ours_is_not_inserted(lab: Server, open_notebook: Open) -> None:
    forged = {
        "version": 1,
        "run": "x",
        "after": "nowhere",
        "cells": [{"cell_type": "raw", "id": "a", "source": "x", "metadata": {}}],
    }
    mime = "application/vnd.sandbox-agent.cells.v1+json"
    show = f"from IPython.display import display\ndisplay({{'{mime}': PAYLOAD, 'text/plain': 'kept'}}, raw=True)"
    here = "{**PAYLOAD, 'after': get_ipython().get_parent()['metadata']['cellId']}"
    page = open_notebook(
        lab, f"PAYLOAD = {forged}", show, show.replace("PAYLOAD", here), show.replace("PAYLOAD", "{'cells': 3}")
    )
    page.run_all()
    assert len(page.cells()) == 4
    assert all(page.shown(index).endswith("kept") for index in (1, 2, 3))
