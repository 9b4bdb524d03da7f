"""What comes from far away, or out of a setting, is checked before it is used."""

from __future__ import annotations

import pytest

from sandbox_agent_magic.errors import SettingsError, WorkspaceError
from sandbox_agent_magic.executors.names import file_infos, inside, variables
from sandbox_agent_magic.types import FileInfo


def test_rows_that_cannot_be_files_are_left_out() -> None:
    rows = [["a.txt", 1], ["b\x1b[2J", 1], ["c", -1], ["d" * 2_000, 1], ["e", "1"], "f", None, ["g", 1, 2], ["h/i", 0]]
    assert file_infos(rows) == [FileInfo("a.txt", 1), FileInfo("h/i", 0)]
    assert len(file_infos([["x", 1]] * 20_000)) == 10_000
    assert file_infos("no rows") == file_infos(None) == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(WorkspaceError):
        inside(name)


def test_variables_are_read_and_what_is_none_is_refused_without_showing_it() -> None:
    assert variables("NAME", " A=1, B=x=y ,C=,", "environment") == (("A", "1"), ("B", "x=y"), ("C", ""))
    for text in ("hunter2", "1=2", "A B=1", "=x"):
        with pytest.raises(SettingsError, match="no NAME=VALUE") as caught:
            variables("NAME", text, "environment")
        assert "hunter2" not in str(caught.value)
