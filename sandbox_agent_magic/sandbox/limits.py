"""How much a sandbox may use."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds of one sandbox. All but `processes` and the tmpfs sizes hold for each process on its own."""

    memory_bytes: int = 2 * GIB
    """Heap and other private data (RLIMIT_DATA)."""
    address_space_bytes: int = 4 * GIB
    """Everything mapped (RLIMIT_AS): RLIMIT_DATA alone is bypassed by shared mappings."""
    processes: int = 64
    """Processes and threads together (RLIMIT_NPROC)."""
    file_bytes: int = 256 * MIB
    """One file (RLIMIT_FSIZE)."""
    open_files: int = 1024
    """File descriptors (RLIMIT_NOFILE)."""
    tmp_bytes: int = 256 * MIB
    """Size of /tmp, and again of /dev/shm; both live in memory."""
    threads: int = 2
    """Threads that numerical libraries start."""

    def rlimits(self, *, other_tasks: int = 0) -> dict[str, int]:
        """Names of the `resource` module's constants, and values.

        Args:
            other_tasks: tasks of the same user outside the sandbox that RLIMIT_NPROC counts too.
        """
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": self.memory_bytes,
            "RLIMIT_AS": self.address_space_bytes,
            "RLIMIT_NPROC": self.processes + other_tasks,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
        }


def counted_tasks() -> int:
    """Tasks of this user that count against a new sandbox: none since Linux 5.14, which counts per user namespace."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    new = release is not None and (int(release[1]), int(release[2])) >= (5, 14)
    return 0 if new else tasks_of(os.getuid())


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
