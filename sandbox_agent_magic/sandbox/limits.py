"""How much a sandbox may use."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import Self

from ..outputs import OutputLimits, mib
from ..settings import Settings
from ..types import ErrorInfo

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_MAPPED_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds of one sandbox, and of what one cell in it may send out.

    Memory and disk are watched for the whole sandbox (`watchdog.py`); the machine's kernel bounds each process besides.
    """

    memory_bytes: int = 2 * GIB
    """All processes together, what they share counted once. Each one's private data too (RLIMIT_DATA)."""
    disk_bytes: int = GIB
    """The workspace, beyond what the reader put there."""
    processes: int = 64
    """Processes and threads together (RLIMIT_NPROC)."""
    file_bytes: int = 2 * GIB
    """One file (RLIMIT_FSIZE)."""
    tmp_bytes: int = 256 * MIB
    """Size of /tmp, and again of /dev/shm; both live in memory."""
    open_files: int = 1024
    """File descriptors of one process (RLIMIT_NOFILE)."""
    packages_bytes: int = 4 * GIB
    """Packages that were installed for one workspace, together."""
    threads: int = 2
    """Threads that numerical libraries start."""
    outputs: OutputLimits = field(default_factory=OutputLimits)
    """Text, pictures and messages."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the AGENT_LIMIT_* settings say."""
        return cls(
            memory_bytes=settings.agent_limit_memory * MIB,
            disk_bytes=settings.agent_limit_disk * MIB,
            processes=settings.agent_limit_processes,
            file_bytes=settings.agent_limit_file * MIB,
            tmp_bytes=settings.agent_limit_tmp * MIB,
            packages_bytes=settings.agent_limit_packages * MIB,
            outputs=OutputLimits(
                text_bytes=settings.agent_limit_text * MIB,
                picture_bytes=settings.agent_limit_picture * MIB,
                message_bytes=settings.agent_limit_message * MIB,
                messages=settings.agent_limit_messages,
            ),
        )

    def rlimits(self, *, other_tasks: int = 0) -> dict[str, int]:
        """Names of the `resource` module's constants, and values.

        Args:
            other_tasks: tasks of the same user outside the sandbox that RLIMIT_NPROC counts too.
        """
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": self.memory_bytes,
            # Everything mapped: RLIMIT_DATA alone is bypassed by shared mappings.
            "RLIMIT_AS": self.memory_bytes + _MAPPED_BYTES,
            "RLIMIT_NPROC": self.processes + other_tasks,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
        }

    def hints(self) -> dict[str, str]:
        """What to add to the errors that these limits raise inside: limit, value and setting."""
        return {
            "memory": f"The sandbox may use {mib(self.memory_bytes)} of memory (AGENT_LIMIT_MEMORY).",
            "processes": f"The sandbox may have {self.processes} processes and threads (AGENT_LIMIT_PROCESSES).",
            "file": f"A file may have {mib(self.file_bytes)} (AGENT_LIMIT_FILE).",
            "tmp": f"/tmp and /dev/shm may hold {mib(self.tmp_bytes)} each (AGENT_LIMIT_TMP).",  # noqa: S108 - names it
            "text": f"a cell keeps {mib(self.outputs.text_bytes)} of text (AGENT_LIMIT_TEXT)",
        }

    def memory_exceeded(self, used: int) -> ErrorInfo:
        """The error of code whose processes used `used` bytes together."""
        return ErrorInfo(
            "MemoryLimitExceeded",
            f"The code was stopped: its processes used {mib(used)} of memory together. {self.hints()['memory']}",
        )

    def disk_exceeded(self, used: int, removed: str) -> ErrorInfo:
        """The error of code that wrote until the workspace held `used` bytes; `removed`: what was deleted again."""
        gone = f" Removed again: {removed}." if removed else ""
        limit = f"The workspace may hold {mib(self.disk_bytes)} (AGENT_LIMIT_DISK)."
        return ErrorInfo("DiskLimitExceeded", f"The code was stopped: the workspace grew to {mib(used)}. {limit}{gone}")


def counted_tasks() -> int:
    """Tasks of this user that count against a new sandbox: none since Linux 5.14, which counts per user namespace."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    new = release is not None and (int(release[1]), int(release[2])) >= (5, 14)
    return 0 if new else tasks_of(os.getuid())


def users() -> set[int]:
    """Ids of all users who have a process."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            found.add(os.stat(f"/proc/{name}").st_uid)
    return found


def tasks_of(uid: int) -> int:
    """Processes and threads of the user `uid`."""
    total = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                total += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended
    return total
