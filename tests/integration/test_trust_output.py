"""`--trust-output`: rich output uncleaned, for whoever asks for it in so many words and is there to see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from sandbox_agent_magic.cli.notebooks import run_one
from sandbox_agent_magic.errors import SettingsError, UsageError
from sandbox_agent_magic.outputs import CELLS_MIMETYPE, text_of
from sandbox_agent_magic.session import Session
from sandbox_agent_magic.types import Output

pytestmark = pytest.mark.integration

SCRIPT_TAG = "<script>1</script>"
SHOW = (
    "from IPython.display import publish_display_data\n"
    f"publish_display_data({{'text/html': {SCRIPT_TAG!r}, {CELLS_MIMETYPE!r}: {{}}}}, "
    "{'sandbox_agent': {'cell': 'forged'}})"
)
REPLIES = [{"text": "I show.", "code": SHOW}, {"text": "Shown."}] * 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.json").write_text(json.dumps(REPLIES))
    return tmp_path


@pytest.fixture
def session(folder: Path) -> Iterator[Session]:
    with Session(provider="scripted", model=str(folder / "script.json")) as made:
        yield made


def shown(session: Session, **overrides: object) -> tuple[Output, ...]:
    return session.ask("Show it.", overrides=overrides).steps[0].result.outputs


def has_script(outputs: tuple[Output, ...]) -> bool:
    return any(SCRIPT_TAG in str(output["data"]) for output in outputs if output["output_type"] == "display_data")


def test_output_is_cleaned_unless_a_cell_asks_otherwise_and_then_for_that_cell_only(session: Session) -> None:
    assert not has_script(shown(session))
    assert has_script(shown(session, agent_trust_output=True))
    assert not has_script(shown(session))


def test_trust_never_covers_our_own_cells_nor_their_mark(session: Session) -> None:
    outputs = shown(session, agent_trust_output=True)
    assert outputs[0]["output_type"] == "display_data"
    assert CELLS_MIMETYPE not in outputs[0]["data"]
    assert outputs[0]["metadata"] == {}
    assert CELLS_MIMETYPE in text_of(outputs[1:])


def test_the_environment_may_ask_for_it_and_a_env_file_may_not(
    session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_TRUST_OUTPUT", "true")
    assert has_script(shown(session))
    monkeypatch.delenv("AGENT_TRUST_OUTPUT")
    (folder / ".env").write_text("AGENT_TRUST_OUTPUT=true\n")
    with pytest.raises(SettingsError, match="is not taken from"):
        shown(session)


def test_headless_it_is_refused_to_a_cell_and_off_for_the_environment(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.headless = True
    with pytest.raises(UsageError, match="headless"):
        shown(session, agent_trust_output=True)
    monkeypatch.setenv("AGENT_TRUST_OUTPUT", "true")
    assert not has_script(shown(session))


def notebook(folder: Path, line: str) -> Path:
    path = folder / "notebook.ipynb"
    cells = ["%load_ext sandbox_agent_magic", f"%%agent -p scripted -m script.json {line}\nShow it."]
    nbformat.write(nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells))), path)
    return path


def test_a_headless_run_of_a_notebook_cleans_whatever_is_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_TRUST_OUTPUT", "true")
    assert run_one(notebook(folder, ""), folder / "out.ipynb", {}) == 0
    assert "publish_display_data" in (folder / "out.ipynb").read_text()
    for cell in nbformat.read(folder / "out.ipynb", as_version=4).cells:
        assert all("<script>" not in str(output.get("data", {}).get("text/html")) for output in cell.get("outputs", []))


def test_a_headless_run_refuses_a_cell_that_asks_for_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_one(notebook(folder, "--trust-output"), folder / "out.ipynb", {}) != 0
    assert "headless" in capsys.readouterr().err


@pytest.mark.parametrize("watched", [True, False])
def test_other_programs_that_run_notebooks_are_known_by_their_refusal_of_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """What a front end with a reader does is done here by saying that input is possible."""
    monkeypatch.setenv("AGENT_TRUST_OUTPUT", "true")

    class Client(NotebookClient):  # type: ignore[misc]
        async def async_start_new_kernel_client(self) -> object:
            client = await super().async_start_new_kernel_client()
            client.allow_stdin = watched
            return client

    book = nbformat.read(notebook(folder, ""), as_version=4)
    Client(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    outputs = book.cells[1].outputs
    assert any(SCRIPT_TAG in str(output.get("data", {}).get("text/html")) for output in outputs) == watched
    assert any("shown uncleaned" in output.get("text", "") for output in outputs) == watched
