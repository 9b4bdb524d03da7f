"""Temporary folders that the next start removes if their owner was killed before it could."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

KINDS = ("sandbox-workspace", "sandbox-packages", "sandbox-bridge", "sandbox-check", "sandbox-run", "sbx-pip", "sbx")
_NAME = re.compile(rf"(?:{'|'.join(KINDS)})-(\d{{1,10}})-\w+")
_SETTLED_S = 60.0


def make(kind: str, *, folder: str | None = None) -> tuple[Path, int]:
    """A new folder, and the descriptor that marks it as in use.

    Args:
        kind: one of `KINDS`; its name starts so.
        folder: where; the usual place unless given.

    Returns:
        The folder's path, and a descriptor to close when it is no longer needed. It closes by itself with the process.
    """
    path = Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-", dir=folder)).resolve()
    mark = -1
    if sys.platform == "linux":
        mark = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(mark)
    return path, mark


@contextlib.contextmanager
def temporary(kind: str, *, folder: str | None = None) -> Iterator[Path]:
    """A new folder for the `with` block's time. Arguments as for `make`."""
    path, mark = make(kind, folder=folder)
    try:
        yield path
    finally:
        remove(path)
        if mark >= 0:
            os.close(mark)


def remove(folder: Path) -> None:
    """Remove a tree in which code may have locked folders. Runs after the code has ended; rmtree follows no links."""
    with contextlib.suppress(OSError):
        for current, folders, _ in os.walk(folder):
            for name in folders:
                path = os.path.join(current, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> list[Path]:
    """Remove what killed processes left behind; returns what it was."""
    swept: list[Path] = []
    for place in {tempfile.gettempdir(), "/tmp"}:  # noqa: S108 - sockets need a short path
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                named = _NAME.fullmatch(entry.name)
                with contextlib.suppress(OSError):
                    if named and _is_stale(entry, int(named[1])):
                        remove(Path(entry.path))
                        swept.append(Path(entry.path))
    return swept


def mine() -> list[Path]:
    """Folders that this process has made and not removed yet."""
    found: list[Path] = []
    for place in {tempfile.gettempdir(), "/tmp"}:  # noqa: S108 - sockets need a short path
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            named = ((entry, _NAME.fullmatch(entry.name)) for entry in entries)
            found += [Path(entry.path) for entry, match in named if match and int(match[1]) == os.getpid()]
    return found


def _is_stale(entry: os.DirEntry[str], owner: int) -> bool:
    """Whether a folder of ours belongs to nobody now."""
    info = entry.stat(follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode) or not _is_ours(info.st_uid):
        return False
    if os.path.exists(f"/proc/{owner}") and time.time() - info.st_mtime < _SETTLED_S:
        return False  # it may be about to be marked
    mark = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _lock(mark)
    finally:
        os.close(mark)


def _is_ours(uid: int) -> bool:
    """As root, also what belongs to a user without a name: the one that a sandbox runs as."""
    if uid == os.getuid():
        return True
    import pwd

    try:
        pwd.getpwuid(uid)
    except KeyError:
        return os.getuid() == 0
    return False


def _lock(descriptor: int) -> bool:
    """Mark an open folder as in use; False if another process has."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
