"""The example notebooks run, and show what they say."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from statistics import mean

import nbformat
import pytest
from nbformat import NotebookNode

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = Path(sysconfig.get_path("scripts")) / "sandbox-agent"

pytestmark = pytest.mark.integration


def sandbox_agent(*arguments: object, folder: Path, **environment: str) -> str:
    """Run the command in `folder`; return what it printed. It must succeed."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def text_of(notebook: NotebookNode, cell_id: str) -> str:
    """All text that a cell put out."""
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def pictures(notebook: NotebookNode) -> int:
    """How many outputs are pictures."""
    return sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


def test_the_sandbox_example_shows_what_it_says(tmp_path: Path) -> None:
    target = tmp_path / "out.ipynb"
    shutil.copy(EXAMPLES / "sandbox.ipynb", tmp_path)  # the sandbox's folder will lie beside it
    sandbox_agent("run", "sandbox.ipynb", "-o", target, folder=tmp_path, SOME_API_KEY="secret-of-the-reader")
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    assert text_of(notebook, "get") == "42"
    assert "No network:" in text_of(notebook, "try-network")
    assert "Under /home: nothing" in text_of(notebook, "try-files")
    assert re.search(r"/usr: (Read-only file system|Permission denied)", text_of(notebook, "try-files"))
    assert "Working folder: ['new-file']" in text_of(notebook, "try-files")
    assert text_of(notebook, "try-environment").strip() == "[]"
    assert pictures(notebook) == 1


@pytest.mark.model
@pytest.mark.timeout(400)
def test_the_demo_ends_with_the_right_number_and_a_plot(tmp_path: Path) -> None:
    with (EXAMPLES / "seattle-weather.csv").open() as rows:
        right = mean(float(row["temp_max"]) for row in csv.DictReader(rows))
    sandbox_agent("demo", "-o", tmp_path / "out", folder=tmp_path)
    notebook = nbformat.read(tmp_path / "out" / "demo.ipynb", as_version=4)
    nbformat.validate(notebook)
    made = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith("%%sandbox")]
    assert len(made) >= 2
    assert all(cell.execution_count and cell.outputs for cell in made)
    numbers = [float(number) for cell in made for number in re.findall(r"\d+\.\d+", text_of(notebook, cell.id))]
    assert any(abs(number - right) < 0.01 for number in numbers), numbers
    assert pictures(notebook) >= 1
    assert "<html" in (tmp_path / "out" / "demo.html").read_text()
