"""A real Jupyter server behind a proxy at which things go wrong: each is a clear error, or it heals."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from sandbox_agent_magic.errors import ExecutorError, ExecutorTimeout
from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.executors.remote import RemoteExecutor, Target, line, socket
from sandbox_agent_magic.outputs import OutputLimits, text_of
from sandbox_agent_magic.types import ExecutionResult, Executor, Output
from tests.support.faulty_proxy import (
    CERTIFICATE,
    Fault,
    FaultyProxy,
    cut,
    delay,
    frame,
    raw,
    respond,
    web_socket,
)
from tests.support.jupyter_servers import Server, jupyter

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START = "POST /api/kernels$"
CHANNELS = "/channels"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with jupyter("server") as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.url) as running:
        yield running


@pytest.fixture
def make(server: Server, proxy: FaultyProxy) -> Iterator[Callable[..., RemoteExecutor]]:
    made: list[RemoteExecutor] = []

    def one(*, start_s: float = 20, limits: OutputLimits | None = None, kernel_name: str = "") -> RemoteExecutor:
        target = Target(proxy.url, server.token, token_source=".env", start_s=start_s, kernel_name=kernel_name)
        made.append(RemoteExecutor(target, limits=limits))
        return made[-1]

    yield one
    for executor in made:
        executor.shutdown()
    end = time.monotonic() + 20
    while server.kernels() and time.monotonic() < end:
        time.sleep(0.2)
    left = [kernel["id"] for kernel in server.kernels()]
    for kernel_id in left:
        server.ask("DELETE", f"api/kernels/{kernel_id}")
    assert left == [], "something was left running"


def run(executor: Executor, code: str, *, timeout_s: float = 60) -> ExecutionResult:
    return executor.execute(code, timeout_s=timeout_s, on_output=lambda _: None)


def text(result: ExecutionResult) -> str:
    return text_of(result.outputs).strip()


def error_of(executor: Executor, code: str = "1") -> list[str]:
    with pytest.raises(ExecutorError) as caught:
        run(executor, code)
    lines = caught.value.lines()
    assert len(lines) == 3
    return lines


# ---- the server refuses, or fails -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "The Jupyter server does not accept the token."),
        (403, "The Jupyter server refuses this."),
        (404, "There is no Jupyter server at this address."),
        (429, "The Jupyter server takes no more requests now."),
        (500, "The Jupyter server failed."),
        (502, "There is no Jupyter server behind the proxy at this address."),
        (503, "The Jupyter server is overloaded or starting."),
        (504, "The Jupyter server did not answer its proxy in time."),
    ],
)
def test_each_refusal_is_said_with_what_to_do_and_without_the_token(
    status: int, said: str, server: Server, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on("/api/", respond(status, b'{"message": "no: ' + server.token.encode() + b'"}'))
    message, why, hint = error_of(make(start_s=2))
    assert message == said
    assert why.startswith(f"{proxy.url} answered {status} (no: ***)")
    assert hint
    assert server.token not in message + why + hint
    proxy.down()  # nothing is to be ended


def test_a_server_that_knows_the_token_and_yet_starts_no_kernel_is_told_from_a_wrong_token(
    proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, respond(403, b'{"reason": "Resource Limit"}'))
    message, why, hint = error_of(make())
    assert message == "The Jupyter server starts no kernel for you."
    assert why == f"{proxy.url} accepts the token, but answered 403 (Resource Limit)."
    assert "KERNEL_USERNAME" in hint


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_start_that_is_put_off_is_tried_again(
    status: int, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, respond(status), times=2)
    assert text(run(make(), "6 * 7")) == "42"
    assert sum(seen.verb == "POST" for seen in proxy.seen) == 3


def test_a_server_that_says_how_long_to_wait_is_heeded(proxy: FaultyProxy, make: Callable[..., RemoteExecutor]) -> None:
    proxy.on(START, respond(429, Retry_After="3"), times=1)
    began = time.monotonic()
    assert text(run(make(), "6 * 7")) == "42"
    assert time.monotonic() - began > 3


def test_a_wait_that_is_longer_than_a_start_may_take_is_refused_at_once(
    proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, respond(429, Retry_After="600"))
    began = time.monotonic()
    assert error_of(make())[1].endswith("answered 429, and asks to wait 600 s.")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("fault", [respond(302, Location="{other}/login?next=x"), respond(307, Location="{other}/api")])
def test_the_token_does_not_follow_a_redirect(
    fault: Fault, server: Server, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    with FaultyProxy(server.url) as other:
        place = f"{other.url}/hub/login"
        proxy.on("/api/", respond(302, Location=f"{place}?next=x"))
        message, why, hint = error_of(make())
        assert message == "The Jupyter server sends elsewhere, perhaps to a page where one logs in."
        assert why == f"{proxy.url} answered 302, to http://127.0.0.1/hub/login. The token is not sent there."
        assert "AGENT_REMOTE_URL" in hint
        assert other.seen == []


def test_the_token_does_not_follow_a_redirect_of_the_web_socket_either(
    server: Server, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    with FaultyProxy(server.url) as other:
        proxy.on(CHANNELS, respond(302, Location=f"ws://127.0.0.1:{other.port}/api/kernels/x/channels"))
        assert error_of(make())[0] == "The kernel's web socket cannot be opened."
        assert other.seen == []


def test_a_login_page_in_place_of_an_answer_is_said(proxy: FaultyProxy, make: Callable[..., RemoteExecutor]) -> None:
    proxy.on("/api/", respond(200, b"<html>Please log in</html>", Content_Type="text/html"))
    message, why, _ = error_of(make())
    assert message == "There is no Jupyter server at this address."
    assert why == f"{proxy.url}: it answers with a web page, perhaps one where one logs in."


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_of_ones_own_is_accepted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(server.url, tls=True) as proxy:
        executor = RemoteExecutor(Target(proxy.url, server.token))
        message, why, hint = error_of(executor)
        assert message == "The Jupyter server's certificate is not accepted."
        assert why.startswith(proxy.url)
        assert "REQUESTS_CA_BUNDLE" in hint
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
        assert text(run(executor, "6 * 7")) == "42"
        executor.shutdown()


# ---- slow starts ------------------------------------------------------------------------------------------------


def test_a_slow_start_is_waited_for_and_the_reader_hears_of_it_while_it_lasts(
    proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, delay(7))
    seen: list[Output] = []
    result = make().execute("6 * 7", timeout_s=5, on_output=seen.append)
    assert text(result) == "42", "the wait is not kept, and takes nothing of the code's time"
    assert text_of(seen[:1]).startswith(f"Waiting for a kernel on {proxy.url}: 5 s so far, at most 20 s.")


def test_a_kernel_that_is_slow_to_answer_is_waited_for_as_well(
    server: Server, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    server.add_kernelspec("slow", "import time; time.sleep(7)")
    seen: list[Output] = []
    result = make(kernel_name="slow").execute("6 * 7", timeout_s=5, on_output=seen.append)
    assert text(result) == "42"
    assert text_of(seen[:1]).startswith("Waiting for ")


def test_a_start_that_takes_too_long_is_given_up_and_its_kernel_ended_when_it_comes(
    server: Server, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, delay(4))
    message, why, hint = error_of(make(start_s=2))
    assert message == "The Jupyter server does not answer."
    assert why == f"{proxy.url} gave no answer within 2 seconds."
    assert "AGENT_REMOTE_START_TIMEOUT=2" in hint
    wait_for(lambda: any(seen.verb == "DELETE" for seen in proxy.seen))


def test_ctrl_c_ends_the_wait_for_a_start_and_its_kernel_when_it_comes(
    server: Server, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, delay(5))
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    assert run(make(), "1").status == "interrupted"
    assert time.monotonic() - began < 3
    wait_for(lambda: any(seen.verb == "DELETE" for seen in proxy.seen))


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


# ---- cuts -------------------------------------------------------------------------------------------------------

TWO_SECONDS = "import time\nprint('one', flush=True)\ntime.sleep(2)\nprint('two')\n6 * 7"


def test_a_network_that_goes_and_comes_back_costs_nothing(
    proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    def go(_: Output) -> None:
        if not threads:
            proxy.down()
            threads.append(threading.Timer(4, proxy.up))
            threads[0].start()

    threads: list[threading.Timer] = []
    result = make().execute(TWO_SECONDS, timeout_s=60, on_output=go)
    assert (result.status, text(result), result.state_lost) == ("ok", "one\ntwo\n42", False)


def test_a_server_that_stays_away_ends_the_code_and_what_it_had_printed_is_kept(
    proxy: FaultyProxy, make: Callable[..., RemoteExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_RECONNECT_S", 2)
    executor = make()
    result = executor.execute(TWO_SECONDS, timeout_s=60, on_output=lambda _: proxy.down())
    assert result.status == "died"
    assert text(result).startswith("one\n")
    assert result.error is not None
    assert result.error.ename == "ConnectionLost"
    assert error_of(executor)[0] == "The Jupyter server cannot be reached."
    proxy.up()
    assert text(run(executor, "6 * 7")) == "42"


def test_a_start_whose_connection_is_cut_is_an_error(proxy: FaultyProxy, make: Callable[..., RemoteExecutor]) -> None:
    proxy.on(START, cut)
    assert error_of(make())[0] == "The Jupyter server cannot be reached."


# ---- hostile answers --------------------------------------------------------------------------------------------


def bytes_for_ever(first: bytes, more: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.chain([first], itertools.repeat(more))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'{"id": 5}',
        b'{"id": "../../etc"}',
        b'{"id": "' + b"x" * 1000 + b'"}',
        b"[" * 500_000,
        b'{"id": "' + b"x" * (2 << 20) + b'"}',
        b"\xff\xfe\x00",
    ],
    ids=["null", "list", "number", "path", "long", "deep", "large", "binary"],
)
def test_an_answer_that_no_jupyter_server_gives_is_no_jupyter_server(
    body: bytes, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, respond(200, body))
    assert error_of(make())[0] == "There is no Jupyter server at this address."


def test_a_body_without_end_is_not_read_to_its_end(proxy: FaultyProxy, make: Callable[..., RemoteExecutor]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
    proxy.on(START, raw(bytes_for_ever(head, b"x" * 65_536)))
    assert error_of(make())[0] == "There is no Jupyter server at this address."


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_an_answer_that_comes_a_byte_at_a_time_has_an_end(
    first: bytes, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(START, raw(bytes_for_ever(first, b"x"), pause_s=0.1))
    began = time.monotonic()
    assert error_of(make(start_s=2))[0] == "The Jupyter server does not answer."
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "fault",
    [
        raw(bytes_for_ever(b"HTTP/1.1 101 X\r\nX: ", b"x"), pause_s=0.1),
        raw(lambda: iter([b"garbage\r\n\r\n"])),
        respond(400, b"x" * 100_000),
        respond(200, b"<html>"),
        cut,
    ],
    ids=["slow", "garbage", "400", "page", "cut"],
)
def test_a_web_socket_that_cannot_be_opened_is_said_soon(
    fault: Fault, proxy: FaultyProxy, make: Callable[..., RemoteExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "_CONNECT_S", 2)
    proxy.on(CHANNELS, fault)
    message, why, hint = error_of(make())
    assert message == "The kernel's web socket cannot be opened."
    assert "which answers otherwise" in why
    assert "proxy" in hint


STATUS = b'{"channel":"iopub","header":{"msg_type":"status"},"parent_header":{},"content":{"execution_state":"idle"}}'


@pytest.mark.parametrize(
    "fault",
    [
        web_socket(lambda: iter([frame(b"", length=1 << 62)])),
        web_socket(bytes_for_ever(frame(b"x", fin=False), frame(b"x" * 65_536, opcode=0, fin=False))),
        web_socket(bytes_for_ever(frame(b"x", fin=False), frame(b"", opcode=0, fin=False))),
        web_socket(bytes_for_ever(b"", frame(b"", opcode=9))),
        web_socket(bytes_for_ever(frame(b"", length=10_000)[:10], b"x"), pause_s=0.1),
        web_socket(bytes_for_ever(b"", frame(b"[" * 100_000))),
        web_socket(bytes_for_ever(b"", frame(STATUS))),
        web_socket(bytes_for_ever(b"", frame(b'{"channel":"iopub","header":[],"parent_header":5,"content":7}'))),
    ],
    ids=["giant frame", "pieces without end", "empty pieces", "pings", "slow frame", "deep", "flood", "shapes"],
)
def test_no_web_socket_fills_the_memory_or_holds_its_reader_longer_than_a_start_may_take(
    fault: Fault, proxy: FaultyProxy, make: Callable[..., RemoteExecutor]
) -> None:
    proxy.on(CHANNELS, fault)
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(ExecutorTimeout) as caught:
        run(make(start_s=4, limits=OutputLimits(message_bytes=1 << 20)), "1")
    taken, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.lines() == [
        "The remote kernel did not answer in time.",
        f"{proxy.url} had 4 seconds (AGENT_REMOTE_START_TIMEOUT).",
        "Look whether it is busy, or ended; %agent restart starts afresh.",
    ]
    assert taken < 8
    assert peak < 50 << 20


# ---- the code's own floods --------------------------------------------------------------------------------------


def test_a_flood_of_messages_ends_the_code_and_the_next_runs_with_its_variables(
    make: Callable[..., RemoteExecutor],
) -> None:
    executor = make(limits=OutputLimits(messages=300))
    run(executor, "kept = 42")
    result = run(executor, "while True: display(1)")
    assert result.error is not None
    assert result.error.ename == "OutputLimitExceeded"
    assert "AGENT_LIMIT_MESSAGES" in result.error.evalue
    assert text(run(executor, "kept")) == "42"


def test_a_message_over_the_size_ends_the_code_and_the_next_runs(make: Callable[..., RemoteExecutor]) -> None:
    executor = make(limits=OutputLimits(message_bytes=1 << 20))
    run(executor, "kept = 42")
    result = run(executor, "display({'text/plain': 'x' * (3 << 20)}, raw=True)")
    assert result.error is not None
    assert result.error.ename == "OutputLimitExceeded"
    assert "AGENT_LIMIT_MESSAGE)" in result.error.evalue
    assert text(run(executor, "kept")) == "42"


# ---- which kernel -----------------------------------------------------------------------------------------------


def test_code_that_meets_another_kernel_does_not_run_there_until_it_is_put_in_order(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    executor = make()
    runs = server.root / "runs"
    code = f"open({str(runs)!r}, 'a').write('x')"
    run(executor, "kept = 42")
    server.ask("POST", f"api/kernels/{executor._kernel.kernel_id}/restart", b"{}")
    result = run(executor, code)
    assert (result.status, result.state_lost) == ("ok", True)
    assert runs.read_text() == "x"
    assert not run(executor, code).state_lost
    assert runs.read_text() == "xx"


def test_two_cells_in_a_row_cost_one_round_trip_each(proxy: FaultyProxy, make: Callable[..., RemoteExecutor]) -> None:
    executor = make()
    run(executor, "1")
    sent: list[str] = []
    kernel_line = executor._kernel.line
    request, receive = kernel_line._connected().request, kernel_line._connected().receive
    kernel_line._connected().request = lambda *a, **k: (sent.append("sent"), request(*a, **k))[1]  # type: ignore[method-assign]
    kernel_line._connected().receive = lambda *a: (sent.append("read"), receive(*a))[1]  # type: ignore[method-assign]
    run(executor, "2")
    trips = [key for key, _ in itertools.groupby(each for each in sent[1:])]  # the first looks whether something waits
    assert trips == ["sent", "read"]


def test_healing_says_once_what_became_of_the_kernel_and_runs_the_code_once(
    server: Server, make: Callable[..., RemoteExecutor]
) -> None:
    inner = make()
    executor = HealingExecutor(inner)
    runs = server.root / "healed"
    run(executor, "n = 42")
    server.ask("POST", f"api/kernels/{inner._kernel.kernel_id}/restart", b"{}")
    result = run(executor, f"print(n, file=open({str(runs)!r}, 'a'))")
    assert text(result) == (
        "The remote kernel was lost, and another one took its place: "
        "files were sent again, and the 1 piece of code that had worked ran again."
    )
    assert runs.read_text() == "42\n"
