"""Many notebooks in one command: real kernels, real sandboxes, and everything that can end on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pexpect
import psutil
import pytest

from sandbox_agent_magic.notebook.record import read_record
from tests.support.jupyter_servers import jupyter
from tests.support.model_server import ModelServer, Reply
from tests.support.scripted_notebook import LOAD, agent, answer, step, write_notebook

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMMAND = [str(Path(sys.executable).parent / "sandbox-agent"), "run"]
USAGE = {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.001}
SUM = {"sum": [step("print(sum(range(101)))", usage=USAGE), answer("It is 5050.", usage=USAGE)]}
COUNT = "with open('count', 'a') as file: print('ran', file=file)"
"""Leaves a line for each time that it ran."""
REACHED = "open('reached', 'w').close()"
WAIT = "import time; time.sleep(120)"
FOREVER = "while True:\n    try:\n        time.sleep(1)\n    except KeyboardInterrupt:\n        pass"
"""Does not listen to interrupts."""


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A book of costs for each test: budgets of a day are read from it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def write(root: Path, name: str, *cells: str, scripts: Mapping[str, list[dict[str, object]]] | None = None) -> Path:
    """A notebook of `root`, in a folder of its own as each student has one."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    write_notebook(folder, "work.ipynb", *cells, scripts=dict(scripts or {}))
    return folder


