"""A workspace that is too full loses its newest files first."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from ..errors import WorkspaceError
from ..types import FileInfo
from ..workspace import Snapshot

_SHOWN = 5
"""Names of removed files in a message."""


class Removing(Protocol):
    """A workspace, as far as it is needed here."""

    def changes(self, before: Snapshot) -> Sequence[FileInfo]:
        """Files that are new or changed since `before`."""

    def remove(self, name: str) -> None:
        """Delete a file."""


def remove_newest(workspace: Removing, before: Snapshot, excess: int) -> list[str]:
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
