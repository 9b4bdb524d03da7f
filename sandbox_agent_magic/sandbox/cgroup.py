"""A control group for one sandbox, where this user may make one: then the machine's kernel bounds all of it together.

The watchdog looks ten times a second and uses the mildest means; the group is the ceiling above it, which even a burst
between two looks cannot pass. Version 2 needs a parent that was delegated to the user with the memory controller, as
systemd does for user sessions; version 1 needs root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .limits import MIB, SandboxLimits

_PREFIX = "sandbox-agent-"
_OTHER_TASKS = 8
"""Launchers, beside what code may start."""
_END_S = 0.5
_JOIN = """
while [ "$1" != -- ]; do echo 0 > "$1" 2> /dev/null; shift; done
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between the versions, or between a version's hierarchies."""

    version: int
    settings: Mapping[str, str]
    """Files and values; those that do not exist are left out."""
    needed: str
    """The file that bounds."""


class ControlGroup:
    """The group; as a folder in each hierarchy. `make` makes one.

    Args:
        folders: one for each hierarchy, the one that bounds memory first.
        version: of control groups.
    """

    def __init__(self, folders: Sequence[Path], version: int) -> None:
        self.folders = tuple(folders)
        self.version = version
        self._kills = 0

    def joining(self, command: Sequence[str]) -> list[str]:
        """The command line that does the same inside the group."""
        lists = [str(folder / "cgroup.procs") for folder in self.folders]
        return ["/bin/sh", "-c", _JOIN, "join", *lists, "--", *command]

    @property
    def kills(self) -> int:
        """How many of its processes the machine's kernel has killed for memory."""
        name = "memory.events.local" if self.version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError, KeyError):
            rows = (line.split() for line in (self.folders[0] / name).read_text().splitlines())
            self._kills = int({row[0]: row[1] for row in rows if len(row) == 2}["oom_kill"])
        return self._kills

    def _kill_members(self) -> None:
        """What survived its launcher; version 1 has no `cgroup.kill`."""
        for pid in self._members():
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                try:
                    if pid in self._members():  # still: a number may have been given to another process
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                finally:
                    os.close(handle)

    def _members(self) -> set[int]:
        with contextlib.suppress(OSError, ValueError):
            return {int(word) for word in (self.folders[0] / "cgroup.procs").read_text().split()} - {0}
        return set()

    def remove(self) -> None:
        """Kill what is left in it, and remove it. `kills` keeps its last value."""
        _ = self.kills
        for folder in self.folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + _END_S
        while any(map(_busy, self.folders)) and time.monotonic() < deadline:
            self._kill_members()
            time.sleep(0.005)


def make(limits: SandboxLimits) -> ControlGroup | None:
    """A new group with these limits; None where none can be made."""
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    folders: list[Path] = []
    version = 0
    for parent, kind in _parents(limits):
        if version in (0, kind.version) and (folder := _make_below(parent, name, kind)) is not None:
            folders.append(folder)
            version = kind.version
    return ControlGroup(folders, version) if folders else None


def described() -> str:
    """What bounds memory on this machine, for a report."""
    group = make(SandboxLimits())
    if group is None:
        return "memory of all processes together: a watchdog; no control group can be made here"
    group.remove()
    return f"memory of all processes together: a watchdog, and a control group (version {group.version}) as ceiling"


def _busy(folder: Path) -> bool:
    """Whether a group could not be removed yet."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _make_below(parent: Path, name: str, kind: _Kind) -> Path | None:
    folder = parent / name
    try:
        _sweep(parent)
        folder.mkdir()
    except OSError:
        return None
    try:
        for file, value in kind.settings.items():
            if file == kind.needed or (folder / file).exists():
                # Never create: a folder that only looks like a control group must not count as one.
                with open(os.open(folder / file, os.O_WRONLY), "w") as setting:
                    setting.write(value)
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return None
    return folder


def _sweep(parent: Path) -> None:
    """Remove groups of processes that are gone; only empty ones can be."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _parents(limits: SandboxLimits) -> Iterator[tuple[Path, _Kind]]:
    """Folders below which a group could be made, best first."""
    ceiling = str(limits.memory_bytes + limits.memory_bytes // 8 + 2 * limits.tmp_bytes + 16 * MIB)
    tasks = str(limits.processes + _OTHER_TASKS)
    second = _Kind(2, {"memory.max": ceiling, "memory.swap.max": "0", "pids.max": tasks}, "memory.max")
    memory = _Kind(
        1, {"memory.limit_in_bytes": ceiling, "memory.memsw.limit_in_bytes": ceiling}, "memory.limit_in_bytes"
    )
    pids = _Kind(1, {"pids.max": tasks}, "pids.max")
    mounts = _mounts()
    own = _own_groups()
    if "" in mounts and "" in own:
        group = mounts[""] / own[""].lstrip("/")
        # A group with processes in it can have no children with limits: the group beside it is the usual one.
        yield from (
            (parent, second) for parent in dict.fromkeys([group, group.parent]) if parent.is_relative_to(mounts[""])
        )
    for controller, kind in (("memory", memory), ("pids", pids)):
        if controller in mounts and controller in own:
            yield mounts[controller] / own[controller].lstrip("/"), kind


def _own_groups() -> dict[str, str]:
    """This process's group by controller; version 2 has the name ""."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _mounts() -> dict[str, Path]:
    """Where each controller's hierarchy is mounted; version 2 has the name ""."""
    found: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            place = Path(before.split()[4])
            kind, _, options = [*after.split(), "", "", ""][:3]
            if kind == "cgroup2":
                found.setdefault("", place)
            elif kind == "cgroup":
                found.update({name: place for name in options.split(",") if name in ("memory", "pids")})
    return found
