"""The one folder that code in a sandbox may write to, seen from the host.

Whatever lies in there may have been put there by hostile code. So every file is opened step by step from the folder's
own descriptor without following symbolic links, and only regular files count.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias

from . import scratch
from .errors import WorkspaceError
from .types import FileInfo, ProgressHook

MAX_FILES = 10_000
"""Files that a listing shows at most."""
MAX_DEPTH = 20
_CHUNK = 1 << 20
# Windows has none of these flags; there the module is imported, but no sandbox runs.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_FOLLOW
_SECRETS = (
    ".aws",
    ".azure",
    ".docker",
    ".env",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".ssh",
    "credentials.json",
    "id_ed25519",
    "id_rsa",
    "pip.conf",
)
_SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "usr",
    "var",
)

Snapshot: TypeAlias = dict[str, tuple[int, int, int]]
"""Names of files to size, time of change and inode number."""


class Workspace:
    """A folder shared with a sandbox: a temporary one that `close` removes, or one that the reader gave.

    Args:
        folder: an existing folder; None makes a temporary one.
        uid: as root, the user that the sandbox runs as. The folder belongs to that user until `close`.

    Raises:
        WorkspaceError: the folder does not exist, or holds what a sandbox must not reach.
    """

    def __init__(self, folder: Path | None = None, *, uid: int | None = None) -> None:
        self.temporary = folder is None
        self._mark = -1
        self._uid = uid
        if folder is None:
            self.path, self._mark = scratch.make("sandbox-workspace")
        else:
            self.path = _expand(folder).resolve()
            refuse_unsafe(self.path)
        self._root = os.open(self.path, _FOLDER_FLAGS)
        self._owner = os.fstat(self._root).st_uid, os.fstat(self._root).st_gid
        if uid is not None:
            with _explained(f"Cannot hand {self.path} to the sandbox's user."):
                os.fchown(self._root, uid, uid)
            if not self.temporary:  # what an earlier sandbox made there, this one must be able to change
                self._hand_over(self._root, MAX_DEPTH, self._owner[0], (uid, uid))

    def put(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy the host's file `source` into the workspace as `name`, replacing what is there.

        Raises:
            WorkspaceError: the name leaves the workspace, or the file cannot be read or written.
        """
        parts = _parts(name)
        with _explained(f"Cannot copy {source} into the workspace."), open(source, "rb") as reader:
            folder = self._open_folder(parts[:-1], create=True)
            with _closing(folder):
                size = self._write(folder, parts[-1], reader.fileno(), on_progress)
        return FileInfo("/".join(parts), size)

    def link(self, name: str, target: str) -> None:
        """Make `name`, in the workspace's top folder, a link to what the sandbox sees as `target`.

        Raises:
            WorkspaceError: it cannot be made.
        """
        temporary = f".link-{os.urandom(6).hex()}"
        with _explained(f"Cannot put {name} into the workspace."):
            os.symlink(target, temporary, dir_fd=self._root)
            os.rename(temporary, name, src_dir_fd=self._root, dst_dir_fd=self._root)

    def unlink(self, name: str, target: str) -> None:
        """Remove what `link` made, unless it is something else by now."""
        with contextlib.suppress(OSError):
            if os.readlink(name, dir_fd=self._root) == target:
                os.unlink(name, dir_fd=self._root)

    def get(self, name: str, destination: Path) -> None:
        """Copy the workspace's file `name` to `destination` on the host.

        Raises:
            WorkspaceError: it is not a regular file of the workspace, or cannot be copied.
        """
        parts = _parts(name)
        with _explained(f"Cannot copy {name} out of the workspace."):
            folder = self._open_folder(parts[:-1])
            with (
                _closing(folder),
                _closing(_open_regular(folder, parts[-1])) as reader,
                replacing(destination, parts[-1]) as writer,
            ):
                _copy(reader, writer.fileno())

    def remove(self, name: str) -> None:
        """Delete the workspace's file `name`; its space is free even if code has it open.

        Raises:
            WorkspaceError: it is not there.
        """
        parts = _parts(name)
        with _explained(f"Cannot remove {name} from the workspace."):
            folder = self._open_folder(parts[:-1])
            with _closing(folder):
                with contextlib.suppress(OSError), _closing(_open_regular(folder, parts[-1], os.O_WRONLY)) as file:
                    os.ftruncate(file, 0)
                os.unlink(parts[-1], dir_fd=folder)

    def list(self) -> tuple[FileInfo, ...]:
        """Regular files, sorted by name; at most `MAX_FILES`."""
        return listed(self.snapshot())

    def snapshot(self) -> Snapshot:
        """What `changes` compares with."""
        return snapshot_of(self._walk(self._root, "", MAX_DEPTH))

    def changes(self, before: Snapshot) -> tuple[FileInfo, ...]:
        """Files that are new or changed since `before`."""
        return changed(before, self.snapshot())

    def close(self) -> None:
        """Remove a temporary workspace; give a reader's folder back. The sandbox must have ended. Idempotent."""
        if self._root < 0:
            return
        if self._uid is not None and not self.temporary:
            self._hand_over(self._root, MAX_DEPTH, self._uid, self._owner)
            os.fchown(self._root, *self._owner)
        os.close(self._root)
        self._root = -1
        if self.temporary:
            scratch.remove(self.path)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    # ---- inside --------------------------------------------------------------------------------------------------

    def _open_folder(self, parts: tuple[str, ...], *, create: bool = False) -> int:
        """A descriptor of the subfolder `parts`; the caller closes it."""
        current = os.dup(self._root)
        for part in parts:
            with _closing(current):
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=current)
                        if self._uid is not None:
                            os.chown(part, self._uid, self._uid, dir_fd=current, follow_symlinks=False)
                current = os.open(part, _FOLDER_FLAGS, dir_fd=current)
        return current

    def _write(self, folder: int, name: str, reader: int, on_progress: ProgressHook | None) -> int:
        """Write under a new name, then rename: a planted link or pipe is replaced, never opened."""
        temporary = f".part-{os.getpid()}-{os.urandom(6).hex()}"
        writer = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o644, dir_fd=folder)
        try:
            with _closing(writer):
                size = _copy(reader, writer, on_progress)
                if self._uid is not None:
                    os.fchown(writer, self._uid, self._uid)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
        return size

    def _walk(self, folder: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
        """Regular files below the open `folder`, never through a link. What cannot be read is left out."""
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.isprintable():
                    continue
                with contextlib.suppress(OSError):
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode):
                        yield prefix + entry.name, info
                    elif stat.S_ISDIR(info.st_mode) and depth > 0:
                        with _closing(os.open(entry.name, _FOLDER_FLAGS, dir_fd=folder)) as below:
                            yield from self._walk(below, f"{prefix}{entry.name}/", depth - 1)

    def _hand_over(self, folder: int, depth: int, giver: int, taker: tuple[int, int]) -> None:
        """Hand everything below the open `folder` that belongs to the user `giver` to another user and group.

        Links are not followed, and a file that has another name too stays as it is: that may lie elsewhere.
        """
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    info = entry.stat(follow_symlinks=False)
                    is_folder = stat.S_ISDIR(info.st_mode)
                    if info.st_uid == giver and (is_folder or info.st_nlink == 1 or giver == self._uid):
                        os.chown(entry.name, *taker, dir_fd=folder, follow_symlinks=False)
                    if is_folder and depth > 0:
                        with _closing(os.open(entry.name, _FOLDER_FLAGS, dir_fd=folder)) as below:
                            self._hand_over(below, depth - 1, giver, taker)


