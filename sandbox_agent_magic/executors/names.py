"""Names of files and of variables, checked before they go anywhere."""

from __future__ import annotations

from pathlib import PurePosixPath

from ..errors import SettingsError, WorkspaceError
from ..types import FileInfo

_MAX_FILES = 10_000
_MAX_NAME = 1_000


def inside(name: str) -> str:
    """`name`, if it is a relative one that stays inside the folder.

    Raises:
        WorkspaceError: it is not.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or not name.isprintable():
        raise WorkspaceError(
            f"{name[:200]!r} is not a name of a file in the working folder.",
            why="It must be relative and stay inside.",
        )
    return "/".join(parts)


def file_infos(rows: object) -> list[FileInfo]:
    """Names and sizes that may be ones; what a kernel far away says is a claim."""
    found = []
    for row in rows[:_MAX_FILES] if isinstance(rows, list) else ():
        match row:
            case [str(name), int(size)] if size >= 0 and len(name) <= _MAX_NAME and name.isprintable():
                found.append(FileInfo(name, size))
    return found


def variables(setting: str, text: str, source: str) -> tuple[tuple[str, str], ...]:
    """Environment variables, as a setting says them: NAME=VALUE, separated by commas.

    Args:
        setting: its name.
        text: its value.
        source: where that came from.

    Raises:
        SettingsError: a part is something else; its text, which may be a secret, is not shown.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise SettingsError(
                f"{setting} has a value that is not allowed.",
                name=setting,
                source=source,
                why=f"From {source}: one of its parts is no NAME=VALUE.",
                hint="Write NAME=VALUE, and a comma between two.",
            )
        found.append((name, value))
    return tuple(found)
