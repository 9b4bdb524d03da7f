"""How much a sandbox may use."""

from __future__ import annotations

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

    def rlimits(self) -> dict[str, int]:
        """Names of the `resource` module's constants, and values."""
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": self.memory_bytes,
            "RLIMIT_AS": self.address_space_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
        }