def _expand(path: Path) -> Path:
    """Like `Path.expanduser`, but a user without a home folder is no error."""
    return Path(os.path.expanduser(path))


def refuse_unsafe(folder: Path) -> None:
    """Raise unless `folder` may be handed to code that nobody has read."""
    reason = ""
    home = _expand(Path("~")).resolve()
    environment = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()} - {Path("/usr")}
    if not folder.is_dir():
        reason = "it is not a folder"
    elif folder == Path("/") or (folder.parent == Path("/") and folder.name in _SYSTEM):
        reason = "it belongs to the system"
    elif home.is_relative_to(folder):
        reason = "it holds your home folder"
    elif any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in environment):
        reason = "it holds the Python environment, which code could change"
    else:
        secrets = [name for name in _SECRETS if os.path.lexists(folder / name)]
        reason = f"it holds {', '.join(secrets)}, which may be secret" if secrets else ""
    if reason:
        raise WorkspaceError(
            f"The folder {folder} cannot be a workspace.",
            why=f"Code in the sandbox may read and write all of a workspace, and {reason}.",
            hint="Give a folder of its own for the data, or none: a temporary one is made.",
        )


@contextlib.contextmanager
def replacing(destination: Path, name: str) -> Iterator[BinaryIO]:
    """A new file of the host. Once it is whole it takes its place at once; before that, nothing there changes.

    Args:
        destination: the file's place, or a folder.
        name: of the file in that folder.
    """
    place = destination / name if destination.is_dir() else destination
    part, temporary = tempfile.mkstemp(dir=place.parent, prefix=".part-")
    try:
        with open(part, "wb") as writer:
            yield writer
            os.chmod(part if os.chmod in os.supports_fd else temporary, 0o644)
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise


def snapshot_of(files: Iterable[tuple[str, os.stat_result]]) -> Snapshot:
    """What `changed` compares; at most `MAX_FILES`."""
    return {name: (info.st_size, info.st_mtime_ns, info.st_ino) for name, info in itertools.islice(files, MAX_FILES)}


def listed(files: Snapshot) -> tuple[FileInfo, ...]:
    """All files, sorted by name."""
    return tuple(FileInfo(name, size) for name, (size, _, _) in sorted(files.items()))


def changed(before: Snapshot, after: Snapshot) -> tuple[FileInfo, ...]:
    """Files that are new or changed."""
    return listed({name: file for name, file in after.items() if before.get(name) != file})


def _parts(name: str) -> tuple[str, ...]:
    """The steps of a relative name."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or not name.isprintable():
        raise WorkspaceError(
            f"{name!r} is not a name of a file in the workspace.",
            why="It must be relative and stay inside.",
        )
    return parts


def _open_regular(folder: int, name: str, mode: int = os.O_RDONLY) -> int:
    """A descriptor of `name`; O_NONBLOCK so that a planted pipe cannot hang us."""
    descriptor = os.open(name, mode | os.O_NONBLOCK | _NO_FOLLOW, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return descriptor


def _copy(reader: int, writer: int, on_progress: ProgressHook | None = None) -> int:
    """Copy as many bytes as the file has now, so that one that grows ends too."""
    left = total = os.fstat(reader).st_size
    done = 0
    while left > 0 and (data := os.read(reader, min(left, _CHUNK))):
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]
        left -= len(data)
        done += len(data)
        if on_progress is not None:
            on_progress(done, total)
    return done


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
