"""A lock on a file, held by a process: gone when the process is gone, however it ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class FileLock:
    """An exclusive lock on `path`; the file itself stays and means nothing.

    Args:
        path: the lock's file, made if it is missing. Its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting; False if another holder has it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        if not _lock(fd):
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def is_held(self) -> bool:
        """Whether some holder has the lock just now."""
        if not self._path.exists():
            return False
        if not self.acquire():
            return True
        self.release()
        return False


def _lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
