"""The session: what it keeps between runs, and what it closes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_agent_magic import Session
from sandbox_agent_magic.errors import SettingsError, UsageError
from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import CellWriter, NotebookCell, RunRequest, RunResult


class Cells(list[NotebookCell]):
    """A writer that keeps its cells."""

    finished: RunResult | None = None

    def add(self, cell: NotebookCell) -> None:
        self.append(cell)

    def finish(self, result: RunResult) -> None:
        self.finished = result


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "script.json"


@pytest.fixture
def session(script: Path) -> Iterator[Session]:
    with Session(provider="scripted", model=str(script)) as made:
        yield made


def write(script: Path, *replies: dict[str, object]) -> None:
    script.write_text(json.dumps(replies))


def test_python_api(session: Session, script: Path) -> None:
    write(script, {"code": "open('out.txt', 'w').write('abc')"}, {"text": "Written."})
    result = session.ask("Write a file.")
    assert (result.status, result.answer) == ("completed", "Written.")
    assert [(file.name, file.size) for file in result.files] == [("out.txt", 3)]


def test_variables_stay_from_one_question_to_the_next(session: Session, script: Path) -> None:
    write(script, {"code": "x = 41"}, {"text": "Set."}, {"code": "print(x + 1)"}, {"text": "42."})
    session.ask("Set x.")
    result = session.ask("Add one.")
    assert result.steps[0].result.outputs[0]["text"] == "42\n"  # type: ignore[typeddict-item]


def test_running_a_cell_again_forgets_its_earlier_turns(session: Session, script: Path) -> None:
    write(script, {"text": "One."}, {"text": "Two."}, {"text": "Three."})
    session.run(RunRequest("first", cell_id="a"))
    session.run(RunRequest("second", cell_id="b"))
    session.run(RunRequest("first again", cell_id="a"))
    texts = [message.text for message in session._conversation_before(None)]
    assert texts == ["second", "Two.", "first again", "Three."]


def test_cells_are_written_as_steps_end(session: Session, script: Path) -> None:
    write(script, {"code": "1/0"}, {"code": "print(2)"}, {"text": "Two."})
    cells = Cells()

    def writer(run_id: str) -> CellWriter:
        assert run_id
        return cells

    session.run(RunRequest("Go"), writer=writer)
    assert [cell["source"] for cell in cells] == ["%%sandbox\nprint(2)", "Two."]
    assert cells.finished is not None


def test_an_interrupt_while_a_cell_is_being_written_loses_no_cell(session: Session, script: Path) -> None:
    write(script, {"code": "print(1)"}, {"code": "print(2)"}, {"text": "Two."})

    class Interrupted(Cells):
        def add(self, cell: NotebookCell) -> None:
            super().add(cell)
            if len(self) == 2:
                raise KeyboardInterrupt

    cells = Interrupted()
    result = session.run(RunRequest("Go"), writer=lambda _: cells)
    assert result.status == "interrupted"
    assert [cell["source"] for cell in cells] == ["%%sandbox\nprint(1)", *["%%sandbox\nprint(2)"] * 2]
    assert cells[1]["id"] == cells[2]["id"]  # a notebook takes it once
    assert cells.finished is result


def test_a_failed_request_loses_no_step(session: Session, script: Path) -> None:
    write(script, {"code": "print(1)"}, {"error": "ProviderAuthError"})
    cells = Cells()
    with pytest.raises(Exception, match=r"."):
        session.run(RunRequest("Go"), writer=lambda _: cells)
    assert [cell["source"] for cell in cells] == ["%%sandbox\nprint(1)"]


def test_code_of_the_reader_in_the_sandbox_enters_the_conversation(session: Session) -> None:
    session.execute("answer = 42\nprint(answer)", on_output=lambda _: None)
    (note,) = session._conversation_before(None)
    assert "answer = 42" in note.text
    assert note.text.endswith("Output:\n42")


def test_an_unknown_setting_is_refused_at_once(script: Path) -> None:
    with pytest.raises(SettingsError, match="TEMPERATURE"):
        Session(temprature=0)


def test_the_local_executor_needs_a_yes(session: Session) -> None:
    with pytest.raises(UsageError, match="consent"):
        session.ask("Hi", overrides={"agent_executor": "local"})


def test_a_restart_loses_variables_and_keeps_files_and_the_conversation(session: Session) -> None:
    session.execute("x = 1\nopen('stays', 'w').close()", on_output=lambda _: None)
    told = session.restart()
    assert "--replay" in str(told)
    assert session.turns == 1
    assert session.execute("x", on_output=lambda _: None).status == "error"
    assert [file.name for file in session.executor().list_files()] == ["stays"]


def test_a_replay_runs_what_worked_again_in_order_and_only_that(session: Session, script: Path) -> None:
    write(script, {"code": "x = 1"}, {"code": "x += 1\n1 / 0"}, {"code": "x *= 10"}, {"text": "Done."})
    session.ask("Go.")
    session.execute("x += 5", on_output=lambda _: None)
    told = session.restart(replay=True)
    assert str(told) == "The sandbox was restarted, and all 3 cells that had worked ran again."
    result = session.execute("print(x)", on_output=lambda _: None)
    assert text_of(result.outputs) == "15"


def test_a_replay_sends_variables_again_as_they_are_now(session: Session) -> None:
    session.send({"rate": 2, "gone": 3})
    session.execute("x = rate * 10", on_output=lambda _: None)
    told = session.restart(replay=True, variables={"rate": 5})
    assert "Sent again, as they are now: rate." in str(told)
    assert "Not sent again: gone." in str(told)
    assert text_of(session.execute("print(x)", on_output=lambda _: None).outputs) == "50"


def test_a_replay_stops_at_the_first_cell_that_fails_now_and_names_it(session: Session) -> None:
    for code in ("x = 1", "import os\nopen('once', 'x').close()", "y = 2"):
        session.execute(code, on_output=lambda _: None)
    told = session.restart(replay=True)
    assert (told.done, told.known) == (1, 3)
    assert "1 of 3" in str(told)
    assert "import os\nFileExistsError" in str(told)
    assert session.execute("x", on_output=lambda _: None).status == "ok"


def test_a_restart_takes_the_limits_that_are_set_now(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.execute("1", on_output=lambda _: None)
    monkeypatch.setenv("AGENT_LIMIT_MEMORY", "300")
    session.restart()
    result = session.execute("bytearray(400 << 20)", on_output=lambda _: None)
    assert result.error is not None
    assert "300 MiB of memory (AGENT_LIMIT_MEMORY)" in result.error.evalue


def test_reset_starts_afresh(session: Session, script: Path) -> None:
    write(script, {"code": "x = 1"}, {"text": "Set."}, {"code": "x"}, {"text": "Gone."})
    session.ask("Set x.")
    session.reset()
    assert session.turns == 0
    result = session.ask("Is x there?")
    assert result.steps[0].result.error is not None
    assert result.steps[0].result.error.ename == "NameError"


def test_a_given_workspace_stays(script: Path, tmp_path: Path) -> None:
    write(script, {"code": "open('kept.txt', 'w').write('abc')"}, {"text": "Written."})
    folder = tmp_path / "room"
    folder.mkdir()
    with Session(provider="scripted", model=str(script), workspace=folder) as session:
        session.ask("Write.")
    assert (folder / "kept.txt").read_text() == "abc"
