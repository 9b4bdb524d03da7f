"""The magics, as a reader types them in a terminal: a real shell, a real sandbox, a scripted model."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic import Session
from sandbox_agent_magic.errors import SandboxAgentError, UsageError
from sandbox_agent_magic.magic import AgentInterrupted
from sandbox_agent_magic.outputs import strip_colours
from sandbox_agent_magic.types import RunResult

SUM = [{"text": "I sum.", "code": "total = sum(range(1, 101))\nprint(total)"}, {"text": "The sum is 5050."}]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sum.json").write_text(json.dumps(SUM))
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "sandbox_agent_magic")
    yield made
    made.run_line_magic("unload_ext", "sandbox_agent_magic")
    InteractiveShell.clear_instance()


def agent(shell: InteractiveShell, line: str, cell: str = "Sum 1 to 100.") -> None:
    shell.run_cell_magic("agent", line, cell)


def script(folder: Path, *replies: dict[str, object]) -> str:
    (folder / "script.json").write_text(json.dumps(replies))
    return "-p scripted -m script.json"


def test_a_request_runs_in_the_sandbox_and_its_result_is_kept(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    agent(shell, "-p scripted -m sum.json -o result")
    result = shell.user_ns["result"]
    assert isinstance(result, RunResult)
    assert (result.status, result.answer, result.executor) == ("completed", "The sum is 5050.", "sandbox")
    assert "total" not in shell.user_ns
    shown = capsys.readouterr().out
    assert "5050" in shown
    assert "Done in" in shown


def test_a_sandbox_cell_sees_the_agents_variables(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    agent(shell, "-p scripted -m sum.json")
    capsys.readouterr()
    shell.run_cell_magic("sandbox", "", "print(total + 1)")
    assert capsys.readouterr().out == "5051\n"


def test_an_error_in_a_sandbox_cell_is_that_codes_own(shell: InteractiveShell) -> None:
    with pytest.raises(Exception, match="division by zero") as caught:
        shell.run_cell_magic("sandbox", "", "1/0")
    assert type(caught.value).__name__ == "ZeroDivisionError"
    shown = strip_colours("\n".join(caught.value._render_traceback_()))  # type: ignore[attr-defined]
    assert "1/0" in shown
    assert "sandbox_agent_magic" not in shown


def test_a_file_is_sent_and_announced(shell: InteractiveShell, tmp_path: Path) -> None:
    (tmp_path / "my data.csv").write_text("a,b\n1,2\n3,4\n")
    line = script(tmp_path, {"code": "print(open('my data.csv').read())"}, {"text": "Read."})
    agent(shell, f'{line} -f "my data.csv" -o r')
    assert "3,4" in shell.user_ns["r"].steps[0].result.outputs[0]["text"]


def test_the_agent_does_not_see_files_that_were_not_sent_and_the_reader_gets_a_hint(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    line = script(tmp_path, {"code": "open('secret.csv')"}, {"text": "It is not there."})
    agent(shell, f"{line} -o r", "Read secret.csv")
    assert shell.user_ns["r"].steps[0].result.error.ename == "FileNotFoundError"
    assert "%%agent -f secret.csv" in capsys.readouterr().out


def test_braces_and_dollars_in_a_prompt_are_data(shell: InteractiveShell, tmp_path: Path) -> None:
    shell.user_ns["x"] = "expanded"
    agent(shell, script(tmp_path, {"text": "Fine {x} $x."}) + " -o r", "What is {x} and $x and %s?")
    assert shell.user_ns["r"].answer == "Fine {x} $x."


@pytest.mark.parametrize(
    ("line", "cell", "words"),
    [
        ("-p scripted -m sum.json", "  \n", "There is no request"),
        ("--modle x", "Hi", "Did you mean --model?"),
        ("what is this", "Hi", "below the %%agent line"),
        ("-f missing.csv", "Hi", "There is no file missing.csv"),
        ("--keep some", "Hi", "--keep"),
        ("--temperature hot -p scripted", "Hi", "TEMPERATURE"),
        ("-p nobody", "Hi", "nobody"),
        ("-e nowhere -p scripted -m sum.json", "Hi", "nowhere"),
        ("-o 3x", "Hi", "variable"),
        ("-m 'unclosed", "Hi", "quotation"),
        ("-e local -p scripted -m sum.json", "Hi", "--yes"),
    ],
)
def test_a_mistake_is_at_most_three_clear_lines(shell: InteractiveShell, line: str, cell: str, words: str) -> None:
    with pytest.raises(SandboxAgentError) as caught:
        agent(shell, line, cell)
    assert words in str(caught.value)
    assert len(caught.value._render_traceback_()) <= 3


def test_the_local_executor_runs_here_after_a_yes(shell: InteractiveShell) -> None:
    agent(shell, "-p scripted -m sum.json -e local --yes")
    assert shell.user_ns["total"] == 5050


def test_a_setting_cannot_choose_the_local_executor(shell: InteractiveShell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AGENT_EXECUTOR=local\n")
    with pytest.raises(UsageError, match="must be chosen in the cell itself"):
        agent(shell, "-p scripted -m sum.json --yes")


def test_detailed_error_false_shows_one_line(shell: InteractiveShell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DETAILED_ERROR=false\n")
    with pytest.raises(SandboxAgentError) as caught:
        agent(shell, "-f missing.csv")
    assert caught.value._render_traceback_() == ["There is no file missing.csv."]


def test_no_provider_at_all_is_three_lines_that_help(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("OPENAI_", "AZURE_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(SandboxAgentError) as caught:
        agent(shell, "")
    lines = caught.value._render_traceback_()
    assert len(lines) == 3
    assert all(word in "\n".join(lines) for word in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "sandbox-agent model pull"))


def test_an_interrupt_keeps_the_session(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "open('begun', 'w').close()\nimport time; time.sleep(60)"
    line = script(tmp_path, {"code": "x = 41"}, {"code": slow}, {"text": "never"})
    room = tmp_path / "room"
    room.mkdir()
    magics = shell.magics_manager.registry["AgentMagics"]
    monkeypatch.setattr(magics, "_session", Session(workspace=room))

    def interrupt_when_the_second_step_runs() -> None:
        end = time.monotonic() + 60
        while not (room / "begun").exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_the_second_step_runs).start()
    with pytest.raises(AgentInterrupted):
        agent(shell, line)
    capsys.readouterr()
    shell.run_cell_magic("sandbox", "", "print(x + 1)")
    assert capsys.readouterr().out == "42\n"


def test_cells_continue_one_conversation_until_reset(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    agent(shell, "-p scripted -m sum.json")
    shell.run_cell_magic("sandbox", "", "1")
    capsys.readouterr()
    shell.run_line_magic("agent", "")
    assert "2 cells" in capsys.readouterr().out
    shell.run_line_magic("agent", "reset")
    assert "New conversation" in capsys.readouterr().out
    with pytest.raises(Exception, match="total"):
        shell.run_cell_magic("sandbox", "", "total")


def test_config_shows_values_and_sources_but_no_secret(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-placeholder-value-4f2a")
    shell.run_line_magic("agent", "config")
    shown = capsys.readouterr().out
    assert "ends in ...4f2a" in shown
    assert "placeholder" not in shown
    assert "environment" in shown


def test_a_sandbox_that_was_lost_is_said_and_its_cells_can_run_again(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell_magic("sandbox", "", "kept = 'kept'")
    with pytest.raises(Exception, match="kernel ended"):
        shell.run_cell_magic("sandbox", "", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "%agent restart --replay" in capsys.readouterr().err
    shell.run_line_magic("agent", "restart --replay")
    assert "all 1 cells" in capsys.readouterr().out
    shell.run_cell_magic("sandbox", "", "print(kept)")
    assert capsys.readouterr().out == "kept\n"


@pytest.mark.parametrize("line", ["restart --again", "reset now", "config all"])
def test_a_subcommand_with_unknown_words_does_nothing(shell: InteractiveShell, line: str) -> None:
    with pytest.raises(UsageError, match="does not understand"):
        shell.run_line_magic("agent", line)


def test_an_unknown_subcommand_says_which_there_are(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="%agent status or %agent config or %agent reset"):
        shell.run_line_magic("agent", "explode")


def test_in_a_terminal_there_are_no_cells_to_insert_or_remove(shell: InteractiveShell) -> None:
    agent(shell, "-p scripted -m sum.json")
    with pytest.raises(UsageError, match="no cells to insert"):
        shell.run_line_magic("agent", "insert")
    with pytest.raises(UsageError, match="no run whose cells"):
        shell.run_line_magic("agent", "undo")


def test_help_reads_well(shell: InteractiveShell) -> None:
    magic = shell.find_cell_magic("agent")
    text = magic.__doc__
    assert text is not None
    assert "%%agent" in text
    assert all(option in text for option in ("--provider", "--file", "--keep", "--yes"))
