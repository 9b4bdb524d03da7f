"""What the arguments of `run` mean, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from sandbox_agent_magic.cli.execution import settings_of
from sandbox_agent_magic.cli.many.plan import Plan, plan
from sandbox_agent_magic.errors import SettingsError, UsageError
from sandbox_agent_magic.notebook.record import RunEnd, RunRecord, Spent, content_digest, seen_from


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, source: str = "1 + 1") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    return path


def write_result(name: str, source: Path, status: RunEnd = "completed") -> Path:
    """A notebook that says that it is the result of `source`."""
    path = write(name)
    notebook = nbformat.read(path, 4)
    digests = (content_digest(source), settings_of(source, {})[1])
    RunRecord(status, seen_from(path.parent, source), *digests, "2026-11-24T13:40:00+00:00", 1.0, Spent()).write(
        notebook.metadata
    )
    nbformat.write(notebook, path)
    return path


def made(*arguments: str, output: str | None = None, force: bool = False, jobs: int = 1, **overrides: object) -> Plan:
    folder = Path(output) if output is not None else None
    return plan([Path(each) for each in arguments], output=folder, overrides=overrides, force=force, jobs=jobs)


def pairs(found: Plan) -> dict[str, str]:
    return {str(job.source): str(job.target) for job in found.jobs}


def refused(*arguments: str, output: str | None = None, force: bool = False, jobs: int = 1) -> str:
    with pytest.raises(UsageError) as caught:
        made(*arguments, output=output, force=force, jobs=jobs)
    assert len(caught.value.lines()) <= 3
    return str(caught.value)


# ---- which notebooks ------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_notebooks_and_those_below_but_not_for_what_a_sandbox_or_an_editor_left() -> None:
    for name in ("c/b.ipynb", "c/a.ipynb", "c/ann/work.ipynb"):
        write(name)
    for name in ("c/.ipynb_checkpoints/a.ipynb", "c/a.sandbox/made-by-a-model.ipynb", "c/.hidden.ipynb"):
        write(name)
    Path("c/notes.txt").touch()
    Path("c/folder.ipynb").mkdir()
    assert pairs(made("c")) == {
        "c/a.ipynb": "c/a-run.ipynb",
        "c/b.ipynb": "c/b-run.ipynb",
        "c/ann/work.ipynb": "c/ann/work-run.ipynb",
    }


def test_a_pattern_that_no_shell_has_replaced_is_understood() -> None:
    write("x/a.ipynb")
    write("y/z/b.ipynb")
    assert list(pairs(made("*/a.ipynb"))) == ["x/a.ipynb"]
    assert list(pairs(made("**/*.ipynb"))) == ["x/a.ipynb", "y/z/b.ipynb"]
    write("odd[1].ipynb")
    assert list(pairs(made("odd[1].ipynb"))) == ["odd[1].ipynb"]


def test_the_same_notebook_is_run_once_however_often_it_is_named() -> None:
    write("a.ipynb")
    Path("link.ipynb").symlink_to("a.ipynb")
    assert list(pairs(made("a.ipynb", "./a.ipynb", str(Path("a.ipynb").absolute()), ".", "link.ipynb"))) == ["a.ipynb"]


def test_results_of_earlier_runs_are_not_run_and_those_of_other_places_are_named() -> None:
    source = write("c/a.ipynb")
    write_result("c/a-run.ipynb", source)
    write_result("c/old/a.ipynb", source)
    for found in (made("c"), made("c/a.ipynb", "c/a-run.ipynb", "c/old/a.ipynb")):
        assert list(pairs(found)) == ["c/a.ipynb"]
        assert list(map(str, found.results)) == ["c/old/a.ipynb"]
    assert "only results of earlier runs" in refused("c/a-run.ipynb")
    source.unlink()  # then it is a notebook like any other
    assert list(pairs(made("c/a-run.ipynb"))) == ["c/a-run.ipynb"]


def test_a_notebook_that_merely_ends_like_a_result_is_run() -> None:
    write("dry-run.ipynb")
    assert pairs(made("dry-run.ipynb")) == {"dry-run.ipynb": "dry-run-run.ipynb"}


def test_what_is_not_there_is_refused_before_anything_starts() -> None:
    write("a.ipynb")
    Path("empty").mkdir()
    assert refused("a.ipynb", "missing.ipynb").startswith("There is no notebook missing.ipynb.")
    assert refused("no*.ipynb").startswith("There is no notebook no*.ipynb.")
    assert refused("empty").splitlines() == ["There is no notebook here.", "Looked in empty."]
    assert "a\\x1b[31m" in refused("a\x1b[31m.ipynb")


# ---- where results go -----------------------------------------------------------------------------------------------


def test_in_a_folder_for_the_results_subfolders_are_kept_apart() -> None:
    for name in ("c/ann/work.ipynb", "c/bob/work.ipynb", "other/x.ipynb"):
        write(name)
    assert pairs(made("c", "other/x.ipynb", output="out")) == {
        "c/ann/work.ipynb": "out/ann/work.ipynb",
        "c/bob/work.ipynb": "out/bob/work.ipynb",
        "other/x.ipynb": "out/x.ipynb",
    }


def test_results_below_the_folder_that_is_run_are_not_taken_for_notebooks() -> None:
    write_result("out/a.ipynb", write("a.ipynb"))
    write("out/not-ours.ipynb")
    assert pairs(made(".", output="out")) == {"a.ipynb": "out/a.ipynb"}


def test_two_results_in_one_place_are_refused() -> None:
    write("ann/work.ipynb")
    write("bob/work.ipynb")
    said = refused("ann/work.ipynb", "bob/work.ipynb", output="out")
    assert said.splitlines()[:2] == [
        "Two results would be written to out/work.ipynb.",
        "Those of ann/work.ipynb and bob/work.ipynb.",
    ]
    assert "Two results" in refused("ann/work.ipynb", "bob/work.ipynb", output="out", force=True)


def test_a_result_in_the_place_of_a_notebook_is_refused() -> None:
    write("a/x.ipynb")
    assert "would replace" in refused("a", output="a", force=True)
    write("b/x.ipynb")
    write("b/x-run.ipynb")  # the reader's own
    assert "would replace" in refused("b")


def test_a_file_that_no_run_has_written_is_replaced_only_by_force() -> None:
    write("a/x.ipynb")
    write("out/x.ipynb")
    said = refused("a/x.ipynb", output="out")
    assert said.splitlines()[:2] == [
        "out/x.ipynb is there already, and would be lost.",
        "No earlier run has written it.",
    ]
    assert pairs(made("a/x.ipynb", output="out", force=True)) == {"a/x.ipynb": "out/x.ipynb"}


def test_the_result_of_another_notebook_is_replaced_only_by_force() -> None:
    write("a/x.ipynb")
    write_result("out/x.ipynb", write("b/x.ipynb"))
    assert "It is the result of b/x.ipynb." in refused("a/x.ipynb", output="out")
    assert not made("a/x.ipynb", output="out", force=True).jobs[0].finished


@pytest.mark.parametrize("output", ["out.ipynb", "file"])
def test_a_file_cannot_take_the_results_of_several(output: str) -> None:
    write("a.ipynb")
    Path("file").touch()
    assert refused("a.ipynb", output=output).startswith("-o must be a folder here.")


# ---- what is finished -----------------------------------------------------------------------------------------------


def finished(**overrides: object) -> bool:
    return made("a.ipynb", **overrides).jobs[0].finished


def test_finished_is_what_completed_with_this_content_and_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    source = write("a.ipynb")
    assert not finished()
    write_result("a-run.ipynb", source)
    assert finished()
    assert finished(max_retry="9")
    assert not finished(model="another")
    monkeypatch.setenv("TEMPERATURE", "1")
    assert not finished()
    monkeypatch.delenv("TEMPERATURE")
    write("a.ipynb", "1 + 2")
    assert not finished()


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_did_not_complete_is_not_finished(status: RunEnd) -> None:
    write_result("a-run.ipynb", write("a.ipynb"), status)
    assert not finished()


def test_a_env_file_that_cannot_be_read_is_the_matter_of_its_notebook() -> None:
    write_result("a-run.ipynb", write("a.ipynb"))
    Path(".env").write_text("TEMPERATURE=hot\n")
    job = made("a.ipynb").jobs[0]
    assert (job.settings, job.finished) == (None, False)


def test_a_bad_option_is_refused_before_anything_starts() -> None:
    write("a.ipynb")
    with pytest.raises(SettingsError, match="TEMPERATURE"):
        made("a.ipynb", temperature="hot")


# ---- what notebooks would share -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AGENT_WORKSPACE", "AGENT_REMOTE_KERNEL_ID", "AGENT_SESSION"])
def test_notebooks_do_not_work_side_by_side_in_one_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.ipynb")
    write("b.ipynb")
    monkeypatch.setenv(name, "shared")
    said = refused(".", jobs=2)
    assert said.splitlines()[:2] == [
        "a.ipynb and b.ipynb cannot run at the same time.",
        f"{name}, from environment, gives both the same place to work in.",
    ]
    assert len(made(".", jobs=1).jobs) == 2


def test_places_that_each_folder_names_for_itself_are_not_one() -> None:
    for name in ("ann", "bob"):
        write(f"{name}/work.ipynb")
        Path(name, ".env").write_text("AGENT_WORKSPACE=files\n")
    assert len(made(".", jobs=2).jobs) == 2
