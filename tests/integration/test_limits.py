"""Every limit of the sandbox is reached for real: the cell fails with its name, and the next one runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.outputs import OutputLimits
from sandbox_agent_magic.sandbox import SandboxLimits
from sandbox_agent_magic.types import ExecutionResult
from tests.support.sandbox import run, text

pytestmark = pytest.mark.integration

MIB = 1 << 20
SMALL = SandboxLimits(
    memory_bytes=512 * MIB,
    disk_bytes=64 * MIB,
    file_bytes=96 * MIB,
    tmp_bytes=32 * MIB,
    outputs=OutputLimits(picture_bytes=2 * MIB, message_bytes=4 * MIB, messages=2_000),
)


@contextmanager
def sandbox_with(limits: SandboxLimits = SMALL, workspace: Path | None = None) -> Iterator[SandboxExecutor]:
    executor = SandboxExecutor(workspace=workspace, limits=limits)
    try:
        run(executor, "kept = 'kept'")
        yield executor
    finally:
        executor.shutdown()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxExecutor]:
    with sandbox_with() as executor:
        yield executor


@pytest.fixture(autouse=True)
def _state(sandbox: SandboxExecutor) -> None:
    run(sandbox, "kept = 'kept'")


def assert_stopped(executor: SandboxExecutor, result: ExecutionResult, ename: str, *told: str) -> None:
    """The error names limit, value and setting, in the result and in the outputs; the sandbox goes on."""
    assert (result.status, result.error is not None and result.error.ename) == ("error", ename)
    assert result.error is not None
    for word in told:
        assert word in result.error.evalue
        assert word in text(result)
    assert text(run(executor, "1 + 1")) == "2"


def assert_state_kept(executor: SandboxExecutor, result: ExecutionResult) -> None:
    assert not result.state_lost
    assert text(run(executor, "kept")) == "'kept'"


# ---- disk ---------------------------------------------------------------------------------------------------------

FILL = """
print("begun", flush=True)
for number in range(1000):
    with open(f"part-{number}", "wb") as file:
        for _ in range(16):
            file.write(bytes(1 << 20))
