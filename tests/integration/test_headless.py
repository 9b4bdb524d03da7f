"""Notebooks without a browser: running again, failures, consent, and what the exit codes say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pexpect
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.integration

SCRIPTS = Path(sys.executable).parent
SUM = [{"text": "I sum.", "code": "print(sum(range(1, 101)))"}, {"text": "The sum is 5050."}]
AGENT = "%%agent -p scripted -m script.json\nSum 1 to 100."
EXPAND = "sandbox_agent_magic.notebook.nbconvert.ExpandCells"
WAYS = {
    "run": ["sandbox-agent", "run", "job.ipynb", "-o", "job.ipynb"],
    "nbconvert": ["jupyter-nbconvert", "--execute", "--to", "sandbox-agent", "--output", "job", "job.ipynb"],
    "nbconvert with the preprocessor": [
        *("jupyter-nbconvert", "--execute", "--to", "notebook", f"--NotebookExporter.preprocessors={EXPAND}"),
        *("--output", "job", "job.ipynb"),
    ],
    "papermill": ["papermill", "--engine", "sandbox-agent", "job.ipynb", "job.ipynb"],
}


def write(folder: Path, *cells: str, script: object = SUM) -> None:
    (folder / "script.json").write_text(json.dumps(script))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = [nbformat.v4.new_code_cell(source) for source in ("%load_ext sandbox_agent_magic", *cells)]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": spec}), folder / "job.ipynb")


def run(folder: Path, *command: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return subprocess.run(
        [str(SCRIPTS / program), *arguments],
        cwd=folder,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def read(folder: Path, name: str = "job.ipynb") -> nbformat.NotebookNode:
    notebook = nbformat.read(folder / name, 4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.parametrize("way", WAYS)
def test_running_again_replaces_what_the_earlier_run_left_and_keeps_what_was_edited(tmp_path: Path, way: str) -> None:
    write(tmp_path, AGENT, script=[SUM[0], {"code": "print('two')"}, SUM[1]])
    assert run(tmp_path, *WAYS[way]).returncode == 0
    first = read(tmp_path)
    assert len(first.cells) == 5
    first.cells[3].source += "  # mine"
    nbformat.write(first, tmp_path / "job.ipynb")
    done = run(tmp_path, *WAYS[way])
    assert done.returncode == 0, done.stderr
    second = read(tmp_path)
    ours = [cell for cell in second.cells if "sandbox_agent" in cell.metadata]
    detached = [cell for cell in ours if cell.metadata.sandbox_agent.get("detached")]
    assert [cell.source for cell in detached] == ["%%sandbox\nprint('two')  # mine"]
    fresh = [cell.source for cell in ours if cell not in detached]
    assert fresh == ["%%sandbox\nprint(sum(range(1, 101)))", "%%sandbox\nprint('two')", "The sum is 5050."]
    assert {cell.id for cell in ours} & {cell.id for cell in first.cells} == {cell.id for cell in detached}
    counts = [cell.execution_count for cell in ours if cell not in detached and cell.cell_type == "code"]
    assert counts == [1, 2]


@pytest.mark.parametrize("way", WAYS)
def test_consent_that_is_missing_is_said_at_once_and_nobody_is_asked(tmp_path: Path, way: str) -> None:
    write(tmp_path, f"{AGENT.splitlines()[0]} --executor local\nSum.")
    began = time.monotonic()
    done = run(tmp_path, *WAYS[way])
    assert time.monotonic() - began < 60
    assert done.returncode != 0
    assert "Add --yes if you mean it" in done.stdout + done.stderr + json.dumps(read(tmp_path))


def test_a_run_that_reaches_a_limit_is_exit_code_1_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, AGENT, "1 + 1", script=[{"code": f"print({number})"} for number in range(3)])
    done = run(tmp_path, "sandbox-agent", "run", "job.ipynb", "--max-iterations", "2")
    assert done.returncode == 1
    assert "An agent cell did not complete: Stopped at a limit" in done.stderr
    assert "MAX_ITERATIONS" in done.stderr
    assert done.stdout == "job-run.ipynb\n"
    assert read(tmp_path, "job-run.ipynb").cells[-1].outputs[0].data["text/plain"] == "2"


def test_whoever_waits_sees_what_the_agent_is_doing_and_how_it_ended(tmp_path: Path) -> None:
    write(tmp_path, AGENT, script=[{**SUM[0], "delay_s": 2}, SUM[1]])
    environ = {**os.environ, "TERM": "xterm"}
    command = [str(SCRIPTS / "sandbox-agent"), "run", "job.ipynb"]
    shown = pexpect.spawn(
        command[0], command[1:], cwd=str(tmp_path), env=environ, encoding="utf-8", timeout=60, dimensions=(24, 150)
    )
    shown.expect("Agent: 1 s · waiting for the model")
    shown.expect("Done in [0-9.]+ s · 1 step · [^\r]*\r\n")
    shown.expect("job-run.ipynb\r\n")
    shown.expect(pexpect.EOF)
    shown.close()
    assert shown.exitstatus == 0
    piped = run(tmp_path, "sandbox-agent", "run", "job.ipynb")
    assert "      Done in" in piped.stderr
    assert "waiting" not in piped.stderr
    assert "\x1b" not in piped.stderr


def test_a_place_that_cannot_be_written_is_found_before_a_model_is_asked(tmp_path: Path) -> None:
    write(tmp_path, "open('ran', 'w').close()")
    (tmp_path / "file").touch()
    done = run(tmp_path, "sandbox-agent", "run", "job.ipynb", "-o", "file/out.ipynb")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Cannot write file/out.ipynb."
    assert not (tmp_path / "ran").exists()


def test_papermill_keeps_what_was_done_before_a_failure(tmp_path: Path) -> None:
    write(tmp_path, AGENT, "1/0", "print('never')")
    done = run(tmp_path, "papermill", "--engine", "sandbox-agent", "job.ipynb", "out.ipynb")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    kept = [cell.source for cell in read(tmp_path, "out.ipynb").cells]
    assert "%%sandbox\nprint(sum(range(1, 101)))" in kept
    assert "The sum is 5050." in kept


def test_the_preprocessor_works_for_other_formats(tmp_path: Path) -> None:
    write(tmp_path, AGENT)
    option = f"--HTMLExporter.preprocessors={EXPAND}"
    done = run(tmp_path, "jupyter-nbconvert", "--execute", "--to", "html", option, "job.ipynb")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "job.html").read_text()
    assert page.count("The sum is 5050.") == 1
    assert "sandbox-agent.cells" not in page


def test_exporting_from_a_menu_runs_nothing_and_expands_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, AGENT)
    stored = read(tmp_path)
    NotebookClient(stored, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.write(stored, tmp_path / "job.ipynb")
    (tmp_path / "script.json").unlink()  # no model would answer
    done = run(tmp_path, "jupyter-nbconvert", "--to", "sandbox-agent", "--output", "out", "job.ipynb")
    assert done.returncode == 0, done.stderr
    assert [cell.source for cell in read(tmp_path, "out.ipynb").cells][-1] == "The sum is 5050."


def test_papermill_keeps_what_was_done_before_an_interrupt(tmp_path: Path) -> None:
    write(tmp_path, AGENT, "open('reached', 'w').close()\nimport time; time.sleep(60)")
    command = [str(SCRIPTS / "papermill"), "--engine", "sandbox-agent", "job.ipynb", "out.ipynb"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not (tmp_path / "reached").exists() and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert "The sum is 5050." in [cell.source for cell in read(tmp_path, "out.ipynb").cells]


def test_the_cells_are_made_whatever_a_env_file_wants(tmp_path: Path) -> None:
    write(tmp_path, AGENT)
    (tmp_path / ".env").write_text("AGENT_INSERT=none\n")
    assert run(tmp_path, "sandbox-agent", "run", "job.ipynb").returncode == 0
    assert len(read(tmp_path, "job-run.ipynb").cells) == 4
