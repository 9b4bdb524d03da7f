"""A real kernel in a real sandbox: what works in it, what it keeps in, and how it ends."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sandbox_agent_magic.errors import WorkspaceError
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.types import Output
from tests.support.ordinary_user import ordinary_user
from tests.support.sandbox import assert_ends_with_its_host, attempt, run, text

pytestmark = pytest.mark.integration


# ---- what works -------------------------------------------------------------------------------------------------


def test_state_survives_between_cells(sandbox: SandboxExecutor) -> None:
    run(sandbox, "x = 40")
    result = run(sandbox, "x + 2")
    assert (result.status, text(result)) == ("ok", "42")


def test_streams_arrive_while_the_code_runs(sandbox: SandboxExecutor) -> None:
    arrived: list[tuple[float, Output]] = []
    code = "import sys, time\nprint('out', flush=True)\nprint('err', file=sys.stderr, flush=True)\ntime.sleep(1)"
    started = time.monotonic()
    sandbox.execute(code, timeout_s=30, on_output=lambda output: arrived.append((time.monotonic() - started, output)))
    assert [output for _, output in arrived] == [
        {"output_type": "stream", "name": "stdout", "text": "out\n"},
        {"output_type": "stream", "name": "stderr", "text": "err\n"},
    ]
    assert arrived[-1][0] < 0.9


def test_pictures_tables_and_results_arrive_in_nbformats_schema(sandbox: SandboxExecutor) -> None:
    result = run(
        sandbox,
        """
        import matplotlib.pyplot as plt, pandas as pd
        plt.plot([1, 3, 2])
        plt.show()
        pd.DataFrame({"price": [1.5, 2.5]})
        """,
    )
    picture, table = result.outputs
    assert picture["output_type"] == "display_data"
    assert base64.b64decode(str(picture["data"]["image/png"])).startswith(b"\x89PNG")
    assert table["output_type"] == "execute_result"
    assert table["execution_count"] == result.execution_count
    assert "<td>2.5</td>" in str(table["data"]["text/html"])


def test_an_exception_is_data_with_the_output_before_it(sandbox: SandboxExecutor) -> None:
    result = run(sandbox, "print('before')\n1 / 0")
    assert result.status == "error"
    assert [output["output_type"] for output in result.outputs] == ["stream", "error"]
    assert result.error is not None
    assert (result.error.ename, result.error.evalue) == ("ZeroDivisionError", "division by zero")


def test_a_display_that_is_updated_is_kept_once_as_it_was_last(sandbox: SandboxExecutor) -> None:
    code = "h = display('10 %', display_id=True)\nh.update('50 %')\nh.update('done')\nprint('end')"
    shown, end = run(sandbox, code).outputs
    assert shown == {"output_type": "display_data", "data": {"text/plain": "'done'"}, "metadata": {}}
    assert end["output_type"] == "stream"


def test_top_level_await_and_modules_of_the_workspace_work(sandbox: SandboxExecutor) -> None:
    run(sandbox, "open('helper.py', 'w').write('answer = 42')")
    assert text(run(sandbox, "import asyncio, helper\nawait asyncio.sleep(0, helper.answer)")) == "42"


def test_files_go_in_and_out_and_new_ones_are_named(sandbox: SandboxExecutor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    assert sandbox.put_file(tmp_path / "in.csv", "data/in.csv").size == 4
    result = run(sandbox, "open('out.txt', 'w').write(open('data/in.csv').read() * 2)")
    assert [(file.name, file.size) for file in result.new_files] == [("out.txt", 8)]
    sandbox.get_file("out.txt", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "a\n1\na\n1\n"


def test_a_given_workspace_is_used_and_its_files_belong_to_its_owner_afterwards(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("old")
    executor = SandboxExecutor(workspace=tmp_path)
    try:
        assert (
            text(run(executor, "import os\nos.mkdir('d'); open('d/new.txt', 'w').write(open('old.txt').read())")) == "3"
        )
    finally:
        executor.shutdown()
    assert (tmp_path / "d" / "new.txt").read_text() == "old"
    assert {path.stat().st_uid for path in [tmp_path, *tmp_path.rglob("*")]} == {os.getuid()}


def big(path: Path) -> Path:
    """A file of 101 MiB that takes no space, with a word at its end."""
    with path.open("wb") as file:
        file.truncate(101 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    path.chmod(0o644)
    return path


READ_END = "file = open('big.bin', 'rb'); file.seek(-3, 2); print(file.read(), file.name)"


def test_a_later_sandbox_changes_what_an_earlier_one_made_in_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "room" / "mine").mkdir(parents=True)
    (tmp_path / "room" / "mine" / "notes.txt").write_text("a")
    (tmp_path / "elsewhere").write_text("kept")
    os.link(tmp_path / "elsewhere", tmp_path / "room" / "link")
    owner = os.getuid()
    for expected in ("x", "xx"):
        executor = SandboxExecutor(workspace=tmp_path / "room")
        try:
            run(executor, "for name in ('made', 'mine/notes.txt'): open(name, 'a').write('x')")
            assert text(run(executor, "print(open('made').read(), open('mine/notes.txt').read())")) == (
                f"{expected} a{expected}"
            )
            assert (tmp_path / "elsewhere").stat().st_uid == owner
        finally:
            executor.shutdown()
        assert {path.stat().st_uid for path in (tmp_path / "room").rglob("*")} == {owner}


def test_a_big_file_is_shown_read_only_instead_of_copied(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    executor = SandboxExecutor(workspace=tmp_path / "room")
    try:
        assert executor.put_file(big(tmp_path / "big.bin"), "big.bin").size == (101 << 20) + 3
        assert text(run(executor, READ_END)) == "b'end' big.bin"
        assert executor.list_files() == ()  # nothing that would count against a limit on space
        for code in (
            "open('big.bin', 'r+b')",
            "import os; os.truncate('/data/big.bin', 0)",
            "os.unlink('/data/big.bin')",
        ):
            assert attempt(executor, code) in {"OSError", "PermissionError"}
        executor.restart()
        assert text(run(executor, READ_END)) == "b'end' big.bin"
    finally:
        executor.shutdown()
    assert list((tmp_path / "room").iterdir()) == []
    assert (tmp_path / "big.bin").stat().st_size == (101 << 20) + 3


def test_a_big_file_for_a_sandbox_that_runs_is_copied_with_progress_and_no_variable_is_lost(tmp_path: Path) -> None:
    executor = SandboxExecutor()
    seen: list[tuple[int, int]] = []
    try:
        run(executor, "x = 1")
        executor.put_file(
            big(tmp_path / "big.bin"), "big.bin", on_progress=lambda done, total: seen.append((done, total))
        )
        assert text(run(executor, READ_END + "; print(x)")) == "b'end' big.bin\n1"
    finally:
        executor.shutdown()
    assert len(seen) > 50
    assert seen[-1] == ((101 << 20) + 3, (101 << 20) + 3)


def test_a_big_file_that_the_sandboxs_user_could_not_read_is_copied(tmp_path: Path) -> None:
    big(tmp_path / "big.bin").chmod(0o600)
    executor = SandboxExecutor()
    try:
        executor.put_file(tmp_path / "big.bin", "big.bin")
        assert text(run(executor, READ_END)) == "b'end' big.bin"
    finally:
        executor.shutdown()


# ---- what it keeps in -------------------------------------------------------------------------------------------


def test_no_port_of_the_host_and_no_other_machine_can_be_reached(sandbox: SandboxExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert attempt(sandbox, f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)") in {
            "ConnectionRefusedError",
            "OSError",
        }
    assert attempt(sandbox, "import socket; socket.create_connection(('192.0.2.1', 80), 2)") == "OSError"
    assert attempt(sandbox, "import urllib.request; urllib.request.urlopen('http://pypi.org', timeout=2)") == "URLError"


def test_the_hosts_files_processes_and_environment_are_invisible(
    sandbox: SandboxExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o644)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    executor = SandboxExecutor()
    try:
        assert attempt(executor, f"open({str(tmp_path / 'secret')!r})") == "FileNotFoundError"
        assert attempt(executor, "open('/etc/shadow')") == "FileNotFoundError"
        assert attempt(executor, "open('/proc/1/root/etc/hostname')") in {"FileNotFoundError", "PermissionError"}
        assert "hidden" not in text(run(executor, "import os; dict(os.environ)"))
        assert text(run(executor, "sum(name.isdigit() for name in os.listdir('/proc'))")) == "2"
        assert text(run(executor, f"os.path.exists({str(Path.home() / '.ssh')!r}), os.getuid()")) == "(False, 1000)"
    finally:
        executor.shutdown()


@pytest.mark.parametrize("folder", ["/", "/usr/lib", "/etc", "/dev", sys.prefix, sys.base_prefix])
def test_nothing_can_be_written_outside_the_workspace(sandbox: SandboxExecutor, folder: str) -> None:
    code = f"open({folder!r} + '/planted', 'w')"
    assert attempt(sandbox, code) in {"OSError", "PermissionError"}
    assert not os.path.exists(f"{folder}/planted")


@pytest.mark.parametrize(
    "call",
    ["unshare(0x10000000)", "mount(b'none', b'/tmp', b'tmpfs', 0, None)", "ptrace(16, 1, None, None)"],
)
def test_dangerous_system_calls_fail(sandbox: SandboxExecutor, call: str) -> None:
    code = f"import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.{call}, ctypes.get_errno()"
    assert text(run(sandbox, code)) == "(-1, 1)"


def test_a_new_user_namespace_fails_for_child_processes_too(sandbox: SandboxExecutor) -> None:
    code = "import subprocess; subprocess.run(['unshare', '--user', 'true'], capture_output=True).returncode != 0"
    assert text(run(sandbox, code)) == "True"


def test_secrets_in_the_environments_folder_are_masked() -> None:
    secret = Path(sys.prefix, ".condarc")
    secret.write_text("channels: [https://user:token@example.org]\n")
    executor = SandboxExecutor()
    try:
        assert attempt(executor, f"open({str(secret)!r}).read()") == "PermissionError"
        assert attempt(executor, f"open({sys.prefix + '/bin/python'!r}, 'rb').read(4)") == "b'\\x7fELF'"
    finally:
        executor.shutdown()
        secret.unlink()


def test_memory_processes_and_files_are_limited(sandbox: SandboxExecutor) -> None:
    assert attempt(sandbox, "bytearray(8 << 30)") == "MemoryError"
    assert attempt(sandbox, "import mmap; mmap.mmap(-1, 8 << 30)") in {"OSError", "MemoryError"}
    forks = """
        import subprocess
        children = []
        try:
            for _ in range(200):
                children.append(subprocess.Popen(["sleep", "30"]))
        except BlockingIOError as error:
            print("stopped below 64:", len(children) < 64)
        finally:
            for child in children:
                child.kill()
                child.wait()
    """
    assert text(run(sandbox, forks)) == "stopped below 64: True"
    fill = "with open('/tmp/big', 'wb') as f:\n    for _ in range(300): f.write(bytes(1 << 20))"
    assert attempt(sandbox, fill) == "OSError"
    assert text(run(sandbox, "import os; os.unlink('/tmp/big'); 1 + 1")) == "2"


def test_a_planted_link_is_never_followed_on_the_host(sandbox: SandboxExecutor, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    target.chmod(0o666)
    run(sandbox, f"import os\nos.symlink({str(target)!r}, 'link'); os.symlink({str(tmp_path)!r}, 'way')")
    (tmp_path / "new").write_text("new")
    with pytest.raises(WorkspaceError):
        sandbox.get_file("link", tmp_path / "copy")
    with pytest.raises(WorkspaceError):
        sandbox.get_file("way/precious", tmp_path / "copy")
    with pytest.raises(WorkspaceError):
        sandbox.put_file(tmp_path / "new", "way/precious")
    sandbox.put_file(tmp_path / "new", "link")
    assert target.read_text() == "precious"
    assert not {"link", "way"} & {file.name for file in sandbox.list_files() if file.size == len("precious")}
    assert text(run(sandbox, "open('link').read()")) == "'new'"


# ---- the end, and other users -----------------------------------------------------------------------------------


def test_shutdown_leaves_no_process_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(psutil.Process().children(recursive=True))
    executor = SandboxExecutor()
    run(executor, "import subprocess, os\nsubprocess.Popen(['sleep', '600']); os.mkdir('d'); os.chmod('d', 0)")
    started = set(psutil.Process().children(recursive=True)) - before
    assert len(started) >= 4
    executor.shutdown()
    executor.shutdown()
    _gone, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
    assert list(tmp_path.iterdir()) == []


def test_sockets_have_short_paths_even_if_the_temporary_folder_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    executor = SandboxExecutor()
    try:
        assert text(run(executor, "6 * 7")) == "42"
    finally:
        executor.shutdown()


PARENT = """
import sys, time
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
executor = SandboxExecutor()
code = "import subprocess; subprocess.Popen(['sleep', '600']); 6 * 7"
result = executor.execute(code, timeout_s=60, on_output=lambda output: None)
print(result.status, flush=True)
time.sleep(600)
"""


def test_nothing_survives_when_the_host_process_is_killed() -> None:
    assert_ends_with_its_host(PARENT, least=4)


def test_folders_of_a_killed_host_process_are_removed_by_the_next_start_and_no_others(tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}

    def folders(owner: subprocess.Popen[str]) -> list[Path]:
        return [path for place in (tmp_path, Path("/tmp")) for path in place.glob(f"s*-{owner.pid}-*")]

    command = [sys.executable, "-c", PARENT]
    parents = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for parent in parents:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "ok\n"
        dead, alive = parents
        dead.kill()
        dead.wait()
        assert (len(folders(dead)), len(folders(alive))) == (3, 3)  # workspace, packages, sockets
        starter = [sys.executable, "-c", AS_SOMEONE]
        done = subprocess.run(starter, env=environ, capture_output=True, text=True, timeout=90)
        assert done.stdout == "ok 42\n"
        assert (len(folders(dead)), len(folders(alive))) == (0, 3)
    finally:
        for parent in parents:
            parent.kill()
            parent.wait()
            assert parent.stdout is not None
            parent.stdout.close()


ORDINARY_USER = """
import os
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.outputs import text_of
executor = SandboxExecutor()
code = "import os, pandas; os.makedirs('a/b'); open('a/b/c', 'w').write('x'); print(os.getuid())"
result = executor.execute(code, timeout_s=60, on_output=lambda output: None)
print(os.getuid(), result.status, text_of(result.outputs), [file.name for file in result.new_files])
path = executor.workspace.path
executor.shutdown()
print(path.exists())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user; the other tests cover ordinary ones")
@pytest.mark.may_skip
def test_it_works_for_an_ordinary_user_whose_python_lies_in_a_private_home() -> None:
    with ordinary_user() as user:
        done = user.python("-c", ORDINARY_USER)
    assert done.stderr == ""
    assert done.stdout == "54321 ok 1000 ['a/b/c']\nFalse\n"


