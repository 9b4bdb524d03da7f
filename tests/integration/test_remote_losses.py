"""Servers that are killed, gateways that refuse or end kernels, and a small class on one of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sandbox_agent_magic.errors import ExecutorError
from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.executors.remote import RemoteExecutor, Target
from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import ExecutionResult, Executor, Output
from tests.benchmarks.remote import class_of
from tests.support.jupyter_servers import KINDS, Server, jupyter

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ENTERPRISE = KINDS[2]
HEALED = (
    "The remote kernel was lost, and another one took its place: "
    "files were sent again, and the {} of code that had worked ran again."
)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of its own for each test: it is killed."""
    kind, *options = request.param if isinstance(request.param, tuple) else (request.param,)
    with jupyter(kind, *options) as running:
        yield running


@pytest.fixture
def make(server: Server) -> Iterator[Callable[..., HealingExecutor]]:
    made: list[HealingExecutor] = []

    def one(**options: object) -> HealingExecutor:
        made.append(HealingExecutor(RemoteExecutor(Target(server.url, server.token, **options))))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for executor in made:
        executor.shutdown()


def run(executor: Executor, code: str, *, timeout_s: float = 60) -> ExecutionResult:
    return executor.execute(code, timeout_s=timeout_s, on_output=lambda _: None)


def text(result: ExecutionResult) -> str:
    return text_of(result.outputs).strip()


def enterprise(*options: str) -> object:
    """A parameter: Enterprise Gateway with options."""
    return pytest.param(("enterprise", *options), marks=getattr(ENTERPRISE, "marks", ()))


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_server_that_is_killed_and_comes_back_between_two_cells_is_waited_for_and_all_is_healed(
    server: Server, make: Callable[..., HealingExecutor], tmp_path: Path
) -> None:
    executor = make()
    (tmp_path / "n.txt").write_text("40")
    executor.put_file(tmp_path / "n.txt", "n.txt")
    run(executor, "n = int(open('n.txt').read())")
    run(executor, "n += 2")
    server.end(kill=True)
    back = threading.Timer(2, server.start)
    back.start()
    result = run(executor, "print(n, open('n.txt').read())")
    back.join()
    assert (result.status, result.state_lost) == ("ok", False)
    assert text(result) == f"{HEALED.format('2 pieces')}\n42 40"
    assert len(server.kernels()) == 1


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_server_that_is_killed_while_code_runs_ends_the_code_and_the_next_cell_is_healed(
    server: Server, make: Callable[..., HealingExecutor]
) -> None:
    def kill(_: Output) -> None:
        if not restarts:
            server.end(kill=True)
            restarts.append(threading.Timer(1, server.start))
            restarts[0].start()

    restarts: list[threading.Timer] = []
    executor = make()
    run(executor, "n = 42")
    code = "import time\nprint('begun', flush=True)\ntime.sleep(120)"
    result = executor.execute(code, timeout_s=180, on_output=kill)
    restarts[0].join()
    assert (result.status, result.state_lost) == ("died", True)
    assert text(result) == (
        "begun\nKernelDied: The Jupyter server ended the kernel, or was started anew, while the code ran."
    )
    assert text(run(executor, "n")) == f"{HEALED.format('1 piece')}\n42"


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_kernel_that_is_killed_while_code_runs_is_noticed_and_healed(
    server: Server, make: Callable[..., HealingExecutor]
) -> None:
    executor = make()
    pid = int(text(run(executor, "import os\nn = 42\nos.getpid()")))
    result = executor.execute(
        "import time\nprint('begun', flush=True)\ntime.sleep(120)",
        timeout_s=180,
        on_output=lambda _: os.kill(pid, signal.SIGKILL) if psutil.pid_exists(pid) else None,
    )
    assert result.status == "died"
    assert text(result) == "begun\nKernelDied: The remote kernel ended while the code ran."
    assert text(run(executor, "n")) == f"{HEALED.format('1 piece')}\n42"


@pytest.mark.parametrize("server", [enterprise()], indirect=True)
def test_a_user_whom_a_gateway_refuses_reads_its_reason(server: Server, make: Callable[..., HealingExecutor]) -> None:
    executor = make(environment=(("KERNEL_USERNAME", "mallory"),))
    with pytest.raises(ExecutorError) as caught:
        run(executor, "1")
    message, why, hint = caught.value.lines()
    assert message == "The Jupyter server starts no kernel for you."
    assert "User 'mallory' is not authorized to start kernel" in why
    assert "AGENT_REMOTE_ENV=KERNEL_USERNAME" in hint


@pytest.mark.parametrize("server", [enterprise("--EnterpriseGatewayApp.max_kernels_per_user=1")], indirect=True)
def test_the_kernels_that_one_user_may_have_are_counted_by_name(
    server: Server, make: Callable[..., HealingExecutor]
) -> None:
    ada, again, ben = (make(environment=(("KERNEL_USERNAME", name),)) for name in ("ada", "ada", "ben"))
    assert text(run(ada, "1")) == "1"
    with pytest.raises(ExecutorError) as caught:
        run(again, "2")
    assert caught.value.message == "The Jupyter server starts no kernel for you."
    assert "max kernels per user limit has been set to 1" in caught.value.why
    assert text(run(ben, "3")) == "3"


CULLING = ("cull_idle_timeout=2", "cull_interval=1", "cull_connected=True")


@pytest.mark.parametrize(
    "server", [enterprise(*(f"--RemoteMappingKernelManager.{option}" for option in CULLING))], indirect=True
)
def test_a_kernel_that_was_culled_while_nobody_used_it_is_healed(
    server: Server, make: Callable[..., HealingExecutor]
) -> None:
    executor = make()
    run(executor, "n = 42")
    end = time.monotonic() + 60
    while server.kernels():
        assert time.monotonic() < end, "it was not culled"
        time.sleep(0.5)
    assert text(run(executor, "n")) == f"{HEALED.format('1 piece')}\n42"


@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_a_small_class_presses_run_at_once_and_nobody_loses_anything(server: Server) -> None:
    report = class_of(8, server)
    assert [(student.number, student.wrong) for student in report.students] == [(n, "") for n in range(1, 9)]
    assert server.kernels() == []
