"""What is E2B's own: an SDK that Scalebox's breaks, its environment variables, and what its SDK takes on trust."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import e2b
import psutil
import pytest

from sandbox_agent_magic.executors.cloud import CloudExecutor, CloudFailure, CloudTarget
from sandbox_agent_magic.executors.cloud.e2b import E2BEngine
from sandbox_agent_magic.executors.cloud.e2b_failures import failure_of
from sandbox_agent_magic.types import ExecutionResult, Output
from tests.support.cloud import running as services
from tests.support.cloud.running import Cloud

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LOAD = """
from sandbox_agent_magic.errors import MissingDependencyError
from sandbox_agent_magic.executors import create
from sandbox_agent_magic import settings
try:
    create("e2b", settings=settings.load({"e2b_api_key": "k"}))
except MissingDependencyError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Cloud]:
    with services.start("e2b") as cloud:
        yield cloud


@pytest.fixture
def cloud(service: Cloud) -> Iterator[Cloud]:
    """The service, without what the test before left."""
    yield service
    service.heal()
    for sandbox in service.sandboxes():
        service.vanish(sandbox["id"])


@pytest.fixture
def executor(cloud: Cloud) -> Iterator[CloudExecutor]:
    made = CloudExecutor(E2BEngine(target(cloud)), target(cloud))
    yield made
    made.shutdown()


def target(cloud: Cloud) -> CloudTarget:
    return CloudTarget(cloud.key, api_url=cloud.url, sandbox_url=cloud.url, key_name="E2B_API_KEY")


def run(executor: CloudExecutor, code: str) -> ExecutionResult:
    return executor.execute(code, timeout_s=60, on_output=lambda _: None)


def shown(result: ExecutionResult) -> list[object]:
    return [output["data"]["text/plain"] for output in result.outputs if "data" in output]


# ---- the SDK itself -------------------------------------------------------------------------------------------------


def loaded(folder: Path) -> str:
    """What is said where `folder`'s modules stand before all others."""
    code = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{LOAD}"
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_an_sdk_that_the_other_one_has_broken_is_said(tmp_path: Path) -> None:
    """As both in one environment are: the last one that was installed overwrites what they share."""
    broken = tmp_path / "connectrpc"
    broken.mkdir()
    for name in ("__init__", "errors"):
        (broken / f"{name}.py").write_text("")
    message, why, hint = loaded(tmp_path).splitlines()
    assert message == "The executor e2b cannot be loaded."
    assert why.startswith("The SDKs of Scalebox and E2B cannot share an environment: both bring a module connectrpc")
    assert hint == ('Make an environment without Scalebox\'s: pip install "sandbox-agent-magic[e2b]" in a new one.')


def test_without_the_sdk_it_says_what_to_install(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'e2b_code_interpreter'\", name='e2b_code_interpreter')"
    (tmp_path / "e2b_code_interpreter.py").write_text(missing)
    assert loaded(tmp_path).splitlines() == [
        "The executor e2b cannot be loaded.",
        "No module named 'e2b_code_interpreter'.",
        'Install it with: pip install "sandbox-agent-magic[e2b]"',
    ]


def test_the_sdk_is_not_loaded_before_it_is_used() -> None:
    code = "import sandbox_agent_magic.executors.cloud.e2b, sys\nprint('e2b' in sys.modules, 'httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False False"


def test_the_sdks_own_variables_change_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "E2B_API_KEY": "another",
        "E2B_DOMAIN": "127.0.0.1:9",
        "E2B_API_URL": "http://127.0.0.1:9",
        "E2B_SANDBOX_URL": "http://127.0.0.1:9",
        "E2B_DEBUG": "true",
        "E2B_HTTP_VERSION": "3",
    }.items():
        monkeypatch.setenv(name, value)
    engine = E2BEngine(target(cloud))
    sandbox_id = engine.create()
    said: list[Output] = []
    engine.run("1 + 1", on_output=said.append, timeout_s=60)
    assert said[0]["data"] == {"text/plain": "2"}
    assert [each.sandbox_id for each in engine.list()] == [sandbox_id]
    assert engine.kill(sandbox_id)
    assert not engine.kill(sandbox_id)
    engine.disconnect()


@pytest.mark.parametrize(
    ("domain", "api", "sandbox"),
    [
        ("", "https://api.e2b.app", "https://sandbox.e2b.app"),
        ("own.example", "https://api.own.example", "https://49983-sbx.own.example"),
    ],
)
def test_a_domain_leads_to_the_addresses_below_it(domain: str, api: str, sandbox: str) -> None:
    options = E2BEngine(CloudTarget("key", domain=domain))._options
    config = e2b.ConnectionConfig(**options)
    assert config.api_url == api
    assert config.get_sandbox_url("sbx", options["domain"]) == sandbox


