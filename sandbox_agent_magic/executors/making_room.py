"""A workspace that is too full loses its newest files first."""

from __future__ import annotations

import contextlib

from ..errors import WorkspaceError
from ..workspace import Snapshot, Workspace

_SHOWN = 5
"""Names of removed files in a message."""


def remove_newest(workspace: Workspace, before: Snapshot, excess: int) -> list[str]:
    """Remove files that are new since `before`, the largest first, until `excess` bytes are free; their names."""
    removed: list[str] = []
    new = sorted(workspace.changes(before), key=lambda file: file.size, reverse=True)
    for file in (file for file in new if file.name not in before):
        if excess <= 0:
            break
        with contextlib.suppress(WorkspaceError):
            workspace.remove(file.name)
            excess -= file.size
            removed.append(file.name)
    return removed


def named(removed: list[str]) -> str:
    """The names, as a message has them."""
    return ", ".join(removed[:_SHOWN]) + (f" and {len(removed) - _SHOWN} more" if len(removed) > _SHOWN else "")
