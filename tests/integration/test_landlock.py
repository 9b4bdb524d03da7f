"""The weaker sandbox, for machines that forbid namespaces: what works in it, and that nothing of it stays behind.

What it keeps in is for tests/attack to show.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandbox_agent_magic import Session
from sandbox_agent_magic.errors import SandboxUnavailable, SettingsError
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.sandbox import Attempt, check, landlock, refusal
from sandbox_agent_magic.sandbox.limits import MIB, SandboxLimits, tasks_of
from tests.support.ordinary_user import UID, ordinary_user
from tests.support.sandbox import assert_ends_with_its_host, attempt, run, text

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(landlock.abi() < 3, reason="the machine's kernel has no Landlock of version 3"),
    pytest.mark.may_skip,
]


@pytest.fixture(scope="module")
def confined() -> Iterator[SandboxExecutor]:
    executor = SandboxExecutor(tier="landlock")
    yield executor
    executor.shutdown()


def test_it_is_probed_by_six_attempts_to_get_out() -> None:
    report = check(tier="landlock")
    assert report.chosen is not None, report.refusal
    assert len(report.chosen.findings) == 6
    assert "weaker" in report.chosen.probed()
    assert report.chosen.probed().count("held") == 6


def test_state_pictures_tables_and_child_processes_work(confined: SandboxExecutor) -> None:
    run(confined, "x = 40")
    assert text(run(confined, "x + 2")) == "42"
    result = run(
        confined,
        "import matplotlib.pyplot as plt, pandas as pd\nplt.plot([1, 3]); plt.show()\npd.DataFrame({'a': [1]})",
    )
    assert [sorted(output["data"]) for output in result.outputs if output["output_type"] != "stream"] == [
        ["image/png", "text/plain"],
        ["text/html", "text/plain"],
    ]
    assert attempt(
        confined, "import subprocess; print(subprocess.run(['echo', 'hi'], capture_output=True).stdout)"
    ) == ("b'hi\\n'")


def test_copying_unpacking_and_temporary_files_work(confined: SandboxExecutor) -> None:
    code = """
    import shutil, tarfile, tempfile, zipfile
    open('one', 'w').write('1')
    shutil.copy2('one', 'two')
    with tarfile.open('all.tar', 'w') as tar: tar.add('two')
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open('all.tar') as tar: tar.extractall(folder, filter='data')
        print(open(folder + '/two').read())
    """
    assert text(run(confined, code)) == "1"


def test_what_libraries_read_to_count_processors_can_be_read(confined: SandboxExecutor) -> None:
    code = """
    import os
    names = ["/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "/proc/cpuinfo", "/proc/self/status"]
    print([len(open(name).read()) > 0 for name in names if os.path.exists(name)])
    """
    assert text(run(confined, code)) in ("[True, True, True]", "[True, True]")


def test_files_go_in_and_out_and_new_ones_are_named(confined: SandboxExecutor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    confined.put_file(tmp_path / "in.csv", "in.csv")
    result = run(confined, "open('out.txt', 'w').write(open('in.csv').read() * 2)")
    assert [file.name for file in result.new_files] == ["out.txt"]
    confined.get_file("out.txt", tmp_path)
    assert (tmp_path / "out.txt").read_text() == "a\n1\na\n1\n"


def test_a_big_file_is_shown_read_only_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    with open(tmp_path / "big.bin", "wb") as file:
        file.truncate(101 * MIB)
    (tmp_path / "big.bin").chmod(0o644)
    executor = SandboxExecutor(workspace=tmp_path / "room", tier="landlock")
    try:
        executor.put_file(tmp_path / "big.bin", "big.bin")
        assert text(run(executor, "import os; print(os.path.getsize('big.bin'), open('big.bin', 'rb').read(2))")) == (
            f"{101 * MIB} b'\\x00\\x00'"
        )
        assert attempt(executor, "open('big.bin', 'r+b')") == "PermissionError"
    finally:
        executor.shutdown()
    assert list((tmp_path / "room").iterdir()) == []


def test_the_disk_limit_counts_the_temporary_folder_too() -> None:
    executor = SandboxExecutor(tier="landlock", limits=SandboxLimits(disk_bytes=20 * MIB))
    try:
        code = "import tempfile, time\nfile = tempfile.TemporaryFile()\nwhile True: file.write(bytes(1 << 20))"
        result = run(executor, code)
        assert result.error is not None
        assert result.error.ename == "DiskLimitExceeded"
        assert "AGENT_LIMIT_DISK" in result.error.evalue
        run(executor, "file = None")
        assert text(run(executor, "1 + 1")) == "2"
    finally:
        executor.shutdown()


def test_code_that_loops_is_interrupted_and_keeps_its_variables(confined: SandboxExecutor) -> None:
    run(confined, "y = 5")
    result = run(confined, "while True: pass", timeout_s=0.5)
    assert (result.status, result.state_lost) == ("timeout", False)
    assert text(run(confined, "y")) == "5"


# ---- the end ----------------------------------------------------------------------------------------------------

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
time.sleep(0.3)
6 * 7
"""
ENDED = """
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
code = "import threading, time; held = b'x' * (700 << 20)\\n"  # both take a moment to end
code += "for _ in range(30): threading.Thread(target=time.sleep, args=[600], daemon=True).start()"
for _ in range(3):
    executor = SandboxExecutor(tier="landlock")
    print(executor.execute(code, timeout_s=60, on_output=lambda output: None).status)
    executor.shutdown()
"""
PARENT = f"""
import sys, time
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
executor = SandboxExecutor(tier="landlock")
result = executor.execute({DAEMON!r}, timeout_s=60, on_output=lambda output: None)
print(result.status, flush=True)
time.sleep(600)
"""


def test_a_daemon_of_the_code_ends_with_the_sandbox() -> None:
    before = set(psutil.Process().children(recursive=True))
    executor = SandboxExecutor(tier="landlock")
    run(executor, DAEMON)
    inside = set(psutil.Process().children(recursive=True)) - before
    folder = executor.workspace.path
    assert len(inside) >= 3  # supervisor, kernel, daemon
    executor.shutdown()
    assert not psutil.wait_procs(inside, timeout=5)[1]
    assert not folder.exists()


def test_where_memory_is_short_code_ends_before_its_supervisor() -> None:
    before = set(psutil.Process().children(recursive=True))
    executor = SandboxExecutor(tier="landlock")
    try:
        run(executor, DAEMON)
        inside = set(psutil.Process().children(recursive=True)) - before
        scores = sorted(int(Path(f"/proc/{process.pid}/oom_score_adj").read_text()) for process in inside)
        assert scores[0] < scores[1] == scores[-1] == 1000
    finally:
        executor.shutdown()


def test_whoever_is_the_machines_first_process_has_nothing_to_wait_for() -> None:
    code = f"""
import os, subprocess, sys, time
ours = subprocess.Popen([sys.executable, "-c", {ENDED!r}], stdout=subprocess.PIPE, text=True)
print(*ours.communicate()[0].split(), sum(name.isdigit() for name in os.listdir("/proc")))
"""
    pid_1 = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]
    done = subprocess.run([*pid_1, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ok ok ok 1\n", "")


def test_nothing_survives_when_the_host_process_is_killed() -> None:
    assert_ends_with_its_host(PARENT, least=3)


def test_code_that_forks_without_end_is_ended_with_the_sandbox() -> None:
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.001)"
    executor = SandboxExecutor(tier="landlock")
    before = set(psutil.Process().children(recursive=True))
    try:
        run(executor, bomb, timeout_s=1)
        assert text(run(executor, "1 + 1")) == "2"
    finally:
        executor.shutdown()
    left = set(psutil.Process().children(recursive=True)) - before
    assert not psutil.wait_procs(left, timeout=5)[1]


def test_ending_it_at_any_moment_of_its_start_leaves_no_process() -> None:
    def children() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))

    before = children()
    seen: set[psutil.Process] = set()
    for moment in range(40):
        executor = SandboxExecutor(tier="landlock")
        executor.start()
        time.sleep(moment / 500)
        seen |= children() - before
        executor.shutdown()
    assert not psutil.wait_procs(seen, timeout=5)[1]


