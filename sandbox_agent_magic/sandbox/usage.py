"""What the processes of a sandbox use, seen from outside: memory of them all, and disk of their workspace.

Everything in there is hostile: folders may be nested without end or locked, files may be open though they have no name.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

TOO_DEEP = 1 << 62
"""What a workspace counts that has more than `MAX_DEPTH` levels of folders."""
MAX_DEPTH = 100
_File = tuple[int, int]
"""Device and inode number."""
_MIN_BYTES = 4096
"""Each file and folder counts at least this: empty ones take space too."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC if os.name == "posix" else 0


def descendants(pid: int) -> list[int]:
    """`pid` and all processes below it."""
    found = [pid]
    for each in found:  # grows meanwhile
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                with contextlib.suppress(OSError):
                    found += map(int, Path(f"/proc/{each}/task/{task}/children").read_bytes().split())
    return found


def parent(pid: int) -> int:
    """The process that `pid` belongs to; 0 where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def memory(pids: Collection[int], enough: int) -> int:
    """Bytes that the processes use together, in memory or swapped out; exact only above `enough`.

    The quick sum counts shared pages once for each process; only if that is too much, the exact one is made.
    """
    quick = sum(_field_sum(f"/proc/{pid}/status", (b"VmRSS:", b"VmSwap:")) for pid in pids)
    if quick <= enough:
        return quick
    exact = [_field_sum(f"/proc/{pid}/smaps_rollup", (b"Pss:", b"SwapPss:")) for pid in pids]
    return sum(exact) if any(exact) else quick


def _field_sum(path: str, names: tuple[bytes, ...]) -> int:
    """The sum of some of the values in kB that a file of /proc shows."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))


def disk(folders: Sequence[Path], pids: Collection[int]) -> int:
    """Bytes that the files of `folders` take, with those that have no name but are still open in `pids`.

    Args:
        folders: the workspace, which a sandbox may see as `/workspace`, and others, which need not be there.
        pids: processes of the sandbox.
    """
    seen: set[_File] = set()
    names: dict[bytes, int] = {}
    total = 0
    for folder in folders:
        try:
            root = os.open(folder, _FOLDER)
        except FileNotFoundError:
            if folder == folders[0]:
                raise
            continue
        try:
            device = os.fstat(root).st_dev
            names.setdefault(b"/workspace/", device)
            names[os.fsencode(folder) + b"/"] = device
            total += sum(_below(root, seen, MAX_DEPTH))
        finally:
            os.close(root)
    return total + sum(_open_nameless(pids, set(names.values()), seen)) + sum(_mapped_nameless(pids, names, seen))


def _below(folder: int, seen: set[_File], depth: int) -> Iterator[int]:
    """The size of each thing below the open `folder`, never through a link; of hard links, once."""
    if depth == 0:
        yield TOO_DEEP
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                info = entry.stat(follow_symlinks=False)
                if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                    if (info.st_dev, info.st_ino) in seen:
                        continue
                    seen.add((info.st_dev, info.st_ino))
                yield max(info.st_blocks * 512, _MIN_BYTES)
                if stat.S_ISDIR(info.st_mode):
                    below = _open(entry.name, folder)
                    try:
                        yield from _below(below, seen, depth - 1)
                    finally:
                        os.close(below)


def _open(name: str, parent: int) -> int:
    """A descriptor of a folder, which is unlocked if need be: its files may be open inside all the same."""
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, _FOLDER | os.O_PATH, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        return os.open(name, _FOLDER, dir_fd=parent)


def _open_nameless(pids: Collection[int], devices: Collection[int], seen: set[_File]) -> Iterator[int]:
    """The size of each file of these devices that was removed and is still open."""
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    info = entry.stat()
                    file = (info.st_dev, info.st_ino)
                    unnamed = info.st_nlink == 0 and info.st_dev in devices and stat.S_ISREG(info.st_mode)
                    if unnamed and file not in seen:
                        seen.add(file)
                        yield info.st_blocks * 512


def _mapped_nameless(pids: Collection[int], names: Mapping[bytes, int], seen: set[_File]) -> Iterator[int]:
    """The size of each removed file that is still mapped, if its path was in a folder of `names` (with devices)."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
                device = next((device for name, device in names.items() if name in line), None)
                if device is not None and line.endswith(b" (deleted)"):
                    area, _, _, _, inode = line.split()[:5]
                    first, _, last = area.partition(b"-")
                    if (device, int(inode)) not in seen:
                        seen.add((device, int(inode)))
                        yield int(last, 16) - int(first, 16)
