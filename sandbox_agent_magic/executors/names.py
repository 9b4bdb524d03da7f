"""Names of files, checked before they go anywhere."""

from __future__ import annotations

from pathlib import PurePosixPath

from ..errors import WorkspaceError


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
