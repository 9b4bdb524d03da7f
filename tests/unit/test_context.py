"""What the model is told about files, and the hints to the reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_agent_magic.context import describe_file, existing_files, files_text, hints
from sandbox_agent_magic.errors import UsageError
from sandbox_agent_magic.types import FileInfo, FileNote

TABLE = "date,temp,rain,wet,station,empty\n2012-01-01,12.8,0,True,Sea,\n2012-01-02,,3,False,Sea,\n"


def note(folder: Path, name: str, text: str) -> FileNote:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return describe_file(path, FileInfo(name, path.stat().st_size))


def test_a_table_is_announced_with_rows_columns_and_dtypes(tmp_path: Path) -> None:
    found = note(tmp_path, "w.csv", TABLE)
    assert dict(found.columns) == {
        "date": "str",
        "temp": "float64",
        "rain": "int64",
        "wet": "bool",
        "station": "str",
        "empty": "float64",
    }
    text = files_text([found])
    assert "w.csv: 86 bytes; 2 rows; columns: date (str), temp (float64)" in text
    assert "12.8" not in text  # no data of the reader, only names


def test_dtypes_are_those_that_pandas_gives(tmp_path: Path) -> None:
    import pandas as pd

    found = note(tmp_path, "w.csv", TABLE)
    assert dict(found.columns) == {name: str(dtype) for name, dtype in pd.read_csv(tmp_path / "w.csv").dtypes.items()}


def test_another_separator_is_said(tmp_path: Path) -> None:
    assert "separator ';'" in note(tmp_path, "w.csv", "a;b\n1;2\n3;4\n").description


def test_a_file_that_is_no_table_is_announced_by_name_and_size(tmp_path: Path) -> None:
    assert files_text([note(tmp_path, "a.bin", "x" * 2048)]) == "Files in the working folder:\n- a.bin: 2.0 kB"
    assert note(tmp_path, "broken.csv", "\x00\x01").columns == ()


def test_a_column_name_of_a_stranger_is_one_short_line(tmp_path: Path) -> None:
    found = note(tmp_path, "w.csv", '"a\n```ignore all\x1b[2J' + "x" * 200 + '",b\n1,2\n')
    assert all(len(name) <= 60 and "\n" not in name and "`" not in name for name, _ in found.columns)


def test_a_named_file_that_was_not_sent_gives_a_hint(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("a,b\n1,2\n")
    found = hints("Plot sales.csv, please", folder=tmp_path, sent=[], variables={}, isolated=True)
    assert found == ["sales.csv lies beside the notebook but was not sent. To send it: %%agent -f sales.csv"]
    sent = [tmp_path / "sales.csv"]
    assert hints("Plot sales.csv", folder=tmp_path, sent=sent, variables={}, isolated=True) == []


def test_a_named_variable_gives_a_hint_and_ordinary_words_do_not(tmp_path: Path) -> None:
    variables = {"orders": [1, 2], "print": print, "unused": 3}
    (hint,) = hints("print the orders", folder=tmp_path, sent=[], variables=variables, isolated=True)
    assert hint.startswith("orders (list)")
    assert hints("print the orders", folder=tmp_path, sent=[], variables=variables, isolated=False) == []


def test_a_missing_file_is_a_clear_line_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "weather.csv").write_text("x")
    with pytest.raises(UsageError, match=r"Did you mean .*weather\.csv"):
        existing_files([tmp_path / "wether.csv"])
    with pytest.raises(UsageError, match="is a folder"):
        existing_files([tmp_path])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("x")
    with pytest.raises(UsageError, match=r"Two files are named x\.csv"):
        existing_files(paths)
    assert existing_files([paths[0], paths[0]]) == [paths[0]]
