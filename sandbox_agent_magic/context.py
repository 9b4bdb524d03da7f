"""What the model is told about the reader's files, and hints about what it was not told.

A file is announced by name and size, a table of text also by its columns and dtypes. No row of data is sent here: the
model sees data only where its code prints it.
"""

from __future__ import annotations

import csv
import difflib
import inspect
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import UsageError
from .types import FileInfo, FileNote

_TABLE_SUFFIXES = {".csv", ".tsv", ".tab"}
_SAMPLE_BYTES = 256 << 10
"""Read to name columns and dtypes; enough for some hundred rows."""
_SAMPLE_ROWS = 500
_MAX_COLUMNS = 60
_MAX_NAME = 60
_MISSING = {"", "na", "nan", "null", "none", "n/a"}


def existing_files(paths: Iterable[Path]) -> list[Path]:
    """The files that the reader named, `~` expanded.

    Raises:
        UsageError: one is missing or a folder, or two different ones have the same name.
    """
    found: dict[str, Path] = {}
    for path in (path.expanduser() for path in paths):
        if path.is_dir():
            raise UsageError(f"{path} is a folder.", hint="Send files one by one: -f a.csv -f b.csv")
        if not path.is_file():
            raise UsageError(f"There is no file {path}.", hint=_nearest(path))
        other = found.setdefault(path.name, path)
        if other.resolve() != path.resolve():
            raise UsageError(f"Two files are named {path.name}.", why=f"{other} and {path}", hint="Rename one of them.")
    return list(found.values())


def _nearest(path: Path) -> str:
    try:
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except OSError:
        near = []
    return f"Did you mean {path.parent / near[0]}?" if near else "Paths are relative to the working directory."


def describe_file(path: Path, info: FileInfo) -> FileNote:
    """A note on a file that was sent; of a delimited text file also its columns and their pandas dtypes."""
    if path.suffix.lower() not in _TABLE_SUFFIXES:
        return FileNote(info)
    try:
        with path.open("rb") as file:
            raw = file.read(_SAMPLE_BYTES)
            whole = len(raw) == info.size
            rows = raw.count(b"\n") if whole else 0
    except OSError:
        return FileNote(info)
    text = raw.decode("utf-8-sig", "replace")
    if not whole:
        text = text.rpartition("\n")[0]  # the last line of a sample is cut somewhere
    try:
        dialect = csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
        table = list(itertools.islice(csv.reader(text.splitlines(), dialect), _SAMPLE_ROWS))
    except csv.Error:
        return FileNote(info)
    if len(table) < 2 or not table[0]:
        return FileNote(info)
    header, body = table[0], table[1:]
    columns = tuple(
        (_one_line(name), _dtype(row[index] for row in body if index < len(row)))
        for index, name in enumerate(header[:_MAX_COLUMNS])
    )
    more = f", and {len(header) - _MAX_COLUMNS} more columns" if len(header) > _MAX_COLUMNS else ""
    count = f"{rows - (0 if text.endswith(chr(10)) else -1) - 1:,} rows" if whole else ""
    separator = "" if dialect.delimiter == "," else f"separator {dialect.delimiter!r}"
    return FileNote(info, "; ".join(part for part in (count, separator, more.lstrip(", ")) if part), columns)


def files_text(notes: Iterable[FileNote]) -> str:
    """The announcement of the files that were sent, for the model; empty where there are none."""
    lines = []
    for note in notes:
        parts = [_size(note.info.size)]
        if note.description:
            parts.append(note.description)
        if note.columns:
            parts.append("columns: " + ", ".join(f"{name} ({dtype})" for name, dtype in note.columns))
        lines.append(f"- {_one_line(note.info.name, 200)}: {'; '.join(parts)}")
    return "Files in the working folder:\n" + "\n".join(lines) if lines else ""


def hints(
    prompt: str,
    *,
    folder: Path,
    sent: Iterable[Path],
    variables: Mapping[str, object],
    isolated: bool,
    sent_variables: Iterable[str] = (),
) -> list[str]:
    """One line for the reader where the prompt names something that the code will not see.

    Args:
        prompt: the reader's request.
        folder: the notebook's folder.
        sent: files that were sent.
        variables: the reader's own variables.
        isolated: whether the code runs away from the reader's kernel; nothing is hidden from it otherwise.
        sent_variables: names of variables that were sent.
    """
    if not isolated:
        return []
    sent_names = {path.name for path in sent}
    found = []
    for name in dict.fromkeys(re.findall(r"[\w.-]+\.[A-Za-z]\w{0,7}", prompt)):
        if name not in sent_names and _is_file(folder / name):
            found.append(f"{name} lies beside the notebook but was not sent. To send it: %%agent -f {name}")
    words = set(re.findall(r"\b[A-Za-z_]\w+\b", prompt))
    words -= set(sent_variables)
    for name, value in variables.items():
        if name in words and not name.startswith("_") and _is_data(value):
            kind = type(value).__name__
            found.append(
                f"{name} ({kind}) is a variable of your kernel, which the sandbox does not see. "
                f"To send it: %%agent --send {name}"
            )
    return found[:3]


def _is_data(value: object) -> bool:
    plain = isinstance(value, (list, dict, tuple, set, str, bytes, int, float)) and not isinstance(value, bool)
    # Statically: a property of the reader's object may be slow, or raise.
    return plain or any(inspect.getattr_static(value, name, None) is not None for name in ("shape", "columns"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _one_line(text: str, limit: int = _MAX_NAME) -> str:
    """A name from a file is data of strangers: one line, no backticks, bounded."""
    return " ".join("".join(c for c in text if c.isprintable() and c != "`").split())[:limit]


def _dtype(values: Iterable[str]) -> str:
    """The dtype that pandas would most likely give a column."""
    seen = [value.strip() for value in values]
    present = [value for value in seen if value.lower() not in _MISSING]
    if not present:
        return "float64"
    if all(value in ("True", "False") for value in present):
        return "bool" if len(present) == len(seen) else "object"
    if all(re.fullmatch(r"[+-]?\d{1,18}", value) for value in present):
        return "int64" if len(present) == len(seen) else "float64"
    if all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value) for value in present):
        return "float64"
    return "str"


def _size(size: int) -> str:
    if size < 1_000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"
