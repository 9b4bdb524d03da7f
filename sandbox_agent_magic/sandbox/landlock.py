"""A weaker sandbox, where namespaces are forbidden: Landlock for the files, a stricter system call filter for the rest.

Chosen by AGENT_SANDBOX=landlock, never by itself. What it cannot hide, and bubblewrap can: that a file or a process
exists, sizes and times of files, where links lead, the machine's name. What it takes away besides: /tmp and /dev/shm of
the machine (TMPDIR is the sandbox's own), sockets, semaphores between processes, changing a file's mode or times.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from . import seccomp
from .canary import PROBES
from .plan import SYSTEM, Plan, Start, interpreter, masked, variables

_EXECUTE, _WRITE, _READ, _LIST = 0x1, 0x2, 0x4, 0x8
_REFER, _TRUNCATE, _IOCTL = 0x2000, 0x4000, 0x8000
_MAKE_DEVICES = 0x40 | 0x800
"""A character and a block device."""
_ALL_FILES = 0x1FFF | _REFER | _TRUNCATE | _IOCTL
_ALL_NETWORK = 0x3
"""Bind and connect by TCP."""
_ALL_SCOPES = 0x3
"""Abstract sockets and signals."""
_READ_ONLY = _EXECUTE | _READ | _LIST
_READ_WRITE = _ALL_FILES & ~(_MAKE_DEVICES | _IOCTL)
_LEAST_ABI, _SCOPED_ABI = 3, 6
_DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
_KNOWLEDGE = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    # joblib looks here for how many processors it may use, and fails where they exist and cannot be read.
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
)
_OF_ITSELF = ("cgroup", "cmdline", "comm", "fd", "io", "limits", "maps", "smaps_rollup", "stat", "statm", "status")
"""Of /proc/self. The whole would show the machine's mounts, its network and all of its sockets (`net`)."""
_COVER = """
set -e
while [ "$1" != -- ]; do mount --rbind "$1" "$2"; shift 2; done
shift
while [ "$1" != -- ]; do mount -t tmpfs -o mode=755,size=1m none "$1"; shift; done
shift
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "${2%/*}" && touch "$2"; fi
    mount --rbind "$1" "$2"; shift 2
done
shift
exec "$@"
"""


def abi() -> int:
    """Landlock's version on this machine's kernel; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    version = ctypes.CDLL(None, use_errno=True).syscall(444, None, ctypes.c_size_t(0), 1)
    return max(0, int(version))


def find(version: int, *, own_user: bool) -> tuple[list[Launcher], list[str]]:
    """The launcher, if this machine's kernel has what it takes; else why not.

    Args:
        version: of Landlock (`abi`).
        own_user: the sandbox runs as a user of its own; otherwise only Landlock keeps its signals in.
    """
    if version == 0:
        return [], ["Landlock: the machine's kernel has none, or `lsm=` at its start leaves it out"]
    if version < _LEAST_ABI:
        return [], [f"Landlock: the machine's kernel has version {version}; {_LEAST_ABI} is needed (Linux 6.2)"]
    if version < _SCOPED_ABI and not own_user:
        why = f"has version {version}; unless you are root, {_SCOPED_ABI} is needed (Linux 6.12), which bounds signals"
        return [], [f"Landlock: the machine's kernel {why}"]
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return [], ["Landlock: /proc does not name a process's children, so not all of the sandbox could be ended"]
    return [Launcher(version)], []


@dataclass(frozen=True, slots=True)
class Launcher:
    """Confines a child of this process's child. `plan.Launcher` says what the members mean."""

    version: int
    """Landlock's."""
    probes: ClassVar[tuple[str, ...]] = (*PROBES, "host process", "host socket")
    supervised: ClassVar[bool] = True

    def start(self, plan: Plan, arguments: Sequence[str], closing: ExitStack) -> Start:  # noqa: ARG002
        """As `plan.Launcher.start`."""
        program = seccomp.program(os.uname().machine, namespaces=False)
        command = self._command(plan, [], arguments, program=program, network=False)
        return Start(command, variables(plan.limits, tmp=str(plan.tmp), home=str(plan.tmp / "home")))

    def layer(self, plan: Plan) -> str:
        """As `plan.Launcher.layer`."""
        return str(plan.layer) if plan.layer else ""

    def networked(self, plan: Plan, shown: Sequence[str], arguments: Sequence[str]) -> list[str]:
        """The command line for a trusted program, such as pip: it has network, and may read `shown` too."""
        return self._command(plan, shown, arguments, program=seccomp.program(os.uname().machine), network=True)

    def _command(
        self, plan: Plan, shown: Sequence[str], arguments: Sequence[str], *, program: bytes, network: bool
    ) -> list[str]:
        """The command line that runs the Python program on stdin confined."""
        rules = [*_readable(plan.folders), (str(plan.workspace), _READ_WRITE), (str(plan.tmp), _READ_WRITE)]
        rules += [(str(path), _READ_ONLY) for path in (plan.layer, *plan.files.values(), *shown) if path is not None]
        files = _ALL_FILES if self.version >= 5 else _ALL_FILES & ~_IOCTL
        confinement = {
            "parent": os.getpid(),
            "uid": plan.uid,
            "folder": str(plan.workspace),
            "handled": [
                files,
                0 if network or self.version < 4 else _ALL_NETWORK,
                _ALL_SCOPES if self.version >= 6 else 0,
            ],
            "rules": [(path, rights & files) for path, rights in rules],
            "filter": program.hex(),
        }
        source = Path(__file__).with_name("confine.py").read_text("utf-8")
        return [*_uncover(plan), str(interpreter()), "-P", "-c", source, json.dumps(confinement), *arguments]

    def __str__(self) -> str:
        return f"Landlock {self.version} (weaker: AGENT_SANDBOX=landlock)"


