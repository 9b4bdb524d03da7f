"""Hostile output in a real browser: cleaned, stored in a notebook, exported, looked at with every script allowed."""

from __future__ import annotations

import nbformat
import pytest
from nbconvert import HTMLExporter

from sandbox_agent_magic.outputs import OutputCollector, clean_markdown
from sandbox_agent_magic.types import MimeBundle, Output
from tests.support import payloads
from tests.support.browser import CHROMIUM, counting_server, dom_after

pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")]

PWNED = 'data-pwned="1"'


def bundles(address: str) -> list[MimeBundle]:
    """Every payload, aimed at `address`."""
    made: list[MimeBundle] = [{"text/html": html} for html in payloads.HTML.values()]
    made += [{"image/svg+xml": payloads.svg(inner)} for inner in payloads.SVG.values()]
    made += [{"image/svg+xml": document} for document in payloads.SVG_DOCUMENTS.values()]
    made += [{"text/markdown": text} for text in payloads.MARKDOWN.values()]
    made += [{"text/latex": text} for text in payloads.MARKDOWN.values()]
    run = "document.documentElement.setAttribute('data-pwned', '1')"
    made += [{kind: run} for kind in ("application/javascript", "text/javascript")]
    return [{key: str(value).replace(payloads.ADDRESS, address) for key, value in each.items()} for each in made]


def exported(outputs: list[Output], markdown: list[str]) -> str:
    """The notebook's HTML, as nbconvert makes it, without what it loads from elsewhere for itself."""
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.from_dict(output) for output in outputs])
    notebook.cells = [cell, *map(nbformat.v4.new_markdown_cell, markdown)]
    exporter = HTMLExporter(mathjax_url="", require_js_url="", mermaid_js_url="", jquery_url="")
    return str(exporter.from_notebook_node(notebook)[0])


def test_the_browser_runs_and_loads_what_was_not_cleaned() -> None:
    """Otherwise the next test would prove nothing."""
    with counting_server() as server:
        raw: list[Output] = [
            {
                "output_type": "display_data",
                "data": {"text/html": html.replace(payloads.ADDRESS, server.address)},
                "metadata": {},
            }
            for html in (payloads.HTML["an event handler"], payloads.HTML["a picture from elsewhere"])
        ]
        assert PWNED in dom_after(exported(raw, []))
        assert server.requests


def test_nothing_cleaned_runs_or_loads_in_a_browser() -> None:
    with counting_server() as server:
        collector = OutputCollector(lambda _: None)
        for data in bundles(server.address):
            collector.add({"output_type": "display_data", "data": {**data, "text/plain": "plain"}, "metadata": {}})
        outputs = list(collector.finish())
        assert sum(output["output_type"] == "display_data" for output in outputs) > 80
        answers = [
            clean_markdown(text.replace(payloads.ADDRESS, server.address)) for text in payloads.MARKDOWN.values()
        ]
        page = dom_after(exported(outputs, answers))
        assert "plain" in page
        assert PWNED not in page
        assert server.requests == []