def run(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=root,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@contextmanager
def started(root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in the background; nothing of it lives on after the block."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        process.communicate(timeout=30)
        for each in family:
            if each.is_running():
                each.kill()


def wait_for(condition: Callable[[], object], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "that never came"
        time.sleep(0.05)


def rows(table: str) -> dict[str, list[str]]:
    """The table's rows by the notebook's folder."""
    found = [re.split(r"  +", line) for line in table.splitlines() if "work.ipynb  " in line]
    return {row[0].partition("/work")[0]: row[1:] for row in found}


def status(folder: Path) -> str | None:
    record = read_record(folder / "work-run.ipynb")
    return record.status if record is not None else None


def sources(path: Path) -> list[str]:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    return [cell.source for cell in notebook.cells]


# ---- what becomes of each -------------------------------------------------------------------------------------------


def test_each_notebook_ends_for_itself_and_the_table_says_how(tmp_path: Path) -> None:
    good = write(tmp_path, "good", LOAD, agent("sum"), scripts=SUM)
    failing = write(tmp_path, "failing", LOAD, agent("sum"), "1/0", "print('never')", scripts=SUM)
    endless = [step(f"print({number})") for number in range(3)]
    stopped = write(tmp_path, "limit", LOAD, agent("long", "--max-iterations 2"), scripts={"long": endless})
    dying = write(tmp_path, "dying", "print('before')", "import os; os._exit(3)", "print('never')")
    broken = write(tmp_path, "broken")
    (broken / "work.ipynb").write_text("no JSON")
    done = run(tmp_path, ".", "--jobs", "2")
    assert done.returncode == 1
    found = rows(done.stdout)
    assert {name: row[0] for name, row in found.items()} == {
        "broken": "failed",
        "dying": "failed",
        "failing": "failed",
        "good": "completed",
        "limit": "failed",
    }
    assert found["good"][2:] == ["240", "$0.0020", "good/work-run.ipynb"]
    assert found["broken"][2:] == ["-", "-", "-"]
    assert re.search(r"^5 notebooks +1 done +\d:\d\d +480 +\$0.0040$", done.stdout, re.MULTILINE)
    assert "failing/work.ipynb: A cell failed: ZeroDivisionError: division by zero" in done.stdout
    assert "broken/work.ipynb is not a notebook that can be read." in done.stdout
    assert "limit/work.ipynb: An agent cell did not complete: Stopped at a limit" in done.stdout
    assert "dying/work.ipynb: The notebook's kernel did not start, or died." in done.stdout
    assert len(re.findall(r"^\[\d/5\] \w+/work.ipynb: (completed|failed) in ", done.stderr, re.MULTILINE)) == 5
    assert "\x1b" not in done.stderr
    assert "%%sandbox\nprint(sum(range(101)))" in sources(good / "work-run.ipynb")
    assert "%%sandbox\nprint(sum(range(101)))" in sources(failing / "work-run.ipynb")
    assert nbformat.read(dying / "work-run.ipynb", 4).cells[0].outputs[0].text == "before\n"
    assert [status(folder) for folder in (good, failing, stopped, dying)] == ["completed", *["failed"] * 3]
    assert (broken / "work.ipynb").read_text() == "no JSON"
    assert not (broken / "work-run.ipynb").exists()


def test_what_is_finished_is_skipped_and_what_is_not_or_has_changed_runs_again(tmp_path: Path) -> None:
    steady = write(tmp_path, "steady", COUNT)
    edited = write(tmp_path, "edited", COUNT)
    unlucky = write(tmp_path, "unlucky", COUNT, "open('missing')")
    folders = (steady, edited, unlucky)

    def counts() -> list[int]:
        return [len((folder / "count").read_text().splitlines()) for folder in folders]

    assert run(tmp_path, ".", "--jobs", "3").returncode == 1
    assert counts() == [1, 1, 1]
    write_notebook(edited, "work.ipynb", COUNT, "print('more')")
    (unlucky / "missing").touch()
    seen = nbformat.read(steady / "work.ipynb", 4)
    seen.cells[0].execution_count = 7  # somebody has run it and saved it: its content is what it was
    nbformat.write(seen, steady / "work.ipynb")
    done = run(tmp_path, ".", "--jobs", "3")
    assert done.returncode == 0
    assert counts() == [1, 2, 2]
    assert rows(done.stdout)["steady"] == ["skipped", "-", "-", "-", "steady/work-run.ipynb"]
    said = r"^steady/work.ipynb: skipped \(finished on \d{4}-\d\d-\d\d \d\d:\d\d; --force runs it again\)$"
    assert re.search(said, done.stderr, re.MULTILINE)


def test_one_notebook_by_itself_runs_always_and_is_known_as_finished(tmp_path: Path) -> None:
    folder = write(tmp_path, "one", COUNT)
    for expected in (1, 2):
        done = run(tmp_path, "one/work.ipynb")
        assert (done.returncode, done.stdout) == (0, "one/work-run.ipynb\n")
        assert len((folder / "count").read_text().splitlines()) == expected
    assert rows(run(tmp_path, ".").stdout)["one"][0] == "skipped"
    assert rows(run(tmp_path, ".", "--force").stdout)["one"][0] == "completed"
    assert len((folder / "count").read_text().splitlines()) == 3


# ---- the command dies, a worker dies, a kernel does not listen -----------------------------------------------------


def test_a_command_that_is_killed_leaves_whole_files_and_no_process_and_the_next_one_goes_on(tmp_path: Path) -> None:
    folders = [
        write(
            tmp_path, name, LOAD, agent("sum"), REACHED, "import os\nif not os.path.exists('go'): " + WAIT, scripts=SUM
        )
        for name in ("a", "b", "c")
    ]
    (folders[0] / "go").touch()
    with started(tmp_path, ".", "--jobs", "2") as process:
        wait_for(lambda: status(folders[0]) == "completed" and (folders[2] / "reached").exists())
        wait_for(lambda: (folders[1] / "reached").exists())
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 4  # two workers, two kernels, and their sandboxes
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=40)
        assert alive == []
    assert [status(folder) for folder in folders] == ["completed", "interrupted", "interrupted"]
    assert "%%sandbox\nprint(sum(range(101)))" in sources(folders[1] / "work-run.ipynb")
    assert [path.name for path in tmp_path.rglob("*.partial")] == []
    for folder in folders:
        (folder / "go").touch()
    done = run(tmp_path, ".", "--jobs", "2")
    assert done.returncode == 0
    assert [row[0] for row in rows(done.stdout).values()] == ["skipped", "completed", "completed"]


def test_a_worker_that_is_killed_costs_its_own_notebook_only(tmp_path: Path) -> None:
    doomed = write(tmp_path, "doomed", "import os\nopen('pid', 'w').write(str(os.getpid()))", WAIT)
    write(tmp_path, "good", "1 + 1")
    with started(tmp_path, ".", "--jobs", "2") as process:
        wait_for(lambda: (doomed / "pid").exists() and (doomed / "pid").read_text())
        kernel = psutil.Process(int((doomed / "pid").read_text()))
        worker = kernel.parent()
        assert worker is not None
        worker.kill()
        table, _ = process.communicate(timeout=60)
        kernel.wait(15)
    assert process.returncode == 1
    assert rows(table)["good"][0] == "completed"
    assert rows(table)["doomed"][0] == "failed"
    assert "doomed/work.ipynb: Its process was ended by signal 9; 9 is often too little memory." in table


def test_ctrl_c_keeps_what_was_done_starts_no_more_and_prints_the_table(tmp_path: Path) -> None:
    first = write(tmp_path, "a", LOAD, agent("sum"), REACHED, WAIT, scripts=SUM)
    write(tmp_path, "b", "1 + 1")
    with started(tmp_path, ".") as process:
        wait_for((first / "reached").exists)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        table, told = process.communicate(timeout=40)
        _, alive = psutil.wait_procs(family, timeout=10)
    assert process.returncode == 130
    assert alive == []
    assert {name: row[0] for name, row in rows(table).items()} == {"a": "interrupted", "b": "not started"}
    assert rows(table)["a"][2:4] == ["240", "$0.0020"]
    assert "The notebook under way will be written as far as done; Ctrl-C again ends at once." in told
    assert "%%sandbox\nprint(sum(range(101)))" in sources(first / "work-run.ipynb")
    assert not (tmp_path / "b" / "work-run.ipynb").exists()


def test_a_second_ctrl_c_ends_at_once_what_does_not_listen(tmp_path: Path) -> None:
    folder = write(tmp_path, "stubborn", f"import time\n{REACHED}\n{FOREVER}")
    with started(tmp_path, ".") as process:
        wait_for((folder / "reached").exists)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        table, _ = process.communicate(timeout=40)
        assert time.monotonic() - began < 3
        _, alive = psutil.wait_procs(family, timeout=15)
    assert process.returncode == 130
    assert alive == []
    assert rows(table)["stubborn"][0] == "interrupted"


def test_a_time_limit_ends_a_notebook_that_would_go_on_for_ever(tmp_path: Path) -> None:
    stuck = write(tmp_path, "stuck", "print('begun')", "while True: pass")
    write(tmp_path, "good", "1 + 1")
    done = run(tmp_path, ".", "--jobs", "2", "--time-limit", "15")
    assert done.returncode == 1
    assert {name: row[0] for name, row in rows(done.stdout).items()} == {"good": "completed", "stuck": "time limit"}
    assert nbformat.read(stuck / "work-run.ipynb", 4).cells[0].outputs[0].text == "begun\n"
    assert status(stuck) == "interrupted"


def test_two_commands_do_not_run_one_notebook_at_the_same_time(tmp_path: Path) -> None:
    folder = write(tmp_path, "shared", REACHED, WAIT)
    with started(tmp_path, ".") as process:
        wait_for((folder / "reached").exists)
        done = run(tmp_path, ".", "-o", "elsewhere")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)
    assert done.returncode == 1
    assert "shared/work.ipynb: Another command is running this notebook." in done.stdout


# ---- places ---------------------------------------------------------------------------------------------------------


def test_a_folder_for_the_results_keeps_the_students_apart(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        write(tmp_path / "class", name, f"print({name!r})")
    done = run(tmp_path, "class", "-o", "marked", "--jobs", "2")
    assert done.returncode == 0
    for name in ("ann", "bob"):
        assert nbformat.read(tmp_path / "marked" / name / "work.ipynb", 4).cells[0].outputs[0].text == f"{name}\n"
    assert rows(run(tmp_path, "class", "-o", "marked").stdout)["class/ann"][0] == "skipped"


def test_a_result_that_cannot_be_written_is_kept_elsewhere_and_said(tmp_path: Path) -> None:
    spoil = "import pathlib, shutil\nshutil.rmtree('../out')\npathlib.Path('../out').write_text('')\nprint('precious')"
    write(tmp_path, "a", spoil)
    (tmp_path / "taken" / "work-run.ipynb").mkdir(parents=True)
    write(tmp_path, "taken", COUNT)
    done = run(tmp_path, "a/work.ipynb", "--jobs", "2", "-o", "out")
    assert done.returncode == 1
    found = re.search(r"failed .* (/\S+/work.ipynb)$", done.stdout, re.MULTILINE)
    assert found is not None
    assert nbformat.read(found[1], 4).cells[0].outputs[0].text == "precious\n"
    assert "Cannot write" in done.stdout
    done = run(tmp_path, "taken", "--jobs", "2")
    assert "work-run.ipynb. Reason: Is a directory." in done.stdout
    assert not (tmp_path / "taken" / "count").exists()  # found out before anything ran


def test_a_terminal_shows_one_moving_line_and_names_that_cannot_move_its_cursor(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    write_notebook(folder, "red\x1b[31m\nname.ipynb", "import time; time.sleep(2)")
    write_notebook(folder, "fine.ipynb", "1 + 1")
    environ = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    shown = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "evil", "-j", "2"],
        cwd=str(tmp_path),
        env=environ,
        encoding="utf-8",
        timeout=90,
        dimensions=(24, 80),
    )
    shown.expect(pexpect.EOF)
    shown.close()
    assert shown.exitstatus == 0
    text = str(shown.before)
    assert set(re.findall(r"\x1b\[[^A-Za-z]*[A-Za-z]", text)) == {"\x1b[K"}  # it erases its own line, nothing else
    moving = [part.partition("\r\n")[0] for part in text.split("\r\x1b[K")]
    assert any(re.match(r"\[0/2\] \.{12}  2 running  0:\d\d  evil/fine.ipynb", line) for line in moving)
    assert all(len(line) < 80 for line in moving if line.startswith("[") and " running " in line)
    assert "evil/red\\x1b[31m\\nname.ipynb: completed in " in text
    table = text[text.index("notebook  ") :].splitlines()
    assert all(len(line) <= 80 for line in table)
    assert table[3].startswith("2 notebooks")


# ---- what notebooks share -------------------------------------------------------------------------------------------


def test_no_more_notebooks_are_started_once_the_budget_of_the_day_is_used_up(tmp_path: Path) -> None:
    folders = [write(tmp_path, f"n{number}", LOAD, agent("sum"), scripts=SUM) for number in range(4)]
    done = run(tmp_path, ".", AGENT_DAY_BUDGET_USD="0.003")
    assert done.returncode == 1
    assert [row[0] for row in rows(done.stdout).values()] == ["completed", "failed", "not started", "not started"]
    assert "n1/work.ipynb: An agent cell did not complete: Stopped at the budget" in done.stdout
    why = "The budget of today ($0.003, AGENT_DAY_BUDGET_USD from environment) is used up: $0.0030 spent."
    assert f"n2/work.ipynb and 1 more: {why}" in done.stdout
    assert done.stderr.count(why) == 1
    assert [status(folder) for folder in folders] == ["completed", "failed", None, None]


def test_notebooks_wait_for_a_server_that_says_too_many_requests(tmp_path: Path) -> None:
    last = 0.0
    refused = 0

    def answer_now_and_then(request: dict[str, object]) -> Reply:
        nonlocal last, refused
        if time.monotonic() - last < 0.5:
            refused += 1
            error = {"message": "Rate limit reached.", "type": "requests"}
            return Reply(status=429, body={"error": error}, headers={"Retry-After": "1"})
        last = time.monotonic()
        return Reply("It is 5050.")

    for number in range(4):
        write(tmp_path, f"n{number}", LOAD, "%%agent\nSum.")
    with ModelServer(answer_now_and_then) as server:
        done = run(tmp_path, ".", "--jobs", "4", "--max-retry", "20", OPENAI_BASE_URL=server.url, MODEL="scripted")
    assert done.returncode == 0, done.stdout
    assert refused > 0


def test_a_gateway_that_dies_fails_the_notebooks_that_need_it_and_no_other(tmp_path: Path) -> None:
    script = {"sum": [step("print(sum(range(101)))"), answer("It is 5050.")]}
    write(tmp_path, "a", LOAD, agent("sum"), scripts=script)
    waits = [REACHED, "import os, time\nwhile not os.path.exists('../down'): time.sleep(0.05)"]
    during = write(
        tmp_path, "b", LOAD, agent("sum"), *waits, agent("again"), scripts={**script, "again": script["sum"]}
    )
    write(tmp_path, "c", *waits, "print('no agent here')")
    with jupyter("gateway") as gateway:
        environ = {"AGENT_REMOTE_URL": gateway.url, "AGENT_REMOTE_TOKEN": gateway.token}
        process = subprocess.Popen(
            [*COMMAND, ".", "-j", "2", "-e", "remote"],
            cwd=tmp_path,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for(lambda: (during / "reached").exists() and status(tmp_path / "a") == "completed")
            gateway.process.kill()
            gateway.process.wait(10)
            (tmp_path / "down").touch()
            table, told = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 1, told
    assert {name: row[0] for name, row in rows(table).items()} == {"a": "completed", "b": "failed", "c": "completed"}
    assert re.search(r"b/work.ipynb: A cell failed: .*(reached|lost|gone)", table)
    assert "5050" in str(nbformat.read(during / "work-run.ipynb", 4).cells)  # what was done before it