# ---- failures -------------------------------------------------------------------------------------------------------


def test_nothing_that_the_sdk_can_raise_is_unknown() -> None:
    from e2b import exceptions

    found = {
        name: failure_of(kind("x")).kind
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == exceptions.__name__
    }
    ours = {
        "SandboxException": "reply",
        "TimeoutException": "late",
        "InvalidArgumentException": "refused",
        "NotEnoughSpaceException": "file",
        "NotFoundException": "cut",
        "FileNotFoundException": "file",
        "SandboxNotFoundException": "gone",
        "SandboxNotRunningException": "gone",
        "SandboxUnreachableException": "cut",
        "AuthenticationException": "key",
        "TemplateException": "template",
        "RateLimitException": "busy",
        "ServiceBusyException": "server",
    }
    assert {name: found[name] for name in ours} == ours
    # Of parts of the SDK that are not used here: git, builds, volumes, secrets, pausing.
    others = ("Git", "Build", "FileUpload", "Volume", "Secret", "Guest")
    assert [name for name in found if name not in ours and not name.startswith(others)] == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "refused"),
        (401, "key"),
        (403, "forbidden"),
        (404, "gone"),
        (429, "busy"),
        (500, "server"),
        (503, "server"),
    ],
)
@pytest.mark.parametrize("route", ["POST /execute", "GET /files", "filesystem|process", "/timeout"])
def test_a_refusal_is_told_by_its_status_wherever_it_comes_from(
    cloud: Cloud, route: str, status: int, kind: str
) -> None:
    engine = E2BEngine(target(cloud))
    engine.create()
    cloud.fail(route, status=status, times=20)
    calls = {
        "POST /execute": lambda: engine.run("1", on_output=lambda _: None, timeout_s=60),
        "GET /files": lambda: engine.read("/home/user/none"),
        "filesystem|process": lambda: engine.interrupt(1),
        "/timeout": lambda: engine.extend(60),
    }
    with pytest.raises(CloudFailure) as caught:
        calls[route]()
    expected = kind
    if status == 404:  # of a context, and of a file
        expected = {"POST /execute": "cut", "GET /files": "file", "filesystem|process": "cut"}.get(route, kind)
    if route == "filesystem|process":  # a status becomes one of gRPC's words on the way
        expected = {403: "reply", 500: "reply", 503: "cut"}.get(status, expected)
    assert caught.value.kind == expected
    assert cloud.key not in str(caught.value)
    engine.disconnect()


def test_a_gateway_that_knows_no_sandbox_is_told_from_one_that_fails(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "1")
    kinds = []
    for words in ("The sandbox was not found", "The sandbox is running but port is not open", "bad gateway"):
        cloud.fail("POST /execute", status=502, body={"code": 502, "message": words})
        with pytest.raises(CloudFailure) as caught:
            executor.box.engine.run("1", on_output=lambda _: None, timeout_s=60)
        kinds.append(caught.value.kind)
    assert kinds == ["gone", "server", "server"]


def test_a_start_whose_interpreter_comes_late_is_waited_for(cloud: Cloud, executor: CloudExecutor) -> None:
    cloud.fail("GET /contexts", status=502, body={"code": 502, "message": "port is not open"}, times=4)
    assert shown(run(executor, "1 + 1")) == ["2"]


def test_a_provider_that_asks_for_patience_gets_it(cloud: Cloud, executor: CloudExecutor) -> None:
    cloud.fail("POST /v2/sandboxes", status=429, headers={"Retry-After": "1"}, times=2)
    began = time.monotonic()
    assert shown(run(executor, "1 + 1")) == ["2"]
    assert time.monotonic() - began > 2


def test_a_silent_run_ends_when_its_connections_are_closed(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "1")
    engine = executor.box.engine
    ended: list[CloudFailure] = []

    def sleep() -> None:
        try:
            engine.run("import time; time.sleep(60)", on_output=lambda _: None, timeout_s=90)
        except CloudFailure as failure:
            ended.append(failure)

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(1)
    engine.disconnect()
    thread.join(5)
    assert not thread.is_alive()
    assert [failure.kind for failure in ended] == ["cut"]


def test_a_context_that_somebody_else_removed_is_replaced(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "x = 1")
    executor.restart()
    engine = executor.box.engine
    assert isinstance(engine, E2BEngine)
    assert engine._context is not None
    engine._sandbox().remove_code_context(engine._context)
    assert run(executor, "1").status in ("died", "error")
    time.sleep(1.1)
    assert shown(run(executor, "1 + 1")) == ["2"]
    assert len(cloud.sandboxes()) == 1


# ---- what it says ---------------------------------------------------------------------------------------------------


