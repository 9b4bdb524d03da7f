"""The reader's own kernel as executor: what it catches, and what it leaves as it was."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic.errors import ExecutorError
from sandbox_agent_magic.executors.local import LocalExecutor
from sandbox_agent_magic.types import ExecutionResult


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.chdir(tmp_path)
    yield LocalExecutor(InteractiveShell.instance())
    InteractiveShell.clear_instance()


def run(executor: LocalExecutor, code: str, timeout_s: float = 20) -> ExecutionResult:
    return executor.execute(code, timeout_s=timeout_s, on_output=lambda _: None)


def test_streams_displays_and_results_come_in_order(executor: LocalExecutor) -> None:
    code = (
        "from IPython.display import display\nimport sys\nprint('a'); display('b'); print('c', file=sys.stderr)\n6 * 7"
    )
    result = run(executor, code)
    assert [output["output_type"] for output in result.outputs] == [
        "stream",
        "display_data",
        "stream",
        "execute_result",
    ]
    assert result.outputs[-1]["data"]["text/plain"] == "42"  # type: ignore[typeddict-item]


def test_state_is_the_readers(executor: LocalExecutor) -> None:
    run(executor, "x = 40")
    assert executor._ready_shell().user_ns["x"] == 40


def test_an_exception_is_in_the_result_and_printed_nowhere(
    executor: LocalExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(executor, "print('before')\n1/0")
    assert result.status == "error"
    assert result.error is not None
    assert result.error.ename == "ZeroDivisionError"
    assert result.error.traceback
    assert result.outputs[0]["text"] == "before\n"  # type: ignore[typeddict-item]
    assert capsys.readouterr() == ("", "")


def test_a_syntax_error_is_in_the_result(executor: LocalExecutor) -> None:
    result = run(executor, "x = (")
    assert (result.status, result.error and result.error.ename) == ("error", "SyntaxError")


def test_top_level_await_is_refused_clearly(executor: LocalExecutor) -> None:
    result = run(executor, "import asyncio\nawait asyncio.sleep(0)")
    assert result.status == "error"
    assert result.error is not None
    assert "top-level await" in result.error.evalue


def test_code_that_runs_too_long_is_stopped(executor: LocalExecutor) -> None:
    result = run(executor, "print('begun')\ntry:\n    while True: pass\nexcept Exception: pass", timeout_s=0.3)
    assert result.status == "timeout"
    assert result.outputs[0]["text"] == "begun\n"  # type: ignore[typeddict-item]
    assert result.duration_s < 2
    assert run(executor, "1").status == "ok"


def test_an_interrupt_stops_the_code(executor: LocalExecutor) -> None:
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    result = run(executor, "import time; time.sleep(10)")
    assert result.status == "interrupted"
    assert result.duration_s < 2


def test_everything_is_put_back(executor: LocalExecutor) -> None:
    shell = executor._ready_shell()
    before = sys.stdout, sys.displayhook, shell.display_pub, shell.display_trap.hook, signal.getsignal(signal.SIGALRM)
    run(executor, "1/0")
    after = sys.stdout, sys.displayhook, shell.display_pub, shell.display_trap.hook, signal.getsignal(signal.SIGALRM)
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert "_showtraceback" not in vars(shell)


def test_new_files_are_reported(executor: LocalExecutor) -> None:
    result = run(executor, "open('out.txt', 'w').write('abc')")
    assert [(file.name, file.size) for file in result.new_files] == [("out.txt", 3)]
    time.sleep(0.01)
    assert run(executor, "1").new_files == ()


def test_it_does_not_overwrite_a_file_of_the_reader(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("mine")
    other = tmp_path / "elsewhere" / "data.csv"
    other.parent.mkdir()
    other.write_text("other")
    with pytest.raises(ExecutorError, match="another file"):
        executor.put_file(other, "data.csv")
    assert (tmp_path / "data.csv").read_text() == "mine"


def test_it_refuses_to_restart_and_to_install(executor: LocalExecutor) -> None:
    with pytest.raises(ExecutorError, match="restart"):
        executor.restart()
    with pytest.raises(ExecutorError, match="pip install numpy"):
        executor.install(["numpy"])
