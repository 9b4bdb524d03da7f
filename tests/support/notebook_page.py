"""A notebook in a real page: what a reader sees of it and does with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

    from tests.support.jupyter import Server

WAIT_S = 60
"""For anything that a kernel or a sandbox has to do first."""

_OURS = "sandbox-agent-magic"

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Nothing but loopback: a test must not depend on the network, nor reach it.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

# The panel of the notebook `name`.
_PANEL = """
name => {
  const app = window.jupyterapp;
  for (const widget of app.shell.widgets('main'))
    if (widget.context && widget.context.path === name && widget.content && widget.content.model) return widget;
  return null;
}
"""


_STATUS = "return panel.sessionContext.session?.kernel?.status"

# Commands are for the notebook in front, which takes a moment to change.
_ACTIVATE = """
if (app.shell.currentWidget !== panel) { app.shell.activateById(panel.id); await new Promise(r => setTimeout(r, 300)); }
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's own, without a window."""
    from playwright.sync_api import sync_playwright

    from tests.support.browser import CHROMIUM

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class NotebookPage:
    """One notebook, open in a tab of its own.

    Args:
        context: the browser's; tabs of one context share cookies.
        server: where the notebook lies.
        name: its file name.
    """

    def __init__(self, context: BrowserContext, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.expect_errors = False
        """Whether a test is about to do what the front end itself calls an error."""
        self.errors: list[str] = []
        """What was reported as an error on the console, or thrown and not caught."""
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_S * 1000)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error} {error.stack}"))
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.open()

    def open(self) -> None:
        """Load the page, and wait for the notebook and its kernel."""
        self.page.goto(self.server.page(self.name))
        self.wait_until_ready()

    def reload(self) -> None:
        """As F5 does, whatever is not saved."""
        self.page.reload()
        self.wait_until_connected()

    def wait_until_ready(self) -> None:
        """The notebook is shown, its kernel connected and heard of."""
        self.wait_until_connected()
        wait_for(lambda: self.evaluate(_STATUS) != "unknown", WAIT_S, lambda: "the kernel's status")

    def wait_until_connected(self) -> None:
        """The notebook is shown and its kernel connected, though it may be busy."""
        self.page.wait_for_function(
            f"name => {{ const panel = window.jupyterapp && ({_PANEL})(name);"
            " const kernel = panel && panel.sessionContext.session && panel.sessionContext.session.kernel;"
            " return !!kernel && kernel.connectionStatus === 'connected'; }",
            arg=self.name,
        )
        # Some versions complain while they load, whatever is installed; of ours nothing may.
        self.errors = [error for error in self.errors if _OURS in error]

    def evaluate(self, body: str, argument: Any = None) -> Any:
        """Run JavaScript with `panel`, `content` (its notebook widget), `app` and `argument`."""
        return self.page.evaluate(
            f"async ([name, argument]) => {{ const panel = ({_PANEL})(name);"
            f" const content = panel.content, app = window.jupyterapp; {body} }}",
            [self.name, argument],
        )

    # ---- what a reader sees -----------------------------------------------------------------------------------------

    def cells(self) -> list[nbformat.NotebookNode]:
        """The notebook's cells, as they would be saved."""
        found = self.evaluate("return panel.context.model.toJSON().cells")
        return [nbformat.from_dict(cell) for cell in found]

    def sources(self) -> list[str]:
        """The cells' sources."""
        return [cell.source for cell in self.cells()]

    def shown(self, index: int) -> str:
        """A cell's text as it is rendered."""
        self.evaluate("content.widgets[argument].node.scrollIntoView()", index)
        time.sleep(0.3)
        return str(self.evaluate("return content.widgets[argument].node.innerText", index)).strip()

    def is_running(self, index: int) -> bool:
        """Whether a cell runs, or waits to run."""
        return "*" in self.evaluate("return content.widgets[argument].promptNode?.textContent ?? ''", index)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds."""
        wait_for(condition, WAIT_S, lambda: f"it; the cells are {self.sources()}")

    def wait_for_cells(self, count: int, *, seconds: float = WAIT_S) -> list[nbformat.NotebookNode]:
        """Until there are `count` cells."""
        wait_for(lambda: len(self.cells()) >= count, seconds, lambda: f"{count} cells; there are {self.sources()}")
        return self.cells()

    def wait_until_idle(self, *, seconds: float = WAIT_S) -> None:
        """Until nothing runs, or waits to run, any more."""
        idle = (
            "const kernel = panel.sessionContext.session?.kernel;"
            "return kernel?.status === 'idle' && !content.node.querySelector('.jp-mod-executing, .jp-Cell-running')"
            " && ![...content.node.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"
        )
        time.sleep(0.2)
        wait_for(lambda: self.evaluate(idle) is True, seconds, lambda: f"an idle kernel; {self.sources()}")

    def view(self) -> dict[str, Any]:
        """What the reader has in hand: the active cell and where it is on the screen, mode, selection, cursor."""
        found: dict[str, Any] = self.evaluate("""
            const active = content.activeCell, box = active.node.getBoundingClientRect();
            return {active: active.model.id, mode: content.mode, top: Math.round(box.top),
                    selected: content.widgets.filter(w => content.isSelectedOrActive(w)).map(w => w.model.id),
                    focused: active.node.contains(document.activeElement),
                    cursor: active.editor ? active.editor.getCursorPosition() : null};
        """)
        return found

    # ---- what a reader does -----------------------------------------------------------------------------------------

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell, as its button does."""
        self.evaluate(
            f"{_ACTIVATE} content.deselectAll(); content.activeCellIndex = argument;"
            " content.mode = 'command'; void app.commands.execute('notebook:run-cell')",
            index,
        )
        if wait:
            self.wait_until_idle()

    def run_all(self, *, wait: bool = True) -> None:
        """Run All."""
        self.evaluate(f"{_ACTIVATE} void app.commands.execute('notebook:run-all-cells')")
        if wait:
            self.wait_until_idle(seconds=2 * WAIT_S)

    def command(self, name: str) -> None:
        """Run a command of the front end, in command mode."""
        self.evaluate(
            f"{_ACTIVATE} content.mode = 'command'; content.node.focus(); await app.commands.execute(argument)",
            name,
        )

    def set_source(self, index: int, text: str) -> None:
        """Edit a cell."""
        self.evaluate("content.model.sharedModel.cells[argument[0]].setSource(argument[1])", [index, text])

    def touch(self, name: str) -> None:
        """Make a file in the sandbox's folder, which a step may be waiting for."""
        folder = self.server.folder / f"{Path(self.name).stem}.sandbox"
        wait_for(folder.is_dir, WAIT_S, lambda: f"the folder {folder}")
        (folder / name).touch()

    def click_into(self, index: int) -> None:
        """Click into a cell's editor, at its end."""
        self.evaluate("await content.scrollToItem(argument, 'center')", index)
        time.sleep(0.5)
        where = self.evaluate(
            "const box = content.widgets[argument].node.querySelector('.cm-content').getBoundingClientRect();"
            "return [box.right - 5, box.bottom - 8]",
            index,
        )
        self.page.mouse.click(*where)

    def insert_cell(self, index: int, source: str) -> None:
        """Add a code cell."""
        cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None}
        self.evaluate("content.model.sharedModel.insertCell(argument[0], argument[1])", [index, cell])

    def delete_cell(self, index: int) -> None:
        """Delete a cell, as the key d d does."""
        self.evaluate(
            "content.deselectAll(); content.activeCellIndex = argument; content.mode = 'command';"
            " await app.commands.execute('notebook:delete-cell')",
            index,
        )

    def move_cell(self, index: int, target: int) -> None:
        """Move a cell, as dragging does."""
        self.evaluate("content.moveCell(argument[0], argument[1])", [index, target])

    def hear(self) -> None:
        """From now on, remember what cells print."""
        self.evaluate("""
            window.heard = [];
            panel.sessionContext.iopubMessage.connect((_, m) => {
                if (m.header.msg_type === 'stream') window.heard.push(m.content.text);
            });
        """)

    def heard(self) -> str:
        """What was printed since `hear`, also by cells that are gone."""
        return str(self.evaluate("return window.heard.join('')"))

    def save(self) -> nbformat.NotebookNode:
        """Save, and read what is in the file now."""
        self.evaluate("await panel.context.save()")
        return nbformat.read(self.server.folder / self.name, 4)

    def screenshot(self, folder: Path, name: str) -> Path:
        """Keep a picture of the page."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def close(self) -> None:
        """Close the tab, without a question; the kernel goes on."""
        self.page.close(run_before_unload=False)

    def end(self) -> None:
        """End the kernel, and close the tab."""
        if not self.page.is_closed():
            with contextlib.suppress(Exception):
                self.evaluate("await panel.sessionContext.shutdown()")
            self.close()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not (self.expect_errors and _OURS not in message.text):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{seconds} s were not enough for {what()}")
        time.sleep(0.05)
