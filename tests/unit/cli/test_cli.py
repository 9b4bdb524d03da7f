"""The command line, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.model_server import ModelServer, Reply

SUM = [{"text": "I sum.", "code": "print(sum(range(1, 101)))"}, {"text": "The sum is 5050."}]
COMMAND = [sys.executable, "-P", "-m", "sandbox_agent_magic.cli"]


def environment(folder: Path) -> dict[str, str]:
    """No provider, no model, and a home of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    return {
        **kept,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
        "PYTHONUNBUFFERED": "1",
    }


def run(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sum.json").write_text(json.dumps(SUM))
    return tmp_path


def test_ask_prints_the_answer_and_progress_apart(folder: Path) -> None:
    done = run(folder, "ask", "-p", "scripted", "-m", "sum.json", "Sum 1 to 100.")
    assert (done.returncode, done.stdout) == (0, "The sum is 5050.\n")
    assert "print(sum(range(1, 101)))" in done.stderr
    assert "Done in" in done.stderr


def test_ask_json_is_one_object_with_the_steps(folder: Path) -> None:
    done = run(folder, "ask", "--json", "-q", "-p", "scripted", "-m", "sum.json", "-", stdin="Sum 1 to 100.")
    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert (found["status"], found["answer"], found["executor"]) == ("completed", "The sum is 5050.", "sandbox")
    assert found["steps"] == [
        {
            "code": "print(sum(range(1, 101)))",
            "status": "ok",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "5050\n"}],
        }
    ]
    assert set(found["usage"]) == {"input_tokens", "cached_tokens", "output_tokens", "cost_usd", "cache_write_tokens"}


def test_no_provider_is_exit_code_2_and_three_lines_that_help(folder: Path) -> None:
    done = run(folder, "ask", "Hi")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert all(word in done.stderr for word in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "sandbox-agent model pull"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", " "], "The request is empty."),
        (["ask", "Hi", "-f", "missing.csv"], "There is no file missing.csv."),
        (["ask", "Hi", "--temperature", "hot"], "TEMPERATURE"),
        (["ask", "Hi", "-e", "local"], "--yes"),
        (["ask", "Hi", "--wrong"], "--wrong"),
        ([], "COMMAND"),
        (["run", "x.ipynb", "-e", "local"], "cell by cell"),
    ],
)
def test_bad_usage_is_exit_code_2(folder: Path, arguments: list[str], words: str) -> None:
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_does_not_complete_is_exit_code_1(folder: Path) -> None:
    (folder / "loop.json").write_text(json.dumps([{"code": f"x = {i}"} for i in range(5)]))
    done = run(folder, "ask", "--json", "-p", "scripted", "-m", "loop.json", "--max-iterations", "2", "Go.")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "limit"


def test_ctrl_c_is_exit_code_130_within_a_second_and_leaves_no_process(folder: Path) -> None:
    (folder / "slow.json").write_text(json.dumps([{"code": "print('begun')\nimport time; time.sleep(60)"}]))
    process = subprocess.Popen(
        [*COMMAND, "ask", "-p", "scripted", "-m", "slow.json", "Go."],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.strip() == "begun":
                break
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(20) == 130
        assert time.monotonic() - began < 3  # the bar of 1 s is the benchmark's; this machine may be busy
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _session(pid) == process.pid]
        assert left == []
    finally:
        process.kill()
        process.communicate()


def _session(pid: str) -> int:
    """The session id of a process, -1 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return -1


def test_doctor_says_what_works_and_what_to_do_about_the_rest(folder: Path) -> None:
    done = run(folder, "doctor", "--json")
    assert done.returncode == 1  # no provider here
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["sandbox"]["ok"]
    assert not checks["provider"]["ok"]
    assert "sandbox-agent model pull" in checks["provider"]["detail"]
    text = run(folder, "doctor").stdout
    assert "AGENT_PROVIDER" in text
    assert "FAIL provider" in text


def test_help_names_every_command(folder: Path) -> None:
    done = run(folder, "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("ask", "run", "expand", "demo", "doctor", "model", "Exit codes"))


def test_expand_works_in_place_and_refuses_what_is_no_notebook(folder: Path) -> None:
    (folder / "bad.ipynb").write_text("not json")
    done = run(folder, "expand", "bad.ipynb")
    assert done.returncode == 1
    assert "not a notebook" in done.stderr
    assert (folder / "bad.ipynb").read_text() == "not json"


@pytest.mark.parametrize(("detailed", "lines"), [("true", 3), ("false", 1)])
def test_an_error_has_three_lines_or_one(folder: Path, detailed: str, lines: int) -> None:
    (folder / ".env").write_text(f"OPENAI_BASE_URL=http://127.0.0.1:9/v1\nDETAILED_ERROR={detailed}\n")
    done = run(folder, "ask", "Anything.")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "127.0.0.1:9 cannot be reached."
    assert len(done.stderr.splitlines()) == lines


def test_a_budget_of_the_command_line_ends_the_run(folder: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "cost_usd": 0.2}
    (folder / "replies.json").write_text(json.dumps([{"code": "1", "usage": usage}] * 5))
    done = run(folder, "ask", "Go on.", "-p", "scripted", "-m", "replies.json", "--budget", "0.3", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "budget"


def test_doctor_makes_one_tiny_call_when_it_is_asked_to(folder: Path) -> None:
    with ModelServer(Reply("ok")) as server:
        (folder / ".env").write_text(f"OPENAI_BASE_URL={server.url}\nMODEL=scripted\n")
        text = run(folder, "doctor").stdout
        assert "call" not in text
        assert not server.seen
        text = run(folder, "doctor", "--call").stdout
        assert len(server.seen) == 1
    assert "ok   call: scripted answered 'ok'" in text
    assert "20 tokens in, 10 out · cost unknown" in text
