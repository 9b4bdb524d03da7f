"""What `%load_ext` costs over a bare IPython: a fresh process for each measure."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median

from .report import Row

PROBE = """
import gc, os, time
def state():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return time.process_time(), int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before = state()
get_ipython().run_line_magic("load_ext", "sandbox_agent_magic")
print("MEASURED", *before, *state())
"""


def _one(folder: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--HistoryManager.enabled=False", "-c", PROBE],
        env={**os.environ, "IPYTHONDIR": folder},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    return [float(word) for word in line.split()[1:]]


def load_extension(rounds: int) -> list[Row]:
    """CPU seconds and resident memory."""
    with tempfile.TemporaryDirectory() as folder:
        _one(folder)  # bytecode and page cache
        cpu, memory, cpu_with, memory_with = (
            median(column) for column in zip(*(_one(folder) for _ in range(rounds)), strict=True)
        )
    return [
        Row("%load_ext: CPU over bare IPython", cpu_with, 0.10, "s", cpu, "over"),
        Row("%load_ext: memory over bare IPython", memory_with, 5, "MB", memory, "over"),
    ]
