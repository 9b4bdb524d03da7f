"""The loopback service keeps its promise to the real SDK: what the executor's tests see is what Scalebox would say."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import urllib3
from scalebox.code_interpreter import Sandbox
from scalebox.exceptions import NotFoundException, RateLimitException, SandboxException
from scalebox.generated import api_pb2 as pb
from scalebox.sandbox.commands.command_handle import CommandExitException
from scalebox.sandbox.sandbox_api import SandboxQuery

from tests.support.cloud import running as services
from tests.support.cloud.running import Cloud
from tests.support.cloud.web import envelope

COUNT = "import time\nfor i in range(100): print(i, flush=True); time.sleep(0.05)"


@pytest.fixture(scope="module")
def service() -> Iterator[Cloud]:
    logging.getLogger("scalebox").setLevel(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch, services.start("scalebox", templates=("own",)) as cloud:
        patch.setenv("SSL_CERT_FILE", str(services.CERTIFICATE))
        yield cloud


@pytest.fixture
def cloud(service: Cloud) -> Iterator[Cloud]:
    """The service, without what the test before left."""
    yield service
    service.heal()
    for sandbox in service.sandboxes():
        service.vanish(sandbox["id"])


@pytest.fixture
def create(cloud: Cloud) -> Callable[..., Sandbox]:
    return lambda **options: Sandbox.create(**{**keys(cloud), **options})


def keys(cloud: Cloud) -> dict[str, str]:
    return {"api_key": cloud.key, "domain": f"{cloud.address}/v1"}


def test_code_keeps_its_state_and_its_environment(create: Callable[..., Sandbox]) -> None:
    sandbox = create(envs={"GREETING": "hello"})
    first = sandbox.run_code(
        "import os; print(os.environ['GREETING'], os.environ.get('ONCE')); x = 40", envs={"ONCE": "1"}
    )
    assert first.logs.stdout == ["hello 1\n"]
    second = sandbox.run_code("print(os.environ.get('ONCE')); x + 2")
    assert (second.logs.stdout, second.text, second.execution_count) == (["None\n"], "42", 2)


def test_output_comes_while_the_code_runs(create: Callable[..., Sandbox]) -> None:
    """On the wire: the SDK reads 8,192 bytes at a time, and hands short output on when the code has ended."""
    sandbox = create()
    request = pb.ExecuteRequest(code="import time\nfor i in range(3): print(i, flush=True); time.sleep(0.3)")
    response = sandbox._urllib3_pool.request(
        "POST",
        f"{sandbox.envd_api_url}/sandboxagent.ExecutionService/Execute",
        body=envelope(request.SerializeToString()),
        headers={**sandbox.connection_config.headers, "Content-Type": "application/connect+proto"},
        preload_content=False,
    )
    seen = [(time.monotonic(), piece) for piece in response.read_chunked()]
    assert [pb.ExecuteResponse.FromString(piece[5:]).stdout.content for _, piece in seen[:-1]] == ["0\n", "1\n", "2\n"]
    assert seen[-1][0] - seen[0][0] > 0.8


def test_results_errors_and_both_streams(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    run = sandbox.run_code(
        "import sys\nfrom IPython.display import HTML\ndisplay(HTML('<b>b</b>'))\nprint('e', file=sys.stderr)\n1 / 0"
    )
    assert [(result.html, result.is_main_result) for result in run.results] == [("<b>b</b>", False)]
    assert run.logs.stderr == ["e\n"]
    assert (run.error.name, run.error.value) == ("ZeroDivisionError", "division by zero")
    assert "Traceback" in run.error.traceback
    picture = sandbox.run_code(
        "from IPython.display import Image\nimport base64\n"
        "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='))"
    )
    assert picture.results[0].png.startswith("iVBORw0KGgo")


def test_contexts_are_kernels_of_their_own(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.run_code("x = 1")
    context = sandbox.create_code_context(cwd="/home/user/there")
    run = sandbox.run_code("import os; print(os.getcwd()); x", context=context)
    assert run.logs.stdout[0].endswith("/home/user/there\n")
    assert run.error.name == "NameError"
    sandbox.destroy_context(context)
    assert sandbox.run_code("x", context=context).error.name == "ContextNotFound"


def test_files_go_both_ways_and_are_listed(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    data = os.urandom(1_000_000)
    sandbox.files.write("/home/user/sub/ä b.bin", data)
    assert sandbox.run_code("len(open('sub/ä b.bin', 'rb').read())").text == "1000000"
    inside = sandbox.run_code("import os; print(os.getcwd())").logs.stdout[0].strip()
    assert bytes(sandbox.files.read(f"{inside}/sub/ä b.bin", format="bytes")) == data
    assert [(entry.path, entry.size) for entry in sandbox.files.list("/home/user", depth=2)][1:] == [
        ("/home/user/sub/ä b.bin", 1_000_000)
    ]
    assert not sandbox.files.exists("/home/user/none")
    with pytest.raises(NotFoundException):
        sandbox.files.read("/home/user/none")


def test_commands_say_how_they_ended_and_can_be_killed(create: Callable[..., Sandbox]) -> None:
    sandbox = create(envs={"GREETING": "hello"})
    done = sandbox.commands.run("echo $GREETING; echo no >&2")
    assert (done.stdout, done.stderr, done.exit_code) == ("hello\n", "no\n", 0)
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("exit 3")
    assert caught.value.exit_code == 3
    ended: list[CommandExitException] = []

    def sleep() -> None:
        with pytest.raises(CommandExitException) as caught:
            sandbox.commands.run("sleep 60")
        ended.append(caught.value)

    thread = threading.Thread(target=sleep)
    thread.start()
    end = time.monotonic() + 10
    while not (running := sandbox.commands.list()) and time.monotonic() < end:
        time.sleep(0.05)
    assert sandbox.commands.kill(running[0].pid)
    thread.join(10)
    assert [error.exit_code for error in ended] == [-9]
    assert not sandbox.commands.kill(999_999)


def test_a_signal_interrupts_the_code_and_keeps_the_state(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    pid = sandbox.run_code("import os; x = 5; os.getpid()").text
    threading.Timer(0.7, lambda: sandbox.commands.run(f"kill -INT {pid}")).start()
    assert sandbox.run_code(COUNT).error.name == "KeyboardInterrupt"
    assert sandbox.run_code("x").text == "5"


def test_sandboxes_are_apart_listed_and_killed(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    one, two = create(metadata={"who": "a & b"}), create(template="own")
    one.run_code("x = 1")
    assert two.run_code("x").error.name == "NameError"
    assert [sandbox["template"] for sandbox in cloud.sandboxes()] == ["code-interpreter", "own"]
    mine = Sandbox.list(query=SandboxQuery(metadata={"who": "a & b"}), **keys(cloud))
    assert [sandbox.sandbox_id for sandbox in mine] == [one.sandbox_id]
    one.kill()
    assert [sandbox["id"] for sandbox in cloud.sandboxes()] == [two.sandbox_id]
    assert not one.is_running()


def test_a_kernel_that_ends_is_replaced_without_its_state(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.run_code("x = 1")
    assert sandbox.run_code("import os; os._exit(1)").error.name == "KernelRestarted"
    assert sandbox.run_code("x").error.name == "NameError"


def test_a_life_ends_unless_it_is_prolonged(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    short, long = create(timeout=1), create(timeout=1)
    long.set_timeout(60)
    end = time.monotonic() + 10
    while len(cloud.sandboxes()) > 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert [sandbox["id"] for sandbox in cloud.sandboxes()] == [long.sandbox_id]
    with pytest.raises(SandboxException, match="404"):
        short.set_timeout(60)
    with pytest.raises(ValueError, match="content type"):  # that of the gateway's 502; the SDK looks no further
        short.run_code("1")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_a_fault_is_seen_once(cloud: Cloud, create: Callable[..., Sandbox], status: int) -> None:
    cloud.fail("POST /v1/sandboxes$", status=status)
    with pytest.raises(RateLimitException if status == 429 else SandboxException, match=str(status)):
        create()
    create()


def test_a_bad_key_and_an_unknown_template_are_refused(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    with pytest.raises(SandboxException, match="401: invalid api key"):
        create(api_key="wrong")
    with pytest.raises(SandboxException, match="400: template none not found"):
        create(template="none")


def test_streams_are_cut_and_sandboxes_vanish_under_the_code(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    cloud.fail("Execute", cut_after=2)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        sandbox.run_code(COUNT)
    sandbox = create()
    threading.Timer(1, cloud.vanish, [sandbox.sandbox_id]).start()
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        sandbox.run_code(COUNT)