# ---- who may use it, and where ----------------------------------------------------------------------------------

AS_SOMEONE = """
from sandbox_agent_magic.errors import SandboxAgentError
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
executor = SandboxExecutor(tier="landlock")
try:
    code = "import pandas; open('here', 'w').close(); 6 * 7"
    result = executor.execute(code, timeout_s=60, on_output=lambda output: None)
    print(result.status, result.outputs[0]["data"]["text/plain"])
except SandboxAgentError as error:
    print(type(error).__name__, *error.lines(), sep="\\n")
executor.shutdown()
"""


def run_under(*wrapper: str, code: str = AS_SOMEONE) -> list[str]:
    done = subprocess.run([*wrapper, sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_it_works_where_user_namespaces_are_switched_off() -> None:
    off = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"'
    assert run_under("unshare", "--user", "--map-root-user", "sh", "-c", off) == ["ok 42"]


def test_root_that_has_no_id_to_spare_has_no_capability_inside() -> None:
    read = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')])"
    code = AS_SOMEONE.replace("import pandas; open('here', 'w').close(); 6 * 7", read.replace('"', "'"))
    code = code.replace('["data"]["text/plain"]', '["text"]')
    lines = run_under("unshare", "--user", "--map-root-user", code=code)
    assert lines == [f"ok {['0' * 16] * 5}", ""]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_it_works_for_an_ordinary_user_whose_python_lies_in_a_private_home() -> None:
    with ordinary_user() as user:
        done = user.python("-c", AS_SOMEONE)
    assert (done.stdout, done.stderr) == ("ok 42\n", "")


COUNT_CHILDREN = """
import os, time
started = 0
try:
    while started < 200:
        if os.fork() == 0: time.sleep(20); os._exit(0)
        started += 1
except OSError: pass
started"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("wrapper", [(), ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")])
def test_it_works_beside_hundreds_of_the_users_processes_seen_or_in_other_containers(wrapper: tuple[str, ...]) -> None:
    others = subprocess.Popen(
        [
            "setpriv",
            f"--reuid={UID}",
            "--clear-groups",
            "sh",
            "-c",
            "for i in $(seq 400); do sleep 170 & done; echo; wait",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert others.stdout is not None
    try:
        assert others.stdout.readline()
        with ordinary_user() as user:
            code = AS_SOMEONE.replace("\"import pandas; open('here', 'w').close(); 6 * 7\"", repr(COUNT_CHILDREN))
            done = user.python("-c", code, wrapper=wrapper)
    finally:
        os.killpg(others.pid, signal.SIGKILL)
        others.wait()
        others.stdout.close()
        deadline = time.monotonic() + 20
        while tasks_of(UID) and time.monotonic() < deadline:
            time.sleep(0.05)
    status, _, started = done.stdout.partition(" ")
    assert (status, done.stderr) == ("ok", "")
    assert 20 < int(started) <= 64


@pytest.mark.skipif(os.getuid() != 0, reason="only root has ids to spare")
def test_as_root_each_sandbox_is_a_user_of_its_own() -> None:
    one, other = SandboxExecutor(tier="landlock"), SandboxExecutor(tier="landlock")
    try:
        users = {text(run(executor, "import os; os.getuid()")) for executor in (one, other)}
    finally:
        one.shutdown()
        other.shutdown()
    assert len(users) == 2
    assert "0" not in users


def test_an_ordinary_user_is_told_which_kernel_keeps_signals_in() -> None:
    found, notes = landlock.find(4, own_user=False)
    assert (found, len(notes)) == ([], 1)
    assert "version 4; unless you are root, 6 is needed (Linux 6.12)" in notes[0]
    assert [launcher.version for launcher in landlock.find(4, own_user=True)[0]] == [4]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have lost a capability")
def test_root_who_may_not_mount_gets_it_unless_python_lies_in_a_private_home() -> None:
    lines = run_under("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    private = any(not parent.stat().st_mode & 0o001 for parent in Path(sys.prefix).parents)
    if private or any(not parent.stat().st_mode & 0o001 for parent in Path(sys.base_prefix).parents):
        assert lines[0] == "SandboxUnavailable"
        assert len(lines) == 4
    else:
        assert lines == ["ok 42"]


def test_a_downloaded_env_file_cannot_choose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AGENT_SANDBOX=landlock\n")
    monkeypatch.chdir(tmp_path)
    with Session() as session, pytest.raises(SettingsError) as caught:
        session.execute("1 + 1", on_output=lambda _: None)
    what, why, hint = caught.value.lines()
    assert what == "AGENT_SANDBOX=landlock is not taken from a .env."
    assert "It is set in .env" in why
    assert "in the environment" in hint


def test_an_unknown_kind_of_sandbox_is_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SANDBOX", "landlok")
    with pytest.raises(SettingsError, match="Allowed: bubblewrap, landlock"):
        Session()


def test_what_ran_in_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SANDBOX", "landlock")
    script = tmp_path / "script.json"
    script.write_text('[{"code": "6 * 7"}, {"text": "It is 42."}]')
    with Session(provider="scripted", model=str(script)) as session:
        result = session.ask("What is six times seven?")
    assert result.executor == "sandbox (landlock, weaker)"
    assert text(result.steps[0].result) == "42"


def test_the_refusal_does_not_advise_what_has_just_failed() -> None:
    error = refusal([Attempt("Landlock 7", failure="ended with status 1")], tier="landlock")
    assert isinstance(error, SandboxUnavailable)
    assert "AGENT_SANDBOX=landlock" not in error.hint
    assert "Leave AGENT_SANDBOX unset" in error.hint
