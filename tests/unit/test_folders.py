"""Which folder a sandbox works in."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_agent_magic.errors import SettingsError, WorkspaceError
from sandbox_agent_magic.folders import notebook_path, workspace_folder
from sandbox_agent_magic.settings import Settings, load


def settings(folder: Path, **environ: str) -> Settings:
    return load(environ=environ, folder=folder)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "study.ipynb"
    path.parent.mkdir()
    path.write_text("{}")
    return path


def test_the_notebook_is_known_from_vs_code_and_from_a_jupyter_server(notebook: Path) -> None:
    assert notebook_path({"__vsc_ipynb_file__": str(notebook)}, {}) == notebook
    assert notebook_path({}, {"JPY_SESSION_NAME": str(notebook)}) == notebook


def test_elsewhere_it_is_not_known(notebook: Path) -> None:
    assert notebook_path({}, {}) is None
    assert notebook_path({"__vsc_ipynb_file__": 3}, {"JPY_SESSION_NAME": "console-1-2f6c"}) is None
    assert notebook_path({}, {"JPY_SESSION_NAME": str(notebook.with_name("gone.ipynb"))}) is None
    assert notebook_path({}, {"JPY_SESSION_NAME": "x" * 5_000 + ".ipynb"}) is None


def test_each_notebook_has_a_folder_beside_it(notebook: Path) -> None:
    folder = workspace_folder(settings(notebook.parent), given=None, notebook=notebook)
    assert folder == notebook.parent / "study.sandbox"
    assert folder.is_dir()


def test_what_was_given_wins_over_the_setting_and_that_over_the_notebook(notebook: Path, tmp_path: Path) -> None:
    chosen = settings(notebook.parent, AGENT_WORKSPACE=str(tmp_path / "room"))
    assert workspace_folder(chosen, given=tmp_path, notebook=notebook) == tmp_path
    assert workspace_folder(chosen, given=None, notebook=notebook) == tmp_path / "room"


def test_without_any_of_them_there_is_none(notebook: Path) -> None:
    assert workspace_folder(settings(notebook.parent), given=None, notebook=None) is None


@pytest.mark.parametrize("text", ["..", "/", "~", ".", "../other", "room/../.."])
def test_a_downloaded_env_file_cannot_choose_a_folder_of_the_reader(notebook: Path, text: str) -> None:
    (notebook.parent / ".env").write_text(f"AGENT_WORKSPACE={text}\n")
    with pytest.raises(SettingsError, match="below its own"):
        workspace_folder(settings(notebook.parent), given=None, notebook=notebook)


def test_an_env_file_may_choose_a_folder_beside_it(notebook: Path) -> None:
    (notebook.parent / ".env").write_text("AGENT_WORKSPACE=room\n")
    assert workspace_folder(settings(notebook.parent), given=None, notebook=notebook) == notebook.parent / "room"


def test_a_folder_that_was_named_but_cannot_be_made_is_said(notebook: Path) -> None:
    with pytest.raises(WorkspaceError, match="AGENT_WORKSPACE"):
        workspace_folder(settings(notebook.parent, AGENT_WORKSPACE=str(notebook)), given=None, notebook=notebook)


def test_where_none_can_be_made_beside_the_notebook_a_temporary_one_is_used(notebook: Path) -> None:
    (notebook.parent / "study.sandbox").write_text("in the way")
    assert workspace_folder(settings(notebook.parent), given=None, notebook=notebook) is None


def test_a_link_that_came_with_the_notebook_is_not_followed(notebook: Path, tmp_path: Path) -> None:
    (notebook.parent / "study.sandbox").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError, match="is a link"):
        workspace_folder(settings(notebook.parent), given=None, notebook=notebook)


def test_a_link_beside_an_env_file_is_not_followed_out_of_there(notebook: Path, tmp_path: Path) -> None:
    (notebook.parent / ".env").write_text("AGENT_WORKSPACE=room\n")
    (notebook.parent / "room").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="below its own"):
        workspace_folder(settings(notebook.parent), given=None, notebook=notebook)
