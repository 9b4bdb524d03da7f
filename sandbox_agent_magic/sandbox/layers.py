"""The layers of packages that stay between sessions: where they lie, whose they are, and their removal."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..folders import cache_dir
from . import usage

_SUFFIX = ".json"
_GONE = "removed-"
"""How a folder is called while it is removed."""
_PATIENCE_S = 1.0
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows has neither


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """A folder of packages in the reader's cache, with a note beside it that says what it is for."""

    path: Path

    @property
    def name(self) -> str:
        """What it is called in listings."""
        return self.path.name

    @property
    def workspace(self) -> Path | None:
        """The folder that it belongs to; None where the note is lost."""
        try:
            found = json.loads(self._note.read_text("utf-8"))["workspace"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return Path(found) if isinstance(found, str) else None

    @property
    def used_at(self) -> float:
        """When a sandbox was last started with it, in seconds since the epoch; 0 where nobody knows."""
        try:
            return self._note.stat().st_mtime
        except OSError:
            return 0.0

    def size(self) -> int:
        """Bytes that it takes."""
        return usage.disk([self.path], ())

    def use(self) -> int:
        """Mark it as in use, made anew if it has just been removed; returns the descriptor to close afterwards.

        Raises:
            OSError: it cannot be made.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            late = time.monotonic() > deadline
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                mark = os.open(self.path, _FOLDER)
            except (FileExistsError, FileNotFoundError):  # removed meanwhile
                if late:
                    raise
                continue
            if late or (self._share(mark) and self._is(mark)):
                break
            os.close(mark)
            time.sleep(0.001)
        with contextlib.suppress(OSError):
            os.utime(self._note, (time.time(), time.time()))
        return mark

    @staticmethod
    def _share(mark: int) -> bool:
        """Lock the open folder against removal; False while it is being removed."""
        import fcntl

        try:
            fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks
        return True

    def _is(self, mark: int) -> bool:
        """Whether the open folder is still this one."""
        try:
            return os.path.samestat(os.fstat(mark), self.path.stat())
        except OSError:
            return False

    def remove(self) -> bool:
        """Remove it, unless a sandbox uses it."""
        import fcntl

        gone = self.path.with_name(f"{_GONE}{self.path.name}-{secrets.token_hex(4)}")
        try:
            mark = os.open(self.path, _FOLDER)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sandbox that starts from now on makes a folder of its own: it never sees this one being emptied.
            self.path.rename(gone)
        except OSError:
            return False
        finally:
            os.close(mark)
        self._note.unlink(missing_ok=True)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def forget_if_empty(self, mark: int) -> None:
        """Leave nothing behind where nothing was installed; `mark` is from `use`."""
        import fcntl

        with contextlib.suppress(OSError):  # another sandbox uses it, or there is something in it
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path.rmdir()
            self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + _SUFFIX)


def keep(workspace: Path) -> KeptLayer:
    """The layer of the folder `workspace`, made if need be."""
    version = f"{sys.implementation.cache_tag}-{os.uname().machine}"
    key = hashlib.sha256(os.fsencode(f"{version}:{workspace.resolve()}")).hexdigest()[:16]
    layer = KeptLayer(_home() / f"{version}-{key}")
    layer.path.mkdir(parents=True, exist_ok=True)
    layer._note.write_text(json.dumps({"workspace": str(workspace.resolve())}), "utf-8")
    return layer


def kept() -> Iterator[KeptLayer]:
    """All layers, by name."""
    home = _home()
    if home.is_dir():
        yield from (KeptLayer(path) for path in sorted(home.iterdir()) if path.is_dir() and not path.is_symlink())


def _home() -> Path:
    return cache_dir() / "packages"
