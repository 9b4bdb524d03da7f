"""What a reader moves over the sandbox's border, typed as magics: variables, files, packages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic.errors import SandboxAgentError, SettingsError, UsageError, WorkspaceError


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "sandbox_agent_magic")
    yield made
    made.run_line_magic("unload_ext", "sandbox_agent_magic")
    InteractiveShell.clear_instance()


def agent(shell: InteractiveShell, line: str) -> None:
    shell.run_line_magic("agent", line)


def sandbox(shell: InteractiveShell, cell: str, line: str = "") -> None:
    shell.run_cell_magic("sandbox", line, cell)


def script(folder: Path, *replies: dict[str, object]) -> str:
    (folder / "script.json").write_text(json.dumps(replies))
    return "-p scripted -m script.json"


def test_variables_go_in_and_come_back(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.user_ns["df"] = frame = pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2020", periods=2, tz="UTC"))
    shell.user_ns["model_params"] = {"depth": 3}
    agent(shell, "send df model_params")
    assert "sent df: pandas DataFrame, 2 rows x 1 columns: a (int64)" in capsys.readouterr().out
    sandbox(shell, "df['b'] = df['a'] * model_params['depth']")
    agent(shell, "take df changed")
    pd.testing.assert_frame_equal(shell.user_ns["changed"], frame.assign(b=[3, 6]))
    assert list(shell.user_ns["df"]) == ["a"]
    agent(shell, "take model_params")
    assert shell.user_ns["model_params"] == {"depth": 3}


def test_what_runs_is_listed_with_its_place(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    agent(shell, "sandboxes")
    assert capsys.readouterr().out == "Nothing is running: the first code starts what it needs.\n"
    sandbox(shell, "1")
    capsys.readouterr()
    agent(shell, "sandboxes")
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["executor", "id", "where", "running", "for"]
    pid = int(row.split()[2])
    assert Path(f"/proc/{pid}").exists()
    assert row.startswith(f"sandbox   process {pid}  ")
    assert row.endswith(" s          ends with this kernel")
    agent(shell, "reset")
    agent(shell, "sandboxes")
    assert capsys.readouterr().out.endswith("Nothing is running: the first code starts what it needs.\n")
    with pytest.raises(UsageError, match="is not understood"):
        agent(shell, "sandboxes all")


def test_the_model_is_told_of_variables_that_were_sent_but_never_of_rows(
    shell: InteractiveShell, tmp_path: Path
) -> None:
    shell.user_ns["df"] = pd.DataFrame({"price": [98765.25]})
    shell.user_ns["rate"] = 0.5
    line = script(tmp_path, {"code": "print(df['price'].sum() * rate)"}, {"text": "49382.6"})
    shell.run_cell_magic("agent", f"{line} --send df,rate -o r", "Sum the price in df, times rate.")
    session = shell.magics_manager.registry["AgentMagics"].session
    (first, *_) = session._conversation_before(None)
    assert "- df: pandas DataFrame, 1 rows x 1 columns: price (float64)\n- rate: float" in first.text
    assert "98765" not in first.text
    assert shell.user_ns["r"].steps[0].result.outputs[0]["text"] == "49382.625\n"


def test_a_variable_that_was_not_sent_gives_a_hint_and_one_that_was_gives_none(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["orders"] = [1, 2]
    line = script(tmp_path, {"text": "Yes."}, {"text": "Yes."})
    shell.run_cell_magic("agent", line, "Count the orders.")
    assert "%%agent --send orders" in capsys.readouterr().out
    shell.run_cell_magic("agent", f"{line} --send orders", "Count the orders.")
    assert "--send" not in capsys.readouterr().out


def test_o_of_a_sandbox_cell_takes_variables(shell: InteractiveShell) -> None:
    sandbox(shell, "total = 5050\nname = 'x'", "-o total -o name")
    assert (shell.user_ns["total"], shell.user_ns["name"]) == (5050, "x")
    with pytest.raises(UsageError, match="no variable nothing"):
        sandbox(shell, "1", "-o nothing")
    with pytest.raises(UsageError, match="options are -e EXECUTOR and -o NAME"):
        sandbox(shell, "1", "--output total")


def test_files_are_announced_listed_and_copied_out(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox(shell, "import os; os.mkdir('d'); n = open('d/chart.png', 'w').write('abc')")
    assert "Files: d/chart.png (3 bytes); %agent get NAME copies one here" in capsys.readouterr().out
    agent(shell, "files")
    assert "image/png" in capsys.readouterr().out
    agent(shell, "get d/chart.png")
    assert (tmp_path / "chart.png").read_text() == "abc"
    (tmp_path / "kept.png").write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        agent(shell, "get d/chart.png kept.png")
    assert (tmp_path / "kept.png").read_text() == "mine"
    agent(shell, "get d/chart.png kept.png --force")
    assert (tmp_path / "kept.png").read_text() == "abc"


def test_a_file_that_is_a_link_to_the_host_is_not_copied_out(shell: InteractiveShell, tmp_path: Path) -> None:
    sandbox(shell, "import os; os.symlink('/etc/hostname', 'chart.png')")
    with pytest.raises(WorkspaceError):
        agent(shell, "get chart.png")
    assert not (tmp_path / "chart.png").exists()


def test_get_does_not_write_through_a_link_without_force(shell: InteractiveShell, tmp_path: Path) -> None:
    sandbox(shell, "n = open('a.txt', 'w').write('abc')")
    (tmp_path / "a.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="exists"):
        agent(shell, "get a.txt")
    assert not (tmp_path / "elsewhere").exists()


def test_a_notebook_has_a_folder_that_stays(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.ipynb").write_text("{}")
    shell.user_ns["__vsc_ipynb_file__"] = str(tmp_path / "study.ipynb")
    sandbox(shell, "n = open('out.txt', 'w').write('abc')")
    assert "Files: out.txt (3 bytes) in study.sandbox" in capsys.readouterr().out
    agent(shell, "reset")
    assert "its files stay in" in capsys.readouterr().out
    file = tmp_path / "study.sandbox" / "out.txt"
    assert (file.read_text(), file.stat().st_uid) == ("abc", os.getuid())


def test_a_notebooks_folder_in_which_nothing_was_put_is_removed(shell: InteractiveShell, tmp_path: Path) -> None:
    (tmp_path / "study.ipynb").write_text("{}")
    shell.user_ns["__vsc_ipynb_file__"] = str(tmp_path / "study.ipynb")
    sandbox(shell, "1")
    assert (tmp_path / "study.sandbox").is_dir()
    agent(shell, "reset")
    assert not (tmp_path / "study.sandbox").exists()
    assert list((tmp_path / "cache").rglob("packages/*")) == []


def test_a_folder_with_secrets_is_refused(
    shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / ".env").write_text("A=1")
    monkeypatch.setenv("AGENT_WORKSPACE", str(tmp_path / "room"))
    with pytest.raises(WorkspaceError, match=r"\.env"):
        sandbox(shell, "1")


def test_an_env_file_cannot_hand_over_a_folder_above_it(shell: InteractiveShell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AGENT_WORKSPACE=..\n")
    with pytest.raises(SettingsError):
        sandbox(shell, "1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("send", "needs a name"),
        ("send nothing", "no variable nothing in your kernel"),
        ("take", "needs a name"),
        ("take a b c", "one variable at a time"),
        ("take a b-c", "cannot be a variable's name"),
        ("get", "needs a name"),
        ("get a b c", "%agent get FILE"),
        ("files x", "no arguments"),
        ("install", "needs a name"),
        ("install --index-url=https://evil.example/simple x", "not the name of a package"),
        ("install ./x.whl", "not the name of a package"),
        ("send 'x", "quotation"),
    ],
)
def test_a_mistake_is_at_most_three_clear_lines(shell: InteractiveShell, line: str, words: str) -> None:
    with pytest.raises(SandboxAgentError) as caught:
        agent(shell, line)
    assert words in str(caught.value)
    assert len(caught.value._render_traceback_()) <= 3


def test_sending_is_for_the_sandbox_only(shell: InteractiveShell, tmp_path: Path) -> None:
    shell.user_ns["x"] = 1
    with pytest.raises(UsageError, match="sees your variables already"):
        shell.run_cell_magic("agent", script(tmp_path, {"text": "No."}) + " -e local --yes --send x", "Print x.")


def test_a_sandbox_on_this_machine_is_named_and_ends_with_the_kernel(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="Nothing runs in sandbox yet"):
        agent(shell, "sandbox id")
    sandbox(shell, "1")
    capsys.readouterr()
    agent(shell, "sandbox id")
    assert capsys.readouterr().out.startswith("process ")
    for line in ("sandbox keep", "sandbox end"):
        with pytest.raises(UsageError, match="What runs in sandbox ends with this kernel"):
            agent(shell, line)
    with pytest.raises(UsageError, match="is not understood"):
        agent(shell, "sandbox what")