"""


def test_a_cell_that_fills_the_disk_is_stopped_and_the_workspace_stays_usable(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, FILL)
    assert_stopped(sandbox, result, "DiskLimitExceeded", "64 MiB", "AGENT_LIMIT_DISK", "Removed again: part-")
    assert text(result).startswith("begun")
    assert sum(file.size for file in sandbox.list_files()) <= 64 * MIB
    again = run(
        sandbox, "import glob, os\nfor name in glob.glob('part-*'): os.unlink(name)\nopen('new', 'w').write('x')"
    )
    assert (again.status, [file.name for file in again.new_files]) == ("ok", ["new"])


def test_one_file_that_fills_the_disk_is_stopped_too(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "with open('big', 'wb') as file:\n    for _ in range(80): file.write(bytes(1 << 20))")
    assert_stopped(sandbox, result, "DiskLimitExceeded", "AGENT_LIMIT_DISK", "big")
    assert_state_kept(sandbox, result)


def test_code_that_fills_the_disk_and_ignores_interrupts_is_killed(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + FILL)
    assert_stopped(sandbox, result, "DiskLimitExceeded", "AGENT_LIMIT_DISK")
    assert result.state_lost


def test_files_without_a_name_and_in_locked_folders_count(sandbox: SandboxExecutor) -> None:
    nameless = """
        import os, time
        file = open("gone", "wb")
        os.unlink("gone")
        for _ in range(90): file.write(bytes(1 << 20))
        file.flush(); time.sleep(5)
    """
    result = run(sandbox, nameless)
    assert_stopped(sandbox, result, "DiskLimitExceeded", "AGENT_LIMIT_DISK")
    run(sandbox, "file = None\nkept = 'kept'")
    locked = """
        import os, time
        os.mkdir("locked"); file = open("locked/file", "wb"); os.chmod("locked", 0)
        for _ in range(90): file.write(bytes(1 << 20))
        file.flush(); time.sleep(5)
    """
    result = run(sandbox, locked)
    assert_stopped(sandbox, result, "DiskLimitExceeded", "AGENT_LIMIT_DISK", "locked/file")
    assert_state_kept(sandbox, result)


def test_processes_that_a_cell_left_behind_cannot_fill_the_disk_either() -> None:
    with sandbox_with() as sandbox:
        code = """
            import subprocess, sys
            writer = "import time; time.sleep(1)\\nfor n in range(400): open(f'part-{n}', 'wb').write(bytes(1 << 20))"
            subprocess.Popen([sys.executable, "-c", writer]).pid > 0
        """
        assert run(sandbox, code).status == "ok"
        time.sleep(3)
        told: list[str] = []
        result = sandbox.execute("6 * 7", timeout_s=30, on_output=lambda output: told.append(str(output)))
        assert (result.status, text(result)) == ("ok", "42")
        assert "left behind" in told[0]
        assert "AGENT_LIMIT_DISK" in told[0]
        assert sum(file.size for file in sandbox.list_files()) <= 64 * MIB


def test_what_the_reader_put_in_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "old").write_bytes(bytes(70 * MIB))
    (tmp_path / "more").write_bytes(bytes(70 * MIB))
    with sandbox_with(workspace=tmp_path / "work") as sandbox:
        sandbox.put_file(tmp_path / "more", "more")
        assert run(sandbox, "open('new', 'wb').write(bytes(50 << 20))").status == "ok"
        assert run(sandbox, "open('newer', 'wb').write(bytes(50 << 20))").status == "error"
        assert sorted(file.name for file in sandbox.list_files()) == ["more", "new", "old"]


# ---- memory -------------------------------------------------------------------------------------------------------

HOGS = """
import subprocess, sys, time
hog = "import time; data = b'x' * (200 << 20); time.sleep(30)"
hogs = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(6)]
time.sleep(20)
"""


def test_processes_that_use_too_much_memory_together_are_stopped(sandbox: SandboxExecutor) -> None:
    started = time.monotonic()
    result = run(sandbox, HOGS)
    assert time.monotonic() - started < 10
    assert_stopped(sandbox, result, "MemoryLimitExceeded", "512 MiB", "AGENT_LIMIT_MEMORY")


def test_memory_that_processes_share_counts_once(sandbox: SandboxExecutor) -> None:
    code = """
        import os, time
        data = b'x' * (150 << 20)
        children = []
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                time.sleep(1); os._exit(0)
            children.append(pid)
        for pid in children: os.waitpid(pid, 0)
        del data
        "done"
    """
    result = run(sandbox, code)
    assert (result.status, text(result)) == ("ok", "'done'")


def test_an_allocation_over_the_limit_fails_with_the_setting_and_keeps_the_state(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "data = bytearray(10 << 30)")
    assert_stopped(sandbox, result, "MemoryError", "512 MiB", "AGENT_LIMIT_MEMORY")
    assert_state_kept(sandbox, result)


# ---- processes, files, /tmp ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "ename", "setting"),
    [
        ("import subprocess\nfor _ in range(99): subprocess.Popen(['sleep', '2'])", "BlockingIOError", "PROCESSES"),
        ("import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=[1]).start()",
         "RuntimeError", "PROCESSES"),
        ("open('big', 'wb').truncate(97 << 20)", "OSError", "FILE"),
        ("open('/tmp/big', 'wb').write(bytes(33 << 20))", "OSError", "TMP"),
    ],
)  # fmt: skip
def test_the_errors_of_other_limits_name_their_setting(
    sandbox: SandboxExecutor, code: str, ename: str, setting: str
) -> None:
    result = run(sandbox, code)
    assert (result.status, result.error and result.error.ename) == ("error", ename)
    assert result.error is not None
    assert f"AGENT_LIMIT_{setting}" in result.error.evalue
    assert f"AGENT_LIMIT_{setting}" in text(result)
    time.sleep(2.2 if setting == "PROCESSES" else 0)
    run(sandbox, "import os\nos.path.exists('/tmp/big') and os.unlink('/tmp/big')")
    assert_state_kept(sandbox, result)


def test_forks_of_the_kernel_end_with_their_cell_and_take_no_requests() -> None:
    with sandbox_with() as sandbox:
        result = run(sandbox, "import os\nfor _ in range(4): os.fork()")
        assert (result.status, result.error) == ("ok", None)
        for number in range(10):
            assert text(run(sandbox, f"{number} + 1", timeout_s=5)) == str(number + 1)
        assert_state_kept(sandbox, result)


def test_forking_without_end_is_stopped_by_one_limit_or_another(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "import os\nwhile True: os.fork()", timeout_s=3)
    assert result.error is not None
    assert "AGENT_" in result.error.evalue
    assert text(run(sandbox, "1 + 1")) == "2"


def test_a_fork_bomb_is_over_when_its_cell_is(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout_s=1)
    assert result.status == "timeout"
    assert text(run(sandbox, "1 + 1")) == "2"
    code = "import os; print(sum(name.isdigit() for name in os.listdir('/proc')))"
    assert int(text(run(sandbox, code))) <= 3  # bubblewrap, the kernel


def test_what_a_stopped_cell_started_ends_and_what_was_there_before_stays(sandbox: SandboxExecutor) -> None:
    run(sandbox, "import subprocess\nkept = subprocess.Popen(['sleep', '600'])")
    result = run(sandbox, "new = subprocess.Popen(['sleep', '600'])\nwhile True: pass", timeout_s=0.5)
    assert (result.status, result.state_lost) == ("timeout", False)
    assert text(run(sandbox, "print(kept.poll(), new.wait(5))")) == "None -9"
    run(sandbox, "kept.kill()")


# ---- output -------------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_cell_that_prints_a_gibibyte_is_stopped_with_head_and_tail_kept(sandbox: SandboxExecutor) -> None:
    before = resident_bytes()
    result = run(sandbox, "line = 'y' * ((1 << 20) - 1)\nfor number in range(1024): print(number, line)")
    assert_stopped(sandbox, result, "OutputLimitExceeded", "1 MiB", "AGENT_LIMIT_TEXT")
    assert_state_kept(sandbox, result)
    assert text(result).startswith("0 yyy")
    assert len(text(result)) < MIB + 10_000
    assert resident_bytes() - before < 30 * MIB


def test_one_huge_print_is_cut_and_says_how_much_is_kept(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "print('y' * (200 << 20))")
    assert result.status == "ok"
    assert "characters cut here; a cell keeps 1 MiB of text (AGENT_LIMIT_TEXT)" in text(result)


def test_a_picture_over_the_limit_is_an_error(sandbox: SandboxExecutor) -> None:
    code = """
        from IPython.display import Image, display
        print("before")
        display(Image(b"\\x89PNG" + bytes(2_500_000), format="png"))
    """
    result = run(sandbox, code)
    assert_stopped(sandbox, result, "OutputLimitExceeded", "2 MiB", "AGENT_LIMIT_PICTURE")
    assert text(result).startswith("before")


def test_a_message_over_the_limit_is_an_error_and_what_follows_is_shown(sandbox: SandboxExecutor) -> None:
    code = "from IPython.display import display\ndisplay({'text/plain': 'x' * 5_000_000}, raw=True)\nprint('after')"
    result = run(sandbox, code)
    assert_stopped(sandbox, result, "OutputLimitExceeded", "4 MiB", "AGENT_LIMIT_MESSAGE")
    assert_state_kept(sandbox, result)
    assert text(result).startswith("after")


def test_a_flood_of_messages_is_stopped(sandbox: SandboxExecutor) -> None:
    code = "from IPython.display import display\nfor number in range(1_000_000): display(number)"
    result = run(sandbox, code)
    assert_stopped(sandbox, result, "OutputLimitExceeded", "2,000", "AGENT_LIMIT_MESSAGES")
    assert result.outputs[0]["output_type"] == "display_data"
    assert result.duration_s < 5


ENDLESS_MESSAGE = """
import os
mine = [int(fd) for fd in os.listdir("/proc/self/fd")]
links = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in mine if os.path.exists(f"/proc/self/fd/{fd}")}
sockets = [fd for fd, link in links.items() if link.startswith("socket")]
frame = FRAME
while True:
    for fd in sockets:
        try:
            os.write(fd, frame)
        except OSError:
            pass
