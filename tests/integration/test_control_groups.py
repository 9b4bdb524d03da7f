"""A control group around a sandbox, where one can be made: the ceiling above the watchdog."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.sandbox import SandboxLimits, SandboxProcess, cgroup
from tests.support.sandbox import run, text

MIB = 1 << 20
GROUP = cgroup.make(SandboxLimits())
if GROUP is not None:
    GROUP.remove()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(GROUP is None, reason="no control group can be made here (version 1 needs root)"),
    pytest.mark.may_skip,
]
BURST = """
import os
for _ in range(12):
    if os.fork() == 0:
        held = bytearray(100 << 20)
        for at in range(0, len(held), 4096): held[at] = 1
        import time; time.sleep(30)
        os._exit(0)
while True: os.wait()
"""


def group_of(executor: SandboxExecutor) -> cgroup.ControlGroup:
    process = executor._kernel._process
    assert isinstance(process, SandboxProcess)
    group = process._trial._group
    assert group is not None
    return group


@pytest.mark.parametrize("tier", ["bubblewrap", "landlock"])
def test_a_burst_between_two_looks_of_the_watchdog_ends_at_the_ceiling(tier: str) -> None:
    limits = SandboxLimits(memory_bytes=300 * MIB, tmp_bytes=16 * MIB)
    executor = SandboxExecutor(limits=limits, tier=tier)
    try:
        run(executor, "1")
        folder = group_of(executor).folders[0]
        ceiling = int((folder / "memory.limit_in_bytes").read_text())
        assert 300 * MIB < ceiling < 400 * MIB
        result = run(executor, BURST)
        assert result.error is not None
        assert result.error.ename == "MemoryLimitExceeded"
        assert result.duration_s < 10
        if folder.exists():  # it goes with its kernel, where that had to be replaced
            assert int((folder / "memory.max_usage_in_bytes").read_text()) <= ceiling
        assert text(run(executor, "1 + 1")) == "2"
    finally:
        executor.shutdown()
    assert not folder.exists()


def test_groups_of_a_killed_process_are_removed_by_the_next_start() -> None:
    code = (
        "import os\nfrom sandbox_agent_magic.sandbox import SandboxLimits, cgroup\n"
        "print(*cgroup.make(SandboxLimits()).folders, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    left = [Path(name) for name in done.stdout.split()]
    assert left
    assert all(folder.exists() for folder in left)
    group = cgroup.make(SandboxLimits())
    assert group is not None
    group.remove()
    assert not any(folder.exists() for folder in [*left, *group.folders])


def test_a_folder_that_only_looks_like_a_parent_of_groups_makes_none(tmp_path: Path) -> None:
    kind = cgroup._Kind(2, {"memory.max": "1"}, "memory.max")
    assert cgroup._make_below(tmp_path, "sandbox-agent-1-x", kind) is None
    assert list(tmp_path.iterdir()) == []


def test_a_group_of_version_2_is_joined_before_the_program_starts_and_killed_whole() -> None:
    mount = cgroup._mounts().get("")
    kind = cgroup._Kind(2, {"cgroup.max.depth": "1"}, "cgroup.max.depth")  # exists without any controller
    folder = cgroup._make_below(mount, f"sandbox-agent-{os.getpid()}-test", kind) if mount else None
    if folder is None:
        pytest.skip("no group of version 2 can be made here")
    group = cgroup.ControlGroup([folder], 2)
    command = group.joining(["sh", "-c", "sleep 60 & echo started; exec sleep 60"])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "started\n"
        assert len((folder / "cgroup.procs").read_text().split()) == 2
        group.remove()
        assert process.wait(5) == -9
        assert process.stdout.read() == ""  # nobody has the other end any more
        assert not folder.exists()
    finally:
        process.kill()
        process.stdout.close()


ORPHAN = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
time.sleep(0.2)
"""


def test_a_process_that_survives_its_supervisor_ends_with_the_group() -> None:
    before = set(psutil.Process().children(recursive=True))
    executor = SandboxExecutor(tier="landlock")
    try:
        run(executor, ORPHAN)
        inside = set(psutil.Process().children(recursive=True)) - before
        supervisor = next(process for process in inside if process.parent() == psutil.Process())
        supervisor.kill()
    finally:
        executor.shutdown()
    assert len(inside) >= 3
    assert not psutil.wait_procs(inside, timeout=5)[1]
