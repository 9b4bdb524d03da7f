"""The loopback service keeps its promise to the real SDK: what the executor's tests see is what E2B would say."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import e2b
import pytest
from e2b_code_interpreter import Sandbox

from tests.support.cloud import running as services
from tests.support.cloud.running import Cloud

pytestmark = pytest.mark.integration

COUNT = "import time\nfor i in range(100): print(i, flush=True); time.sleep(0.05)"
PICTURE = (
    "from IPython.display import Image\nimport base64\n"
    "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='))"
)


@pytest.fixture(scope="module")
def service() -> Iterator[Cloud]:
    with services.start("e2b", templates=("own",)) as cloud:
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


def keys(cloud: Cloud) -> dict[str, object]:
    return {"api_key": cloud.key, "api_url": cloud.url, "sandbox_url": cloud.url, "retries": 0}


def test_code_keeps_its_state_and_its_environment(create: Callable[..., Sandbox]) -> None:
    sandbox = create(envs={"GREETING": "hello"})
    code = "import os; print(os.environ['GREETING'], os.environ.get('ONCE')); x = 40"
    assert sandbox.run_code(code, envs={"ONCE": "1"}).logs.stdout == ["hello 1\n"]
    second = sandbox.run_code("print(os.environ.get('ONCE')); x + 2")
    assert (second.logs.stdout, second.text, second.execution_count) == (["None\n"], "42", 2)


def test_output_comes_while_the_code_runs(create: Callable[..., Sandbox]) -> None:
    seen: list[float] = []
    create().run_code(
        "import time\nfor i in range(3): print(i, flush=True); time.sleep(0.3)",
        on_stdout=lambda message: seen.append(time.monotonic()),
    )
    assert seen[-1] - seen[0] > 0.4


def test_results_errors_and_both_streams(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    run = sandbox.run_code(
        "import sys\nfrom IPython.display import HTML\ndisplay(HTML('<b>b</b>'))\nprint('e', file=sys.stderr)\n1 / 0"
    )
    assert [(result.html, result.is_main_result) for result in run.results] == [("<b>b</b>", False)]
    assert run.logs.stderr == ["e\n"]
    assert run.error is not None
    assert (run.error.name, run.error.value) == ("ZeroDivisionError", "division by zero")
    assert "Traceback" in run.error.traceback
    assert str(sandbox.run_code(PICTURE).results[0].png).startswith("iVBORw0KGgo")


def test_contexts_are_kernels_of_their_own(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.run_code("x = 1")
    context = sandbox.create_code_context(cwd="/home/user/there")
    run = sandbox.run_code("import os; print(os.getcwd()); x", context=context)
    assert run.logs.stdout[0].endswith("/home/user/there\n")
    assert run.error is not None
    assert run.error.name == "NameError"
    sandbox.run_code("y = 1", context=context)
    sandbox.restart_code_context(context)
    assert sandbox.run_code("'y' in globals()", context=context).text == "False"
    assert {each.id for each in sandbox.list_code_contexts()} == {"default", context.id}
    sandbox.remove_code_context(context)
    with pytest.raises(e2b.NotFoundException, match="not found"):
        sandbox.run_code("x", context=context)


def test_files_go_both_ways_and_are_listed(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    data = os.urandom(1_000_000)
    sandbox.files.write("/home/user/sub/ä #b.bin", data)
    assert sandbox.run_code("len(open('sub/ä #b.bin', 'rb').read())").text == "1000000"
    inside = sandbox.run_code("import os; print(os.getcwd())").logs.stdout[0].strip()
    assert bytes(sandbox.files.read(f"{inside}/sub/ä #b.bin", format="bytes")) == data
    assert b"".join(sandbox.files.read("sub/ä #b.bin", format="stream")) == data
    entries = sandbox.files.list("/home/user", depth=2)
    assert [(entry.path, entry.size) for entry in entries][1:] == [("/home/user/sub/ä #b.bin", 1_000_000)]
    assert not sandbox.files.exists("/home/user/none")
    with pytest.raises(e2b.FileNotFoundException):
        sandbox.files.read("/home/user/none")


def test_commands_say_how_they_ended_and_can_be_killed(create: Callable[..., Sandbox]) -> None:
    sandbox = create(envs={"GREETING": "hello"})
    done = sandbox.commands.run("echo $GREETING; echo no >&2")
    assert (done.stdout, done.stderr, done.exit_code) == ("hello\n", "no\n", 0)
    with pytest.raises(e2b.CommandExitException) as caught:
        sandbox.commands.run("exit 3")
    assert caught.value.exit_code == 3
    with pytest.raises(e2b.TimeoutException):
        sandbox.commands.run("sleep 60", timeout=1)
    handle = sandbox.commands.run("sleep 60", background=True)
    assert handle.pid in [process.pid for process in sandbox.commands.list()]
    assert handle.kill()
    assert not sandbox.commands.kill(999_999)


def test_a_signal_interrupts_the_code_and_keeps_the_state(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    pid = sandbox.run_code("import os; x = 5; os.getpid()").text
    threading.Timer(0.7, lambda: sandbox.commands.run(f"kill -INT {pid}", user="root")).start()
    error = sandbox.run_code(COUNT).error
    assert error is not None
    assert error.name == "KeyboardInterrupt"
    assert sandbox.run_code("x").text == "5"


def test_code_whose_client_left_runs_on(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.run_code("1")
    with pytest.raises(e2b.TimeoutException):
        sandbox.run_code("import time; time.sleep(3); x = 5", timeout=1)
    began = time.monotonic()
    assert sandbox.run_code("x").text == "5"
    assert time.monotonic() - began > 0.3


def test_sandboxes_are_apart_listed_reached_and_killed(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    one, two = create(metadata={"who": "a & b"}), create(template="own")
    one.run_code("x = 1")
    error = two.run_code("x").error
    assert error is not None
    assert error.name == "NameError"
    assert [sandbox["template"] for sandbox in cloud.sandboxes()] == ["code-interpreter-v1", "own"]
    mine = Sandbox.list(query=e2b.SandboxQuery(metadata={"who": "a & b"}), **keys(cloud)).next_items()
    assert [sandbox.sandbox_id for sandbox in mine] == [one.sandbox_id]
    again = Sandbox.connect(one.sandbox_id, **keys(cloud))
    assert again.run_code("x").text == "1"
    assert one.kill()
    assert not again.kill()
    assert [sandbox["id"] for sandbox in cloud.sandboxes()] == [two.sandbox_id]
    assert not one.is_running()


def test_lists_have_pages(create: Callable[..., Sandbox], cloud: Cloud) -> None:
    made = [create().sandbox_id for _ in range(4)]
    pages = Sandbox.list(**keys(cloud))
    assert [[sandbox.sandbox_id for sandbox in pages.next_items()] for _ in range(2)] == [made[:3], made[3:]]
    assert not pages.has_next


def test_a_kernel_that_ends_is_replaced_without_its_state(create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    sandbox.run_code("x = 1")
    ended, after = sandbox.run_code("import os; os._exit(1)").error, sandbox.run_code("x").error
    assert (ended and ended.name, after and after.name) == ("ContextRestarting", "NameError")


def test_a_life_ends_unless_it_is_prolonged(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    short, long = create(timeout=1), create(timeout=1)
    long.set_timeout(60)
    end = time.monotonic() + 10
    while len(cloud.sandboxes()) > 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert [sandbox["id"] for sandbox in cloud.sandboxes()] == [long.sandbox_id]
    with pytest.raises(e2b.SandboxNotFoundException):
        short.set_timeout(60)
    with pytest.raises(e2b.SandboxNotFoundException):
        Sandbox.connect(short.sandbox_id, **keys(cloud))
    with pytest.raises(e2b.TimeoutException, match="The sandbox was not found"):
        short.run_code("1")
    with pytest.raises(e2b.SandboxNotRunningException):
        short.files.list("/home/user")
    with pytest.raises(e2b.SandboxNotRunningException):
        short.commands.run("true")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, e2b.AuthenticationException),
        (403, e2b.SandboxException),
        (404, e2b.SandboxException),
        (429, e2b.RateLimitException),
        (500, e2b.SandboxException),
        (502, e2b.SandboxException),
        (503, e2b.ServiceBusyException),
    ],
)
def test_a_fault_is_seen_once(cloud: Cloud, create: Callable[..., Sandbox], status: int, kind: type[Exception]) -> None:
    cloud.fail("POST /v2/sandboxes$", status=status)
    with pytest.raises(kind, match=str(status)):
        create()
    create()


def test_the_sdk_waits_as_long_as_it_is_told_to(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    cloud.fail("POST /v2/sandboxes$", status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    create(retries=1)
    assert time.monotonic() - began > 0.9


def test_a_bad_key_and_an_unknown_template_are_refused(create: Callable[..., Sandbox]) -> None:
    with pytest.raises(e2b.AuthenticationException, match="invalid api key"):
        create(api_key="wrong")
    with pytest.raises(e2b.SandboxException, match="404: template 'none' not found"):
        create(template="none")


def test_streams_are_cut_and_sandboxes_vanish_under_the_code(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    sandbox = create()
    cloud.fail("POST /execute", cut_after=2)
    with pytest.raises(Exception, match=r"peer|closed|end|body|incomplete") as caught:
        sandbox.run_code(COUNT)
    assert type(caught.value).__module__.startswith("httpx")
    threading.Timer(1, cloud.vanish, [sandbox.sandbox_id]).start()
    seen: list[str] = []
    with pytest.raises(e2b.TimeoutException, match="killed"):
        create_and_count(sandbox, seen)
    assert "0\n" in "".join(seen)


def create_and_count(sandbox: Sandbox, seen: list[str]) -> None:
    sandbox.run_code(COUNT, on_stdout=lambda message: seen.append(message.line), context=sandbox.create_code_context())


def test_a_stream_can_say_whatever_it_likes(cloud: Cloud, create: Callable[..., Sandbox]) -> None:
    cloud.fail("POST /execute", lines=['{"type": "result", "is_main_result": true, "text": "7", "html": "<script>"}'])
    assert [(result.text, result.html) for result in create().run_code("1").results] == [("7", "<script>")]
