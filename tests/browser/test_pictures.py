"""How it looks: in a JupyterLab without the package, and in the README's pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import SCREENSHOTS, Open
from tests.support.jupyter import Server, jupyter_server
from tests.support.model_server import ModelServer, Reply
from tests.support.notebook_page import NotebookPage
from tests.support.scripted_notebook import LOAD, PICTURE, TABLE, agent, answer, step, write_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.integration

DATA = Path(__file__).resolve().parents[2] / "examples" / "seattle-weather.csv"
_USAGE = {"prompt_tokens": 900, "completion_tokens": 60, "cost": 0.0008}
REPLIES = [
    Reply(
        "I look at the months.",
        code="import pandas as pd\n"
        'weather = pd.read_csv("seattle-weather.csv", parse_dates=["date"])\n'
        'months = weather["date"].dt.month_name()\n'
        'monthly = weather.groupby(months, sort=False)["precipitation"].mean()\n'
        'monthly.nlargest(3).round(2).to_frame("mm per day")',
        usage=_USAGE,
    ),
    Reply(
        "And I draw them.",
        code='ax = monthly.plot.bar(figsize=(7, 2.4), ylabel="mm per day", xlabel="", width=0.8)\n'
        "ax.figure.autofmt_xdate()",
        usage=_USAGE,
    ),
    Reply(
        "**November is the wettest month**, with 5.4 mm of rain on an average day; July is the driest.", usage=_USAGE
    ),
]


def test_a_clean_jupyterlab_without_the_package_shows_everything(
    lab: Server, open_notebook: Open, tmp_path: Path
) -> None:
    page = open_notebook(lab, LOAD, agent("s"), scripts={"s": [step(TABLE), step(PICTURE), answer("It **rises**.")]})
    page.run_all()
    saved = page.save()
    (tmp_path / "clean").mkdir()
    shutil.copy(lab.folder / page.name, tmp_path / "clean")
    (tmp_path / "none").mkdir()
    with jupyter_server(tmp_path / "clean", arguments=[f"--LabApp.labextensions_path={tmp_path / 'none'}"]) as clean:
        there = open_notebook(clean, name=page.name, again=True)
        assert "sandbox-agent-magic" not in there.page.evaluate("Object.keys(window._JUPYTERLAB ?? {})")
        assert [cell.source for cell in there.cells()] == [cell.source for cell in saved.cells]
        there.screenshot(SCREENSHOTS, "clean-lab")
        assert "Done in" in there.shown(1)
        assert "made" in there.shown(2)
        assert there.evaluate("return content.widgets[2].node.querySelectorAll('td').length") == 1
        assert there.evaluate("return content.widgets[3].node.querySelector('img').naturalWidth") == 200
        assert there.shown(4) == "It rises."
        there.end()


def test_the_readmes_pictures_are_of_a_real_jupyterlab(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("picture")
    shutil.copy(DATA, folder)
    request = "%%agent -f seattle-weather.csv\nWhich month is the wettest? Plot all months."
    write_notebook(folder, "weather.ipynb", LOAD, request)
    with ModelServer(REPLIES, models=["my-model"]) as model:
        environment = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "none", "MODEL": "my-model"}
        with (
            jupyter_server(folder, environment=environment) as server,
            browser.new_context(viewport={"width": 860, "height": 960}, device_scale_factor=1.25) as context,
        ):
            page = NotebookPage(context, server, "weather.ipynb")
            page.command("application:toggle-left-area")
            page.run_all()
            page.wait_for_cells(5)
            assert len(model.seen) == 3
            assert "November" in page.sources()[4]
            page.evaluate("content.activeCellIndex = 0; content.deselectAll()")
            for theme in ("Light", "Dark"):
                page.evaluate(
                    "await app.commands.execute('apputils:change-theme', {theme: argument})", f"JupyterLab {theme}"
                )
                page.evaluate("content.outerNode.scrollTop = 0; document.activeElement.blur()")
                page.page.wait_for_timeout(1_000)
                page.screenshot(SCREENSHOTS, f"readme-{theme.lower()}")
            assert page.errors == []
            page.end()