def test_texts_keep_their_quotation_marks(executor: CloudExecutor) -> None:
    run(executor, 'class Odd:\n    def __repr__(self):\n        return "\'"')
    results = [run(executor, code) for code in ("'abc'", '"it\'s"', "['a']", "\"''\"", "Odd()", "display('d')")]
    assert [shown(result) for result in results] == [["'abc'"], ['"it\'s"'], ["['a']"], ["\"''\""], ["'"], ["'d'"]]
    executor.restart()
    assert shown(run(executor, "'abc'")) == ["'abc'"]


RESULT = {"type": "result", "is_main_result": True}
COUNT = {"type": "number_of_executions", "execution_count": 1}


@pytest.mark.parametrize(
    "lines",
    [
        ["not json"],
        ["[]"],
        ["{}"],
        ['{"type": "stdout"}'],
        ['{"type": "error"}'],
        ["[" * 200_000],
        [json.dumps(COUNT), ""],
    ],
    ids=["text", "list", "empty", "no text", "no name", "deep", "empty line"],
)
def test_an_answer_that_is_none_is_an_error_and_the_variables_stay(
    cloud: Cloud, executor: CloudExecutor, lines: list[str]
) -> None:
    run(executor, "kept = 42")
    cloud.fail("POST /execute", lines=lines)
    result = run(executor, "1")
    assert (result.status, result.error and result.error.ename) == ("error", "ConnectionLost")
    assert "not understood" in str(result.error)
    assert shown(run(executor, "kept")) == ["42"]


def test_results_of_all_shapes_are_taken_for_what_they_may_be(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "1")
    hostile = [
        {**RESULT, "text": ["a"], "png": 5, "html": {"b": 1}, "json": [1], "extra": "no", "chart": {"type": 7}},
        {**RESULT, "text": "x", "extra": {"application/vnd.plotly.v1+json": {"data": []}, "script": "alert(1)"}},
        {**RESULT, "text": "seen", "html": "<b onclick='x()'>bold</b><script>alert(1)</script>"},
        {"type": "unknown", "text": "unseen"},
        {"type": "stdout", "text": {"no": "text"}, "timestamp": []},
        {"type": "error", "name": [], "value": {}, "traceback": None},
    ]
    cloud.fail("POST /execute", lines=[json.dumps(line) for line in hostile])
    result = run(executor, "1")
    text = str(result.outputs)
    assert result.status == "error"
    assert "seen" in text
    assert "bold" in text
    for bad in ("script>", "onclick", "alert", "unseen"):
        assert bad not in text


def test_a_line_that_does_not_end_is_cut_off(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "kept = 42")
    before = psutil.Process().memory_info().rss
    cloud.fail("POST /execute", endless=True)
    result = run(executor, "1")
    assert (result.status, result.error and result.error.ename) == ("error", "ConnectionLost")
    assert psutil.Process().memory_info().rss - before < 600 << 20
    assert shown(run(executor, "kept")) == ["42"]


def test_an_answer_that_is_compressed_is_not_unpacked(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "kept = 42")
    cloud.fail(
        "POST /execute", lines=['{"type": "stdout", "text": "x", "timestamp": 0}'], headers={"Content-Encoding": "gzip"}
    )
    result = run(executor, "1")
    assert (result.status, result.error and result.error.ename) == ("error", "ConnectionLost")
    assert shown(run(executor, "kept")) == ["42"]


# ---- what stays -----------------------------------------------------------------------------------------------------


def test_sandboxes_come_and_go_and_nothing_of_them_stays_here(cloud: Cloud) -> None:
    def once() -> None:
        made = CloudExecutor(E2BEngine(target(cloud)), replace(target(cloud), life_s=60))
        run(made, "import os; open('f', 'w').write('x'); os.getpid()")
        made.restart()
        made.shutdown()

    once()
    here = psutil.Process()
    before = here.num_fds()
    for _ in range(6):
        once()
    assert here.num_fds() <= before + 3  # connections that the SDK keeps for later, whatever the number of sandboxes
    assert [thread.name for thread in threading.enumerate() if thread.name == "sandbox-agent-cloud"] == []
    assert cloud.sandboxes() == []


def test_a_list_goes_on_to_its_last_page(cloud: Cloud) -> None:
    engines = [E2BEngine(target(cloud)) for _ in range(5)]
    made = {engine.create() for engine in engines}
    assert {each.sandbox_id for each in engines[0].list()} == made
    assert all(each.ours and each.started for each in engines[0].list())
    for engine in engines:
        engine.disconnect()


def test_a_request_to_the_interpreter_follows_no_redirect(cloud: Cloud, executor: CloudExecutor) -> None:
    run(executor, "1")
    cloud.fail("POST /execute", status=307, body="", headers={"Location": f"{cloud.url}/elsewhere"})
    with pytest.raises(CloudFailure):
        executor.box.engine.run("1", on_output=lambda _: None, timeout_s=60)
    assert "POST /elsewhere" not in cloud.requests()
