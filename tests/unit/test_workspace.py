"""The shared folder: what it refuses to be, and that nothing in it can point the host elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import WorkspaceError
from sandbox_agent_magic.types import FileInfo
from sandbox_agent_magic.workspace import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.csv"
    path.write_text("new")
    return path


def test_a_temporary_workspace_is_private_and_removed_even_with_locked_folders_in_it() -> None:
    workspace = Workspace()
    assert workspace.path.stat().st_mode & 0o777 == 0o700
    (workspace.path / "locked" / "deeper").mkdir(parents=True)
    (workspace.path / "locked" / "deeper" / "file").touch()
    (workspace.path / "locked" / "deeper").chmod(0)
    (workspace.path / "locked").chmod(0)
    workspace.close()
    workspace.close()
    assert not workspace.path.exists()


def test_a_given_workspace_stays(folder: Path) -> None:
    (folder / "mine").touch()
    Workspace(folder).close()
    assert (folder / "mine").exists()


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr", "~", sys.prefix, str(Path(sys.prefix).parent), "/no/such/folder"]
)
def test_folders_that_are_not_for_sharing_are_refused(path: str) -> None:
    with pytest.raises(WorkspaceError, match="cannot be a workspace"):
        Workspace(Path(path))


@pytest.mark.parametrize("name", [".env", ".ssh", "pip.conf", "id_rsa"])
def test_a_folder_with_secrets_is_refused_and_the_secret_is_named(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(WorkspaceError) as caught:
        Workspace(folder)
    assert name in caught.value.why


def test_a_folder_that_links_to_a_refused_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(WorkspaceError):
        Workspace(tmp_path / "link")


def test_files_go_in_and_out(folder: Path, source: Path, tmp_path: Path) -> None:
    workspace = Workspace(folder)
    assert workspace.put(source, "a/b/c.csv") == FileInfo("a/b/c.csv", 3)
    assert (folder / "a/b/c.csv").read_text() == "new"
    workspace.get("a/b/c.csv", tmp_path)
    assert (tmp_path / "c.csv").read_text() == "new"
    assert workspace.list() == (FileInfo("a/b/c.csv", 3),)
    workspace.close()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../out", "a/../../out", "a\nb", "."])
def test_names_that_leave_the_workspace_are_refused(folder: Path, source: Path, name: str) -> None:
    workspace = Workspace(folder)
    with pytest.raises(WorkspaceError):
        workspace.put(source, name)
    with pytest.raises(WorkspaceError):
        workspace.get(name, folder.parent)
    workspace.close()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["shared", "source.csv"]


def test_links_are_not_followed_when_reading_writing_or_listing(folder: Path, source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (folder / "file").symlink_to(outside / "precious")
    (folder / "way").symlink_to(outside)
    workspace = Workspace(folder)
    assert workspace.list() == ()
    for name in ("file", "way/precious"):
        with pytest.raises(WorkspaceError):
            workspace.get(name, tmp_path / "copy")
    with pytest.raises(WorkspaceError):
        workspace.put(source, "way/precious")
    with pytest.raises(WorkspaceError):
        workspace.put(source, "way/new/file")
    workspace.put(source, "file")
    workspace.close()
    assert not (folder / "file").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def test_pipes_and_folders_are_not_files(folder: Path, source: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    workspace = Workspace(folder)
    assert workspace.list() == ()
    for name in ("pipe", "folder", "missing"):
        with pytest.raises(WorkspaceError):
            workspace.get(name, tmp_path / "copy")
    workspace.put(source, "pipe")
    assert (folder / "pipe").read_text() == "new"
    workspace.close()


def test_a_workspace_that_is_moved_away_does_not_redirect_the_host(folder: Path, source: Path, tmp_path: Path) -> None:
    workspace = Workspace(folder)
    folder.rename(tmp_path / "moved")
    folder.symlink_to("/etc")
    workspace.put(source, "file")
    workspace.close()
    assert (tmp_path / "moved" / "file").read_text() == "new"


def test_new_and_changed_files_are_told_from_old_ones(folder: Path) -> None:
    for name in ("old", "changed", "replaced"):
        (folder / name).write_text("1")
    workspace = Workspace(folder)
    before = workspace.snapshot()
    (folder / "changed").write_text("22")
    (folder / "other").write_text("1")
    (folder / "other").rename(folder / "replaced")
    (folder / "new").write_text("333")
    changed = workspace.changes(before)
    workspace.close()
    assert changed == (FileInfo("changed", 2), FileInfo("new", 3), FileInfo("replaced", 1))


def test_names_that_could_play_tricks_on_a_terminal_are_not_listed(folder: Path) -> None:
    (folder / "a\x1b[2Jb").touch()
    (folder / os.fsdecode(b"\xff")).touch()
    workspace = Workspace(folder)
    assert workspace.list() == ()
    workspace.close()
