"""Cells appear in the open notebook while the agent works, and everything else stays as the reader has it."""

from __future__ import annotations

import nbformat
import pytest

from tests.browser.conftest import SCREENSHOTS, Open
from tests.support.jupyter import Server

pytestmark = pytest.mark.integration

WAIT_FOR = "import os, time\nwhile not os.path.exists({name!r}): time.sleep(0.02)\nos.remove({name!r})\n"
"""Code that waits for a file, so that a test says when a step ends."""

THREE = [
    {"text": "First I look.", "code": "1/0"},
    {
        "text": "A table.",
        "code": "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2], 'b': [3, 4]})\nprint('made')\ndf",
    },
    {
        "text": "A plot.",
        "code": WAIT_FOR.format(name="go") + "import matplotlib.pyplot as plt\ndf.plot(x='a', y='b')\nplt.show()",
    },
    {"text": "It **rises**."},
]
AGENT = "%%agent -p scripted -m {script}\nPlot it."
LOAD = "%load_ext sandbox_agent_magic"


@pytest.fixture(params=["lab", "notebook7"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def test_each_step_appears_when_it_has_finished_then_the_answer(server: Server, open_notebook: Open) -> None:
    page = open_notebook(server, LOAD, AGENT.format(script="three.json"), "'below'", scripts={"three.json": THREE})
    page.run(0)
    page.run(1, wait=False)
    before = page.wait_for_cells(4)
    assert [cell.source.splitlines()[0] for cell in before[1:]] == [
        "%%agent -p scripted -m three.json",
        "%%sandbox",
        "'below'",
    ]
    assert page.is_running(1)
    table = before[2]
    assert [output.output_type for output in table.outputs] == ["stream", "execute_result"]
    assert table.execution_count == table.outputs[1].execution_count == 2
    page.screenshot(SCREENSHOTS, f"while-it-works-{server.app}")

    page.touch("go")
    page.wait_until_idle()
    cells = page.cells()
    assert [cell.cell_type for cell in cells] == ["code", "code", "code", "code", "markdown", "code"]
    assert cells[3].outputs[0].data["image/png"]
    assert cells[4].source == "It **rises**."
    assert page.shown(4) == "It rises."
    assert [output.output_type for output in cells[1].outputs] == ["display_data"]  # the progress area, nothing else
    page.screenshot(SCREENSHOTS, f"done-{server.app}")

    saved = page.save()
    nbformat.validate(saved)
    assert [cell.id for cell in saved.cells] == [cell.id for cell in cells]