"""


@pytest.mark.parametrize(
    "frame",
    ["b'\\x01\\xff' + bytes(255)", "b'\\x01\\x00' * 4096", "b'\\x03' + (1 << 40).to_bytes(8, 'big') + bytes(60000)",
     "b'\\xff' * 65536", "b'\\x04\\x05\\x04PING' * 999"],
)  # fmt: skip
def test_raw_frames_without_end_neither_fill_nor_hang_the_host(sandbox: SandboxExecutor, frame: str) -> None:
    before, started = resident_bytes(), time.monotonic()
    result = run(sandbox, ENDLESS_MESSAGE.replace("FRAME", frame), timeout_s=2)
    assert time.monotonic() - started < 5
    assert result.status in {"error", "timeout", "died"}
    assert resident_bytes() - before < 40 * MIB
    assert text(run(sandbox, "1 + 1")) == "2"


def test_json_that_grows_when_it_is_parsed_is_dropped(sandbox: SandboxExecutor) -> None:
    before = resident_bytes()
    code = """
        import json
        kernel = get_ipython().kernel
        parent = json.dumps(kernel.get_parent()["header"], default=str).encode()
        header = parent.replace(b"execute_request", b"display_data")
        parts = [header, parent, b"{}", b'{"data": {"application/json": [' + b"[]," * 1_200_000 + b"[]]}}"]
        kernel.iopub_socket.send_multipart([b"<IDS|MSG>", kernel.session.sign(parts), *parts])
        "after"
    """
    assert text(run(sandbox, code)) == "'after'"
    assert resident_bytes() - before < 30 * MIB


def test_variables_that_hold_too_much_memory_are_given_up_and_the_next_cell_runs() -> None:
    executor = SandboxExecutor(limits=SandboxLimits(memory_bytes=300 * MIB))
    code = (
        "import mmap\nheld = [mmap.mmap(-1, 150 << 20) for _ in range(3)]\n"
        "for each in held:\n    for at in range(0, len(each), 4096): each[at] = 1"
    )
    try:
        result = run(executor, code)
        assert result.error is not None
        assert result.error.ename == "MemoryLimitExceeded"
        assert result.state_lost
        assert text(run(executor, "1 + 1")) == "2"
    finally:
        executor.shutdown()