AS_SOMEONE = """
from sandbox_agent_magic.errors import SandboxAgentError
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
executor = SandboxExecutor()
try:
    result = executor.execute("open('here', 'w').close(); 6 * 7", timeout_s=60, on_output=lambda output: None)
    print(result.status, result.outputs[0]["data"]["text/plain"])
except SandboxAgentError as error:
    print(type(error).__name__, *error.lines(), sep="\\n")
executor.shutdown()
"""


def run_under(*wrapper: str) -> list[str]:
    """Lines that a sandbox's user prints when started by `wrapper`."""
    command = [*wrapper, sys.executable, "-c", AS_SOMEONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_it_works_for_the_root_of_a_rootless_container() -> None:
    assert run_under("unshare", "--user", "--map-root-user") == ["ok 42"]


def test_where_user_namespaces_are_switched_off_it_refuses_and_names_the_switch() -> None:
    # The setting counts within the new namespace only.
    off = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"'
    name, what, why, hint = run_under("unshare", "--user", "--map-root-user", "sh", "-c", off)
    assert name == "SandboxUnavailable"
    assert "nothing was run" in what
    assert "bwrap" in why
    assert "sysctl user.max_user_namespaces" in hint


def test_it_works_for_a_python_that_was_started_by_a_path_with_dots(tmp_path: Path) -> None:
    python = f"{tmp_path}{'/..' * (len(tmp_path.parts) - 1)}{os.path.realpath(sys.prefix)}/bin/python"
    done = subprocess.run([python, "-c", AS_SOMEONE], capture_output=True, text=True, timeout=90)
    assert (done.stdout, done.stderr) == ("ok 42\n", "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have lost a capability")
@pytest.mark.may_skip
def test_root_without_the_right_to_mount_is_refused_with_what_to_do() -> None:
    name, *lines = run_under("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert name == "SandboxUnavailable"
    assert len(lines) == 3


def test_ending_it_at_any_moment_of_its_start_leaves_no_process() -> None:
    def adrift() -> set[int]:
        """Launchers whose parent is gone. Other programs of this machine may have sandboxes, with parents."""
        names = (process for process in psutil.process_iter(["name", "status", "ppid"]))
        found = (process.info | {"pid": process.pid} for process in names if process.info["name"] == "bwrap")
        return {info["pid"] for info in found if info["ppid"] == 1 and info["status"] != psutil.STATUS_ZOMBIE}

    before = adrift()
    for moment in range(40):
        executor = SandboxExecutor()
        executor.start()
        time.sleep(moment / 500)
        executor.shutdown()
    end = time.monotonic() + 5
    while (left := adrift() - before) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == set()
