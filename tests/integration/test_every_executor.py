"""The demo notebook gives the same cells wherever its code runs: only the `-e` option changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.support.engines import ENGINES
from tests.support.parity import normalised

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = Path(sysconfig.get_path("scripts")) / "sandbox-agent"

pytestmark = [pytest.mark.integration, pytest.mark.model, pytest.mark.timeout(600)]


def demo(folder: Path, executor: str) -> list[dict[str, Any]]:
    """Run the demo with the embedded model, which says the same each time, and return its cells."""
    folder.mkdir()
    shutil.copy(EXAMPLES / "seattle-weather.csv", folder)
    notebook = nbformat.read(EXAMPLES / "demo.ipynb", as_version=4)
    options = ["-e", executor]
    if executor == "local":  # which only a cell itself may choose
        options = []
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.source = cell.source.replace("%%agent", "%%agent -e local --yes")
    nbformat.write(notebook, folder / "demo.ipynb")
    model = {"AGENT_PROVIDER": "local", "TEMPERATURE": "0", "AGENT_LOCAL_SEED": "42"}
    with ENGINES[executor]() as settings:
        done = subprocess.run(
            [COMMAND, "run", "demo.ipynb", *options],
            cwd=folder,
            env={**os.environ, **model, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    return normalised(nbformat.read(folder / "demo-run.ipynb", as_version=4), agent_outputs=False)


def without_the_executor(cells: list[dict[str, Any]], *, counts: bool) -> list[dict[str, Any]]:
    """The cells without the line and the marks that name the executor, and what the model server still remembered.

    The reader's own kernel (not `counts`) numbers its executions together with the reader's.
    """
    for cell in cells:
        if not counts:
            cell.pop("execution_count", None)
        first, newline, rest = cell["source"].partition("\n")
        if first.startswith("%%sandbox"):
            cell["source"] = rest
        elif first.startswith("%%agent"):
            cell["source"] = first.replace(" -e local --yes", "") + newline + rest
        note = cell["metadata"].get("sandbox_agent", {})
        for key in ("executor", "source_sha256"):
            note.pop(key, None)
        note.get("usage", {}).pop("cached_tokens", None)
    return cells


@pytest.fixture(scope="module")
def in_the_sandbox(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return demo(tmp_path_factory.mktemp("parity") / "sandbox", "sandbox")


@pytest.mark.parametrize("executor", [name for name in ENGINES if name != "sandbox"])
def test_the_demo_gives_the_same_cells_as_in_the_sandbox(
    tmp_path: Path, executor: str, in_the_sandbox: list[dict[str, Any]]
) -> None:
    cells = demo(tmp_path / executor, executor)
    made = [cell for cell in cells if cell["metadata"].get("sandbox_agent", {}).get("step")]
    assert len(made) == 2
    assert "16.4390828" in json.dumps(made[0]["outputs"])
    assert "image/png" in json.dumps(made[1]["outputs"])
    lines = {cell["source"].partition("\n")[0] for cell in made}
    assert lines == ({f"%%sandbox -e {executor}"} if executor != "local" else {"import pandas as pd"})
    counts = executor != "local"
    expected = without_the_executor(json.loads(json.dumps(in_the_sandbox)), counts=counts)
    assert without_the_executor(cells, counts=counts) == expected
