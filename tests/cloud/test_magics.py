"""What a reader types, and sees, of a sandbox in a cloud."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic.errors import SettingsError, UsageError

from .conftest import Provider

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: Provider) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(tmp_path)
    for name, value in provider.environ.items():
        monkeypatch.setenv(name, value)
    replies = [
        {"code": "total = sum(range(1, 101))\nprint(total)\nopen('made.txt', 'w').write('x')"},
        {"text": "5050."},
    ]
    (tmp_path / "sum.json").write_text(json.dumps(replies * 3))
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "sandbox_agent_magic")
    yield made
    made.run_line_magic("unload_ext", "sandbox_agent_magic")
    InteractiveShell.clear_instance()


def agent(shell: InteractiveShell, line: str) -> None:
    shell.run_line_magic("agent", line)


def ask(shell: InteractiveShell, line: str) -> None:
    shell.run_cell_magic("agent", f"-p scripted -m sum.json {line}", "Sum 1 to 100.")


def test_an_agent_works_there_and_its_cells_run_there_again(
    shell: InteractiveShell, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    name = provider.name
    ask(shell, f"-e {name} -o result")
    assert re.fullmatch(rf"{name} \(in \w+'s cloud\)", shell.user_ns["result"].executor)
    assert "Files: made.txt (1 bytes); %agent get NAME copies one here" in capsys.readouterr().out
    shell.run_cell_magic("sandbox", f"-e {name} -o doubled", "doubled = total * 2\nprint(doubled)")
    assert capsys.readouterr().out == "10100\n"
    assert shell.user_ns["doubled"] == 10100
    shell.user_ns["mine"] = [1, 2]
    agent(shell, "send mine")
    agent(shell, "get made.txt")
    assert Path("made.txt").read_text() == "x"
    agent(shell, "restart")
    with pytest.raises(Exception, match="'total' is not defined"):
        shell.run_cell_magic("sandbox", f"-e {name}", "total")
    agent(shell, "restart --replay")
    capsys.readouterr()
    shell.run_cell_magic("sandbox", f"-e {name}", "print(total, mine)")
    assert capsys.readouterr().out == "5050 [1, 2]\n"
    agent(shell, "reset")
    assert provider.ids() == []


def test_sandboxes_are_listed_told_apart_and_ended(
    shell: InteractiveShell, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    name = provider.name
    other = provider.make()
    other.execute("1", timeout_s=60, on_output=lambda _: None)
    (left_over,) = provider.ids()
    agent(shell, f"sandboxes -e {name}")
    assert re.search(rf"{name} +{left_over} .*of another notebook, or left over", capsys.readouterr().out)
    with pytest.raises(UsageError, match="Nothing runs in"):
        agent(shell, f"sandbox id -e {name}")
    ask(shell, f"-e {name}")
    capsys.readouterr()
    agent(shell, "sandbox id")
    own = capsys.readouterr().out.strip()
    assert set(provider.ids()) == {left_over, own}
    agent(shell, "sandboxes")
    assert re.search(rf"{name} +{own} .*ends with this kernel", capsys.readouterr().out)
    provider.cloud.fail("GET .*/sandboxes$", status=503, times=20)  # an SDK may try again
    agent(shell, "sandboxes")
    said = "ends with this kernel; the account's others: .* failure of its own"
    assert re.search(rf"{own} .*{said}", capsys.readouterr().out)
    provider.cloud.heal()
    agent(shell, f"sandbox end {left_over}")
    assert f"ended {left_over}" in capsys.readouterr().out
    assert provider.ids() == [own]
    for name in (left_over, "../x"):
        with pytest.raises(UsageError, match="There is no sandbox"):
            agent(shell, f"sandbox end {name}")
    agent(shell, "sandbox end")
    assert provider.ids() == []


def test_a_kept_sandbox_survives_a_reset_and_is_used_again(
    shell: InteractiveShell, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    name = provider.name
    ask(shell, f"-e {name} --keep-sandbox")
    (kept,) = provider.ids()
    assert f"Kept, with its variables and files: -e {name} --session {kept}\n" in capsys.readouterr().out
    agent(shell, "sandboxes")
    assert re.search(rf"{kept} .*goes on after this kernel", capsys.readouterr().out)
    agent(shell, "reset")
    assert f"--session {kept}" in capsys.readouterr().out
    assert provider.ids() == [kept]
    ask(shell, f"-e {name} --session {kept}")
    capsys.readouterr()
    shell.run_cell_magic("sandbox", f"-e {name}", "print(total)")
    assert capsys.readouterr().out == "5050\n"
    agent(shell, "sandboxes")
    assert re.search(rf"{kept} .*was there before, and stays", capsys.readouterr().out)
    agent(shell, "reset")
    assert provider.ids() == [kept]


def test_a_sandbox_can_be_kept_after_it_was_made_and_another_one_taken(
    shell: InteractiveShell, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    name = provider.name
    other = provider.make()
    other.execute("total = 'the other'", timeout_s=60, on_output=lambda _: None)
    (there,) = provider.ids()
    ask(shell, f"-e {name}")
    agent(shell, "sandbox keep")
    assert "goes on after this kernel's end" in capsys.readouterr().out
    ask(shell, f"-e {name} --session {there}")
    agent(shell, "sandbox id")
    assert capsys.readouterr().out.strip().endswith(there)
    assert len(provider.ids()) == 2


def test_options_for_a_cloud_are_refused_elsewhere(shell: InteractiveShell) -> None:
    for option in ("--session sbx-1", "--keep-sandbox"):
        with pytest.raises(UsageError, match="is for sandboxes in a cloud"):
            ask(shell, option)


def test_without_a_key_it_says_which_one(
    shell: InteractiveShell, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in provider.environ:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=f"{provider.name.upper()}_API_KEY is not set"):
        ask(shell, f"-e {provider.name}")
