"""The workspace by names, for systems that cannot open a folder: the same promises, and nothing leads outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import WorkspaceError
from sandbox_agent_magic.executors.container import ContainerExecutor
from sandbox_agent_magic.executors.container.plain_workspace import PlainWorkspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[PlainWorkspace]:
    folder = tmp_path / "shared"
    folder.mkdir()
    made = PlainWorkspace(folder)
    yield made
    made.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    return folder


def test_it_is_taken_where_folders_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "supports_dir_fd", set())
    executor = ContainerExecutor()
    assert isinstance(executor.workspace, PlainWorkspace)
    path = executor.workspace.path
    executor.shutdown()
    assert not path.exists()


def test_files_go_in_and_out_and_are_told(workspace: PlainWorkspace, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)) * 9000)
    told: list[tuple[int, int]] = []
    before = workspace.snapshot()
    info = workspace.put(tmp_path / "source", "sub/deep/data.bin", on_progress=lambda *step: told.append(step))
    assert (info.name, info.size, told[-1]) == ("sub/deep/data.bin", 2_304_000, (2_304_000, 2_304_000))
    assert workspace.list() == (info,)
    assert workspace.changes(before) == (info,)
    workspace.get("sub/deep/data.bin", tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == (tmp_path / "source").read_bytes()
    workspace.remove("sub/deep/data.bin")
    assert workspace.list() == ()


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/../../x", "a\nb"])
def test_names_that_leave_it_are_refused(workspace: PlainWorkspace, tmp_path: Path, name: str) -> None:
    (tmp_path / "source").touch()
    for act in (
        lambda: workspace.put(tmp_path / "source", name),
        lambda: workspace.get(name, tmp_path / "copied"),
        lambda: workspace.remove(name),
    ):
        with pytest.raises(WorkspaceError):
            act()


def test_links_are_neither_listed_nor_followed(workspace: PlainWorkspace, outside: Path, tmp_path: Path) -> None:
    (workspace.path / "link").symlink_to(outside / "secret")
    (workspace.path / "way").symlink_to(outside)
    os.mkfifo(workspace.path / "pipe")
    assert workspace.list() == ()
    for name in ("link", "way/secret", "pipe"):
        with pytest.raises(WorkspaceError):
            workspace.get(name, tmp_path / "copied")
    assert not (tmp_path / "copied").exists()
    with pytest.raises(WorkspaceError, match="Cannot copy"):
        workspace.put(outside / "secret", "way/planted")
    with pytest.raises(WorkspaceError, match="Cannot copy"):
        workspace.put(outside / "secret", "way/new/planted")
    with pytest.raises(WorkspaceError):
        workspace.remove("way/secret")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_a_link_in_the_place_of_a_file_is_replaced(workspace: PlainWorkspace, outside: Path, tmp_path: Path) -> None:
    (workspace.path / "over").symlink_to(outside / "secret")
    (tmp_path / "source").write_text("new")
    workspace.put(tmp_path / "source", "over")
    assert (outside / "secret").read_text() == "secret"
    assert (workspace.path / "over").read_text() == "new"


def test_folders_that_hold_secrets_are_refused(outside: Path) -> None:
    (outside / ".env").touch()
    with pytest.raises(WorkspaceError, match="cannot be a workspace"):
        PlainWorkspace(outside)
