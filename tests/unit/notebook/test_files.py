"""Notebook files: whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from sandbox_agent_magic.errors import NotebookWriteError
from sandbox_agent_magic.notebook.files import check_place, read_notebook, rescue_notebook, write_notebook


def notebook(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def test_a_notebook_replaces_another_and_keeps_who_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(notebook("old"), path)
    path.chmod(0o600)
    write_notebook(notebook("new"), path)
    assert read_notebook(path).cells[0].source == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a.ipynb"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(notebook("old"), path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # fails in the middle, as a full disk does
    try:
        with pytest.raises(NotebookWriteError, match=r"Cannot write .*a.ipynb"):
            write_notebook(notebook("x" * 100_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_notebook(path).cells[0].source == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.ipynb"]


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write_notebook(notebook("x" * 200_000), path)
    code = f"""
from pathlib import Path
import nbformat
from sandbox_agent_magic.notebook.files import write_notebook
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("y" * 5_000_000)])
print("ready", flush=True)
while True:
    write_notebook(book, Path({str(path)!r}))
"""
    for pause_s in (0.0, 0.02, 0.05, 0.11):
        with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            signal.sigtimedwait([], pause_s)
            process.kill()
        assert len(read_notebook(path).cells[0].source) in (200_000, 5_000_000)


def test_a_link_in_a_downloaded_folder_does_not_lead_the_writing_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".a.ipynb.partial").symlink_to(victim)
    check_place(tmp_path / "a.ipynb")
    (tmp_path / ".a.ipynb.partial").symlink_to(victim)
    write_notebook(notebook("new"), tmp_path / "a.ipynb")
    assert victim.read_text() == "mine"
    assert read_notebook(tmp_path / "a.ipynb").cells[0].source == "new"


def test_a_place_that_cannot_be_written_is_found_out_and_one_that_can_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.ipynb").mkdir()
    for place in ("file/a.ipynb", "folder.ipynb", f"{'n' * 300}.ipynb"):
        with pytest.raises(NotebookWriteError, match="Cannot write"):
            check_place(tmp_path / place)
    check_place(tmp_path / "new" / "a.ipynb")
    assert os.listdir(tmp_path / "new") == []


def test_what_cannot_be_written_where_it_belongs_is_rescued_valid_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    damaged = notebook("precious")
    damaged.cells[0].metadata["tags"] = "no list"
    with pytest.raises(NotebookWriteError, match="is not valid"):
        write_notebook(damaged, tmp_path / "a.ipynb")
    kept = rescue_notebook(damaged, "a.ipynb")
    assert "precious" in kept.read_text()
    assert kept.is_relative_to(tmp_path)