def _readable(folders: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Rules for the system and the interpreter's `folders`, without their secrets."""
    yield from ((name, _READ_ONLY) for name in _KNOWLEDGE)
    yield from ((f"/proc/self/{name}", _READ_ONLY) for name in _OF_ITSELF)
    yield "/proc/self/task", _LIST
    yield from ((name, _READ | _WRITE) for name in _DEVICES)
    secrets = masked(folders)
    for path in dict.fromkeys([*map(Path, SYSTEM), *folders]):
        if os.path.exists(path):
            yield from _without(path.resolve(), [secret.resolve() for secret in secrets])


def _without(path: Path, secrets: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Rules for all beneath `path` but the `secrets`: rights cannot be taken back further down."""
    below = [secret for secret in secrets if secret.is_relative_to(path)]
    if path in below:
        return
    if not below:
        yield str(path), _READ_ONLY
        return
    yield str(path), _LIST
    for entry in os.scandir(path):
        if not entry.is_symlink():  # what a link leads to has a rule of its own, or none
            yield from _without(Path(entry.path), below)


def _uncover(plan: Plan) -> list[str]:
    """As root: what lets the user `plan.uid` walk to what lies in closed folders, such as root's home.

    In a mount namespace of its own, each closed folder is covered by an empty one, in which only that appears. Where
    mounting is forbidden, the start fails, and says so.
    """
    layer = [plan.layer] if plan.layer else []
    wanted = [*plan.folders, plan.workspace, *layer, *plan.files.values()] if plan.uid is not None else []
    closed = {path: first for path in wanted if (first := _first_closed(path))}
    if not closed or plan.stage is None:
        return []
    staged: list[str] = []
    back: list[str] = []
    for number, path in enumerate(_outermost(closed)):
        target = plan.stage / str(number)
        target.mkdir() if path.is_dir() else target.touch()
        staged += [str(path), str(target)]
        back += [str(target), str(path)]
    covered = map(str, _outermost(closed.values()))
    private = ["unshare", "--mount", "--propagation", "private", "--"]
    return [*private, "/bin/sh", "-c", _COVER, "cover", *staged, "--", *covered, "--", *back, "--"]


def _first_closed(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that not everybody may enter."""
    return next((way for way in reversed(path.parents) if not way.stat().st_mode & stat.S_IXOTH), None)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    found = dict.fromkeys(paths)
    return [path for path in found if not any(path != other and path.is_relative_to(other) for other in found)]
