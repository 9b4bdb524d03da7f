"""A notebook that ran in JupyterLab or Notebook 7 is the notebook that `sandbox-agent run` makes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tests.browser.conftest import Open
from tests.support.jupyter import Server
from tests.support.notebook_page import WAIT_S, wait_for
from tests.support.parity import INTERRUPTED, SCENARIOS, normalised
from tests.support.scripted_notebook import LOAD, agent

pytestmark = pytest.mark.integration


def headless(notebook: Path, scripts: Path, folder: Path, *, interrupt_when: str = "") -> nbformat.NotebookNode:
    """The notebook, run by `sandbox-agent run` in a folder of its own, with its scripts from the folder `scripts`."""
    folder.mkdir()
    for file in (notebook, *scripts.glob(f"{notebook.stem}-*.json")):
        shutil.copy(file, folder)
    command = [sys.executable, "-P", "-m", "sandbox_agent_magic.cli", "run", notebook.name, "-o", "out.ipynb"]
    # As a Jupyter server says it, so that the sandbox's folder lies beside the notebook there as well.
    environment = {**os.environ, "JPY_SESSION_NAME": str(folder / notebook.name)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            if interrupt_when:
                log = folder / f"{notebook.stem}.sandbox" / interrupt_when
                wait_for(log.exists, WAIT_S, lambda: f"{log}")
                process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
            assert process.returncode == (130 if interrupt_when else 0), said
        finally:
            process.kill()
    return nbformat.read(folder / "out.ipynb", 4)


def test_the_page_and_the_command_line_give_the_same_notebook(
    server: Server, open_notebook: Open, tmp_path: Path
) -> None:
    scripts = {f"s{number}": steps for number, steps in enumerate(SCENARIOS.values())}
    cells = [agent(script, request=name) for script, name in zip(scripts, SCENARIOS, strict=True)]
    page = open_notebook(server, LOAD, *cells, "print('after')", scripts=scripts)
    shutil.copy(server.folder / page.name, tmp_path)  # as it was before it ran
    page.run_all()
    saved = page.save()
    nbformat.validate(saved)
    assert len(saved.cells) == 2 + len(SCENARIOS) + sum(
        len([step for step in steps if step.get("code") != "1/0"]) for steps in SCENARIOS.values()
    )
    ran = headless(tmp_path / page.name, server.folder, tmp_path / "elsewhere")
    for there, here in zip(normalised(saved), normalised(ran), strict=True):
        assert there == here


def test_an_interrupted_run_leaves_the_same_cells(server: Server, open_notebook: Open, tmp_path: Path) -> None:
    replies = [INTERRUPTED[0], {**INTERRUPTED[1], "code": f"open('begun', 'w').close()\n{INTERRUPTED[1]['code']}"}]
    page = open_notebook(server, LOAD, agent("s"), scripts={"s": replies})
    shutil.copy(server.folder / page.name, tmp_path)  # as it was before it ran
    page.run(0)
    page.run(1, wait=False)
    page.wait_for_cells(3)
    begun = server.folder / f"{Path(page.name).stem}.sandbox" / "begun"
    wait_for(begun.exists, WAIT_S, lambda: "the second step")
    asked = time.monotonic()
    page.command("notebook:interrupt-kernel")
    page.wait_until_idle()
    assert time.monotonic() - asked < 5
    saved = page.save()
    assert [cell.source for cell in saved.cells[2:]] == ["%%sandbox\nprint('first')"]
    ran = headless(tmp_path / page.name, server.folder, tmp_path / "elsewhere", interrupt_when="begun")
    assert cells_below(saved) == cells_below(ran)


def cells_below(notebook: nbformat.NotebookNode) -> list[dict[str, object]]:
    """The inserted cells; the agent cell itself is cut short where its kernel ends with the command."""
    return normalised(notebook, agent_outputs=False)[2:]
