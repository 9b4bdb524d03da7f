"""One browser and one server of each kind for all of this suite; a notebook and a kernel of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import CHROMIUM
from tests.support.jupyter import Server, jupyter_server
from tests.support.notebook_page import NotebookPage, chromium
from tests.support.scripted_notebook import Replies, write_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
numbers = itertools.count(1)
Open = Callable[..., NotebookPage]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The current JupyterLab."""
    with jupyter_server(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="session")
def notebook7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The current Notebook 7."""
    with jupyter_server(tmp_path_factory.mktemp("notebook"), app="notebook") as running:
        yield running


@pytest.fixture(scope="session")
def lab41(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab 4.1 with ipykernel 6.29, the oldest that are supported."""
    python = Path(os.environ.get("LAB41_VENV", "")) / "bin" / "python"
    if not os.environ.get("LAB41_VENV") or not python.is_file():
        pytest.skip("LAB41_VENV does not name an environment with JupyterLab 4.1; `make test` makes one")
    with jupyter_server(tmp_path_factory.mktemp("lab41"), python=str(python), name="lab41") as running:
        yield running


@pytest.fixture(params=["lab", "notebook7"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each current front end."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["lab", "notebook7", "lab41"])
def any_server(request: pytest.FixtureRequest) -> Server:
    """Each front end, the oldest included."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def contexts(browser: Browser) -> Iterator[dict[str, BrowserContext]]:
    """A browser's context for each server: its pages load from the cache."""
    made: dict[str, BrowserContext] = {}
    yield made
    for context in made.values():
        context.close()


@pytest.fixture
def open_notebook(
    browser: Browser, contexts: dict[str, BrowserContext], request: pytest.FixtureRequest
) -> Iterator[Open]:
    """Writes a notebook, and opens it in a tab; afterwards no tab may have reported an error."""
    pages: list[NotebookPage] = []

    def open_it(
        server: Server, *cells: str, scripts: Replies | None = None, name: str = "", again: bool = False
    ) -> NotebookPage:
        if server.url not in contexts:
            contexts[server.url] = browser.new_context(viewport={"width": 1200, "height": 900})
        name = name or f"notebook-{next(numbers)}.ipynb"
        if not again:
            write_notebook(server.folder, name, *cells, scripts=scripts)
        page = NotebookPage(contexts[server.url], server, name)
        pages.append(page)
        return page

    yield open_it
    failed = getattr(request.node, "failed", False)
    errors = [error for page in pages for error in page.errors]
    for number, page in enumerate(pages):
        if failed and not page.page.is_closed():
            page.screenshot(SCREENSHOTS, f"failed-{request.node.name[:80]}-{number}")
        page.end()
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report
