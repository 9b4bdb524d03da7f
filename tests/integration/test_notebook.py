"""A notebook in a real kernel, without a browser: real cells come out, and it runs again without a model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.integration

SCRIPT = [
    {"text": "First I look.", "code": "1/0"},
    {
        "text": "A table.",
        "code": "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2], 'b': [3, 4]})\nprint('made')\ndf",
    },
    {"text": "A plot.", "code": "import matplotlib.pyplot as plt\ndf.plot(x='a', y='b')\nplt.show()"},
    {"text": "It **rises**."},
]


def notebook(*cells: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def sandbox_agent(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "sandbox_agent_magic.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=170, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    cells = (
        "%load_ext sandbox_agent_magic",
        "%%agent -p scripted -m script.json -o result\nPlot it.",
        "print(result.status)",
    )
    nbformat.write(notebook(*cells), tmp_path / "job.ipynb")
    return tmp_path


def test_run_makes_cells_that_run_again_without_the_model(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    done = sandbox_agent(folder / "elsewhere", "run", "../job.ipynb", "-o", "../done.ipynb")
    assert done.returncode == 0, done.stderr
    assert list((folder / "elsewhere").iterdir()) == []
    finished = nbformat.read(folder / "done.ipynb", 4)
    nbformat.validate(finished)
    sources = [cell.source for cell in finished.cells]
    assert [source.splitlines()[0] for source in sources] == [
        "%load_ext sandbox_agent_magic",
        "%%agent -p scripted -m script.json -o result",
        "%%sandbox",
        "%%sandbox",
        "It **rises**.",
        "print(result.status)",
    ]
    table, plot = finished.cells[2], finished.cells[3]
    assert table.outputs[0].text == "made\n"
    assert "<table" in table.outputs[1].data["text/html"]
    assert plot.outputs[0].data["image/png"]
    assert finished.cells[5].outputs[0].text == "completed\n"
    assert not any("sandbox-agent.cells" in json.dumps(cell) for cell in finished.cells)

    again = notebook(
        *(source for cell, source in zip(finished.cells, sources, strict=True) if cell.cell_type == "code")
    )
    del again.cells[1], again.cells[-1]  # the agent cell, and the one that prints its result
    NotebookClient(again, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    assert "<table" in again.cells[1].outputs[-1].data["text/html"]
    assert again.cells[2].outputs[0].data["image/png"]


def test_the_failed_attempt_stays_in_the_transcript_only(folder: Path) -> None:
    sandbox_agent(folder, "run", "job.ipynb", "-o", "done.ipynb")
    (area,) = nbformat.read(folder / "done.ipynb", 4).cells[1].outputs
    assert "3 steps (1 failed)" in area.data["text/plain"]
    assert "ZeroDivisionError" in area.data["text/html"]
    assert "<details>" in area.data["text/html"]


def test_running_the_finished_notebook_again_replaces_the_cells(folder: Path) -> None:
    sandbox_agent(folder, "run", "job.ipynb", "-o", "done.ipynb")
    done = sandbox_agent(folder, "run", "done.ipynb", "-o", "twice.ipynb")
    assert done.returncode == 0, done.stderr
    assert len(nbformat.read(folder / "twice.ipynb", 4).cells) == 6


def test_an_error_of_the_agent_cell_is_three_lines_and_keeps_what_was_done(folder: Path) -> None:
    nbformat.write(
        notebook("%load_ext sandbox_agent_magic\nprint('begun')", "%%agent -f nothing.csv\nGo."), folder / "bad.ipynb"
    )
    done = sandbox_agent(folder, "run", "bad.ipynb", "-o", "out.ipynb")
    assert done.returncode == 1
    assert "There is no file nothing.csv." in done.stderr
    kept = nbformat.read(folder / "out.ipynb", 4)
    assert kept.cells[0].outputs[0].text == "begun\n"
    assert len(kept.cells[1].outputs[0].traceback) <= 3


def test_stock_nbclient_keeps_the_cells_for_expand(folder: Path) -> None:
    stored = nbformat.read(folder / "job.ipynb", 4)
    NotebookClient(stored, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    nbformat.write(stored, folder / "stored.ipynb")
    assert len(stored.cells) == 3
    assert any("image/png" in output.get("data", {}) for output in stored.cells[1].outputs)  # visible without expand
    assert sandbox_agent(folder, "expand", "stored.ipynb").returncode == 0
    assert len(nbformat.read(folder / "stored.ipynb", 4).cells) == 6


def test_a_local_executors_error_is_no_error_output_of_the_agent_cell(folder: Path) -> None:
    cell = "%%agent -p scripted -m script.json -e local --yes --keep all\nPlot it."
    nbformat.write(notebook("%load_ext sandbox_agent_magic", cell, "len(df)"), folder / "local.ipynb")
    done = sandbox_agent(folder, "run", "local.ipynb", "-o", "out.ipynb")
    assert done.returncode == 0, done.stderr
    finished = nbformat.read(folder / "out.ipynb", 4)
    assert all(output.output_type != "error" for output in finished.cells[1].outputs)
    assert finished.cells[2].source == "1/0"
    assert finished.cells[2].metadata.tags == ["raises-exception"]
    assert finished.cells[4].outputs[-1].data["image/png"]
    assert finished.cells[-1].outputs[0].data["text/plain"] == "2"


def test_ctrl_c_ends_the_kernel_and_keeps_what_was_done(folder: Path) -> None:
    slow = [{"code": "print('first')"}, {"code": "import time; time.sleep(100)"}, {"text": "never"}]
    (folder / "slow.json").write_text(json.dumps(slow))
    cells = ("%load_ext sandbox_agent_magic", "%%agent -p scripted -m slow.json\nGo.")
    nbformat.write(notebook(*cells), folder / "slow.ipynb")
    command = [sys.executable, "-P", "-m", "sandbox_agent_magic.cli", "run", "slow.ipynb", "-o", "out.ipynb"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not sleeping_in(process.pid) and time.monotonic() < end:
            time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130, said
        assert "Traceback" not in said
        _, alive = psutil.wait_procs(family, timeout=5)
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        process.kill()
    assert [cell.source for cell in nbformat.read(folder / "out.ipynb", 4).cells][2:] == ["%%sandbox\nprint('first')"]


def sleeping_in(pid: int) -> bool:
    """Whether a sandbox below process `pid` has printed and sleeps: it has, two seconds after its launcher came."""
    launchers = [child for child in psutil.Process(pid).children(recursive=True) if child.name() == "bwrap"]
    return any(time.time() - child.create_time() > 4 for child in launchers)
