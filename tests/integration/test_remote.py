"""Code in kernels of a real Jupyter server and a real gateway: errors, losses, and what a reader sees of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic import settings
from sandbox_agent_magic.errors import ExecutorError, KernelDied, SettingsError
from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.executors.remote import RemoteExecutor, Target, target_of
from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import ExecutionResult, Executor
from tests.support.jupyter_servers import KINDS, Server, jupyter

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TOKEN = "token-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with jupyter("server") as running:
        yield running


@pytest.fixture(scope="module")
def gateway() -> Iterator[Server]:
    with jupyter("gateway") as running:
        yield running


@pytest.fixture(scope="module")
def enterprise() -> Iterator[Server]:
    with jupyter("enterprise") as running:
        yield running


@pytest.fixture
def make() -> Iterator[Callable[..., RemoteExecutor]]:
    made: list[RemoteExecutor] = []

    def one(server: Server, **options: object) -> RemoteExecutor:
        made.append(RemoteExecutor(Target(server.url, server.token, **options)))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for executor in made:
        executor.shutdown()


def run(executor: Executor, code: str, *, timeout_s: float = 60) -> ExecutionResult:
    return executor.execute(code, timeout_s=timeout_s, on_output=lambda _: None)


def text(result: ExecutionResult) -> str:
    return text_of(result.outputs).strip()


# ---- what is wrong with the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_token_is_said_with_its_source_and_never_shown(kind: str, request: pytest.FixtureRequest) -> None:
    running: Server = request.getfixturevalue(kind)
    executor = RemoteExecutor(Target(running.url, TOKEN, token_source="environment"))
    with pytest.raises(ExecutorError) as caught:
        run(executor, "1")
    message, why, hint = caught.value.lines()
    assert message in ("The Jupyter server refuses this.", "The Jupyter server does not accept the token.")
    assert "answered 40" in why
    assert why.endswith("AGENT_REMOTE_TOKEN is the one from environment.")
    assert "AGENT_REMOTE_TOKEN" in hint
    assert TOKEN not in f"{caught.value}{executor._kernel.server.target!r}"


def test_a_server_that_is_down_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ExecutorError) as caught:
        run(RemoteExecutor(Target(f"http://127.0.0.1:{port}", TOKEN)), "1")
    assert caught.value.lines() == [
        "The Jupyter server cannot be reached.",
        f"http://127.0.0.1:{port}: Connection refused.",
        "Look whether it runs, and whether AGENT_REMOTE_URL is right.",
    ]


def test_an_address_that_leads_elsewhere_is_told_from_a_missing_kernel(server: Server) -> None:
    with pytest.raises(ExecutorError, match="no Jupyter server at this address"):
        run(RemoteExecutor(Target(f"{server.url}/elsewhere", server.token)), "1")
    with pytest.raises(ExecutorError, match="There is no kernel 12345"):
        run(RemoteExecutor(Target(server.url, server.token, kernel_id="12345")), "1")


def test_a_kernel_that_the_server_does_not_have_is_said_with_those_that_it_has(server: Server) -> None:
    with pytest.raises(ExecutorError) as caught:
        run(RemoteExecutor(Target(server.url, server.token, kernel_name="cobol")), "1")
    assert caught.value.message == "The Jupyter server has no kernel 'cobol'."
    assert "python3" in caught.value.why


# ---- kernels --------------------------------------------------------------------------------------------------------


def test_a_running_kernel_is_used_by_its_id_and_left_running(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    kernel_id = json.loads(server.ask("POST", "api/kernels", b"{}"))["id"]
    first = make(server, kernel_id=kernel_id)
    run(first, "kept = 42")
    first.shutdown()
    assert text(run(make(server, kernel_id=kernel_id), "kept")) == "42"
    assert [kernel["id"] for kernel in server.kernels()] == [kernel_id]
    server.ask("DELETE", f"api/kernels/{kernel_id}")


@pytest.mark.parametrize("kind", KINDS)
def test_variables_of_the_environment_reach_the_kernel(
    kind: str, request: pytest.FixtureRequest, make: Callable[..., RemoteExecutor]
) -> None:
    executor = make(request.getfixturevalue(kind), environment=(("COURSE", "stats 1"), ("KERNEL_USERNAME", "ada")))
    assert text(run(executor, "import os\nos.environ['COURSE'], os.environ['KERNEL_USERNAME']")) == "('stats 1', 'ada')"


def test_a_cut_connection_is_taken_up_again_while_the_code_runs(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    executor = make(server)
    cut: list[bool] = []

    def cut_once(_: object) -> None:
        if not cut:
            cut.append(True)
            executor._kernel.line._connected()._socket.sock.shutdown(socket.SHUT_RDWR)

    code = "import time\nprint('one', flush=True)\ntime.sleep(2)\nprint('two')\n6 * 7"
    result = executor.execute(code, timeout_s=60, on_output=cut_once)
    assert (result.status, text(result)) == ("ok", "one\ntwo\n42")


def test_a_connection_that_was_idle_and_closed_is_made_anew_with_its_variables(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    executor = make(server)
    run(executor, "kept = 42")
    executor._kernel.line._connected()._socket.sock.shutdown(socket.SHUT_RDWR)
    result = run(executor, "kept")
    assert (text(result), result.state_lost) == ("42", False)


def test_a_kernel_that_was_replaced_in_silence_is_noticed_and_said_once(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    executor = make(server)
    run(executor, "kept = 42")
    server.ask("POST", f"api/kernels/{executor._kernel.kernel_id}/restart", b"{}")
    result = run(executor, "1")
    assert (result.status, result.state_lost) == ("ok", True)
    assert not run(executor, "1").state_lost


# ---- healing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_kernel_is_healed_with_its_files_and_variables_and_that_is_said_once(
    kind: str, request: pytest.FixtureRequest, make: Callable[..., RemoteExecutor], tmp_path: Path
) -> None:
    running: Server = request.getfixturevalue(kind)
    inner = make(running)
    executor = HealingExecutor(inner)
    (tmp_path / "n.txt").write_text("40")
    executor.put_file(tmp_path / "n.txt", "n.txt")
    run(executor, "n = int(open('n.txt').read())")
    run(executor, "n += 2")
    running.ask("DELETE", f"api/kernels/{inner._kernel.kernel_id}")
    result = run(executor, "n")
    assert (result.status, result.state_lost) == ("ok", False)
    said = "The remote kernel was lost, and another one took its place: "
    said += "files were sent again, and the 2 pieces of code that had worked ran again."
    assert text(result) == f"{said}\n42"
    assert text(run(executor, "n")) == "42"
    executor.shutdown()


def test_code_that_ends_its_kernel_does_not_take_the_earlier_work_with_it(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    executor = HealingExecutor(make(server))
    run(executor, "n = 42")
    assert run(executor, "import os; os._exit(1)").status == "died"
    assert text(run(executor, "n")).endswith("42")
    executor.shutdown()


def test_a_second_loss_in_one_run_ends_it_and_a_new_run_may_go_on(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    inner = make(server)
    executor = HealingExecutor(inner)
    executor.start()
    run(executor, "n = 42")
    server.ask("DELETE", f"api/kernels/{inner._kernel.kernel_id}")
    assert text(run(executor, "n")).endswith("42")
    server.ask("DELETE", f"api/kernels/{inner._kernel.kernel_id}")
    with pytest.raises(KernelDied, match="lost a second time in this run"):
        run(executor, "n")
    executor.start()
    assert text(run(executor, "n")).endswith("42")
    executor.shutdown()


# ---- settings -------------------------------------------------------------------------------------------------------

URL = "http://127.0.0.1:8888"


@pytest.mark.parametrize(
    ("environ", "env_file", "said"),
    [
        ({}, "", "AGENT_REMOTE_URL is not set"),
        ({"AGENT_REMOTE_TOKEN": TOKEN}, f"AGENT_REMOTE_URL={URL}", "must not send your key elsewhere"),
        ({"AGENT_REMOTE_URL": f"{URL}/?token={TOKEN}"}, "", "a token belongs into AGENT_REMOTE_TOKEN"),
        ({"AGENT_REMOTE_URL": f"http://me:{TOKEN}@127.0.0.1"}, "", "it has a password in it"),
        ({"AGENT_REMOTE_URL": URL}, "AGENT_EXECUTOR=remote", "must not run code there"),
        ({"AGENT_REMOTE_URL": URL, "AGENT_REMOTE_ENV": "1=2"}, "", "no NAME=VALUE"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    environ: dict[str, str], env_file: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(env_file)
    with pytest.raises(SettingsError) as caught:
        target_of(settings.load(environ=environ, folder=tmp_path))
    assert said in str(caught.value)
    assert len(caught.value.lines()) == 3
    assert TOKEN not in str(caught.value)


# ---- what a reader sees ---------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_REMOTE_URL", server.url)
    monkeypatch.setenv("AGENT_REMOTE_TOKEN", server.token)
    replies = [
        {"code": "total = sum(range(1, 101))\nprint(total)\nopen('made.txt', 'w').write('x')"},
        {"text": "5050."},
    ]
    (tmp_path / "sum.json").write_text(json.dumps(replies))
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "sandbox_agent_magic")
    yield made
    made.run_line_magic("unload_ext", "sandbox_agent_magic")
    InteractiveShell.clear_instance()


def test_an_agent_works_on_the_server_and_its_cells_run_there_again(
    shell: InteractiveShell, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(server.kernels())
    shell.run_cell_magic("agent", "-p scripted -m sum.json -e remote -o result", "Sum 1 to 100.")
    assert shell.user_ns["result"].executor == "remote (isolated as its server does it)"
    assert "Files: made.txt (1 bytes); %agent get NAME copies one here" in capsys.readouterr().out
    shell.run_cell_magic("sandbox", "-e remote -o doubled", "doubled = total * 2\nprint(doubled)")
    assert capsys.readouterr().out == "10100\n"
    assert shell.user_ns["doubled"] == 10100
    shell.user_ns["mine"] = [1, 2]
    shell.run_line_magic("agent", "send mine")
    shell.run_line_magic("agent", "get made.txt")
    assert Path("made.txt").read_text() == "x"
    shell.run_line_magic("agent", "restart")
    with pytest.raises(Exception, match="'total' is not defined"):
        shell.run_cell_magic("sandbox", "-e remote", "total")
    shell.run_line_magic("agent", "restart --replay")
    capsys.readouterr()
    shell.run_cell_magic("sandbox", "-e remote", "print(total, mine)")
    assert capsys.readouterr().out == "5050 [1, 2]\n"
    shell.run_line_magic("agent", "sandboxes")
    started = server.kernels()[-1]["id"]
    assert re.search(
        rf"remote +{started} +{server.url} +(\d min )?\d+ s +ends with this kernel", capsys.readouterr().out
    )
    shell.run_line_magic("agent", "reset")
    assert len(server.kernels()) == before


def test_ctrl_c_stops_the_code_over_there_and_keeps_its_variables(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    executor = make(server)
    run(executor, "kept = 42")

    stopped: list[bool] = []

    def stop(_: object) -> None:
        if not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    result = executor.execute("import time\nprint('go', flush=True)\ntime.sleep(600)", timeout_s=60, on_output=stop)
    assert result.status == "interrupted"
    assert time.monotonic() - began < 30
    assert text(run(executor, "kept")) == "42"
