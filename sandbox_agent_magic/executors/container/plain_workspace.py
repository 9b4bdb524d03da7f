"""A container's workspace where folders cannot be opened as such: on Windows.

`Workspace` walks from descriptor to descriptor; here a path is walked by name. What lies there is hostile all the
same, so each step must be a plain folder, and what was opened must, once it is open, be the file of that name inside.
Code in a container can make links to places outside, but no second name for a file outside: so an open file that has a
name inside is one of the workspace's own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ... import scratch
from ...errors import WorkspaceError
from ...types import FileInfo, ProgressHook
from ...workspace import MAX_DEPTH, Snapshot, changed, listed, refuse_unsafe, snapshot_of
from ..names import inside

_CHUNK = 1 << 20
_REPARSE_POINT = 0x400
"""Of Windows: a link or a junction, among others."""


class PlainWorkspace:
    """As `Workspace`, by names.

    Args:
        folder: an existing folder; None makes a temporary one.

    Raises:
        WorkspaceError: the folder does not exist, or holds what a container must not reach.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.temporary = folder is None
        self._mark = -1
        if folder is None:
            self.path, self._mark = scratch.make("sandbox-workspace")
        else:
            self.path = Path(os.path.expanduser(folder)).resolve()
            refuse_unsafe(self.path)

    def put(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """As `Workspace.put`."""
        name = inside(name)
        with _explained(f"Cannot copy {source} into the workspace."), open(source, "rb") as reader:
            target = self.path / name
            for parent in reversed(target.relative_to(self.path).parents):
                (self.path / parent).mkdir(exist_ok=True)
                self._check_folder(self.path / parent)
            part = target.with_name(f".part-{secrets.token_hex(6)}")
            total, done = os.fstat(reader.fileno()).st_size, 0
            try:
                with open(part, "xb") as writer:
                    self._check(part, writer.fileno())
                    while done < total and (content := reader.read(min(_CHUNK, total - done))):
                        writer.write(content)
                        done += len(content)
                        if on_progress is not None:
                            on_progress(done, total)
                os.replace(part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return FileInfo(name, done)

    def get(self, name: str, destination: Path) -> None:
        """As `Workspace.get`."""
        with _explained(f"Cannot copy {name} out of the workspace."):
            found = self.path / inside(name)
            if not stat.S_ISREG(found.lstat().st_mode) or _is_link(found.lstat()):
                raise OSError("it is not a regular file")
            destination = destination / found.name if destination.is_dir() else destination
            part = destination.with_name(f".part-{secrets.token_hex(6)}")
            try:
                with open(found, "rb") as reader, open(part, "xb") as writer:
                    self._check(found, reader.fileno())
                    shutil.copyfileobj(reader, writer, _CHUNK)
                os.replace(part, destination)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def remove(self, name: str) -> None:
        """As `Workspace.remove`."""
        with _explained(f"Cannot remove {name} from the workspace."):
            found = self.path / inside(name)
            self._check_folder(found.parent)
            found.unlink()

    def list(self) -> tuple[FileInfo, ...]:
        """As `Workspace.list`."""
        return listed(self.snapshot())

    def snapshot(self) -> Snapshot:
        """As `Workspace.snapshot`."""
        return snapshot_of(self._walk(self.path, "", MAX_DEPTH))

    def changes(self, before: Snapshot) -> tuple[FileInfo, ...]:
        """As `Workspace.changes`."""
        return changed(before, self.snapshot())

    def close(self) -> None:
        """As `Workspace.close`."""
        if self.temporary:
            scratch.remove(self.path)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def _walk(self, folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.isprintable():
                    continue
                with contextlib.suppress(OSError):
                    info = os.lstat(entry.path)  # the entry's own has no inode number on Windows
                    if stat.S_ISREG(info.st_mode) and not _is_link(info):
                        yield prefix + entry.name, info
                    elif stat.S_ISDIR(info.st_mode) and not _is_link(info) and depth > 0:
                        yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/", depth - 1)

    def _check_folder(self, folder: Path) -> None:
        """Raise OSError unless each step to `folder` is a plain folder."""
        for step in (folder, *folder.parents):
            if step == self.path:
                return
            info = step.lstat()
            if not stat.S_ISDIR(info.st_mode) or _is_link(info):
                raise OSError("it leads out of the workspace")

    def _check(self, path: Path, opened: int) -> None:
        """Raise OSError unless the open file is the one of that name, inside."""
        self._check_folder(path.parent)
        there, info = path.lstat(), os.fstat(opened)
        if not stat.S_ISREG(there.st_mode) or (there.st_dev, there.st_ino) != (info.st_dev, info.st_ino):
            raise OSError("it leads out of the workspace")


def _is_link(info: os.stat_result) -> bool:
    return stat.S_ISLNK(info.st_mode) or bool(getattr(info, "st_file_attributes", 0) & _REPARSE_POINT)


@contextlib.contextmanager
def _explained(message: str) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    reason = ""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise WorkspaceError(message, why=reason)
