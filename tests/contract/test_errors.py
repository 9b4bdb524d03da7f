"""Every way in which a server fails, shown by a real one on loopback to each SDK, and the error that it becomes.

What a server says of a failure is the same in all protocols but for its frame; `said` is what stands in the frame.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sandbox_agent_magic import providers, settings
from sandbox_agent_magic.errors import (
    ProviderAuthError,
    ProviderBudgetExceeded,
    ProviderContentFiltered,
    ProviderContextTooLong,
    ProviderError,
    ProviderModelNotFound,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderReplyInvalid,
    ProviderTimeout,
    ProviderUnavailable,
)
from sandbox_agent_magic.providers.failures import TABLE
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest, Tool
from tests.support.model_server import ModelServer, Reply

pytestmark = pytest.mark.integration

KEY = "sk-loopback-0123456789abcdef"
NAMES = ("openai", "azure", "anthropic")
KEY_SETTINGS = {"openai": "OPENAI_API_KEY", "azure": "AZURE_OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
URL_SETTINGS = {"openai": "OPENAI_BASE_URL", "azure": "AZURE_API_BASE", "anthropic": "ANTHROPIC_BASE_URL"}
MODEL_SETTINGS = {"openai": "MODEL", "azure": "AZURE_DEPLOYMENT_NAME", "anthropic": "MODEL"}
PYTHON = Tool("python", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})

T = TypeVar("T")


def ask(name: str, root: str, *, key: str = KEY, deadline_s: float = 20.0, idle_s: float = 20.0) -> ModelReply:
    """Ask one question of the server at `root`, as a reader would: by the settings."""
    environ = {
        "AGENT_PROVIDER": name,
        KEY_SETTINGS[name]: key,
        URL_SETTINGS[name]: f"{root}/v1" if name == "openai" else root,
        MODEL_SETTINGS[name]: "some-model",
        "AZURE_API_VERSION": "2024-10-21",
    }
    provider = providers.create(settings.load(environ=environ))
    with closing(provider):
        request = ModelRequest(
            (Message("user", "Go."),), (PYTHON,), temperature=0.03, deadline_s=deadline_s, idle_s=idle_s
        )
        return provider.complete(request, on_text=lambda text: None)


def said(message: str, status: int, *, type: str = "", code: str | None = None, **headers: str) -> Reply:
    """An error in the JSON that all three protocols use."""
    error = {"message": message, "type": type, "code": code, "param": None}
    return Reply(status=status, body={"type": "error", "error": error}, headers=headers)


def event(message: str, *, type: str = "", code: object = None) -> Reply:
    """An error in the middle of a stream, whose status said that all was well."""
    first = {
        "type": "message_start",
        "message": {"role": "assistant", "usage": {}},
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
    }
    error = {"message": message, "type": type, "code": code}
    return Reply(events=[first, {"type": "error", "error": error}])


@dataclass(frozen=True)
class Case:
    """A failing server, and what must come of it."""

    reply: Reply
    error: type[ProviderError]
    retryable: bool = False
    names: tuple[str, ...] = NAMES
    """Providers whose servers can say so."""
    limits: dict[str, float] = field(default_factory=dict)


Unavailable, Timeout = ProviderUnavailable, ProviderTimeout
CASES: dict[str, Case] = {
    # ---- key, model, account
    "bad key": Case(said("Incorrect API key provided.", 401, code="invalid_api_key"), ProviderAuthError),
    "bad key, Anthropic": Case(said("invalid x-api-key", 401, type="authentication_error"), ProviderAuthError),
    "bad key, in other words": Case(said("Who are you?", 401), ProviderAuthError),
    "not allowed": Case(said("You have insufficient permissions.", 403), ProviderAuthError),
    "model not allowed": Case(said("This key is not allowed to access model x", 403), ProviderModelNotFound),
    "unknown model": Case(said("The model `x` does not exist", 404, code="model_not_found"), ProviderModelNotFound),
    "unknown model, Anthropic": Case(said("model: x", 404, type="not_found_error"), ProviderModelNotFound),
    "unknown deployment": Case(
        said("The API deployment for this resource does not exist.", 404, code="DeploymentNotFound"),
        ProviderModelNotFound,
    ),
    "quota": Case(said("You exceeded your current quota", 429, code="insufficient_quota"), ProviderQuotaExceeded),
    "credit, Anthropic": Case(said("Your credit balance is too low", 400), ProviderQuotaExceeded),
    "payment": Case(said("Pay first.", 402), ProviderQuotaExceeded),
    "budget": Case(said("Budget has been exceeded!", 429, type="budget_exceeded"), ProviderBudgetExceeded),
    # ---- the request
    "context": Case(said("Too long.", 400, code="context_length_exceeded"), ProviderContextTooLong),
    "context, Anthropic": Case(said("prompt is too long: 9 tokens > 8 maximum", 400), ProviderContextTooLong),
    "too large": Case(Reply(status=413, body="<html>Request Entity Too Large</html>"), ProviderContextTooLong),
    "filter": Case(said("Stopped.", 400, code="content_filter"), ProviderContentFiltered),
    "bad request": Case(said("messages: at least one is required", 400), ProviderError),
    # ---- the server is busy or broken
    "rate limit": Case(said("Rate limit reached", 429, **{"Retry-After": "7"}), ProviderRateLimited, True),
    "rate limit without its status": Case(event("Slow down", type="rate_limit_error"), ProviderRateLimited, True),
    "overload": Case(said("The engine is overloaded", 503), Unavailable, True),
    "overload, Anthropic": Case(said("Overloaded", 529, type="overloaded_error"), Unavailable, True),
    "overload in a stream": Case(event("Overloaded", type="overloaded_error"), Unavailable, True),
    "error event": Case(event("it broke", code=500), Unavailable, True),
    "error event without a code": Case(event("it broke"), Unavailable, True),
    "status 500": Case(said("The server had an error", 500), Unavailable, True),
    "page 502": Case(Reply(status=502, body="<title>502 Bad Gateway</title>"), Unavailable, True),
    "gateway timeout": Case(Reply(status=504, body="<title>504 Gateway Time-out</title>"), Timeout, True),
    "timeout by the server": Case(said("litellm.Timeout: x", 400), Timeout, True),
    "nothing behind the proxy": Case(said("OpenAIException - Connection error.", 500), Unavailable, True),
    # ---- the stream
    "cut off": Case(Reply("a b c d", fault="cut"), Unavailable, True),
    "reset": Case(Reply("a b c d", fault="reset"), Unavailable, True),
    "ended early": Case(Reply("a b c d", fault="end_early"), Unavailable, True),
    "no reply at all": Case(Reply(raw=b""), Unavailable, True),
    "hangs before a word": Case(Reply(fault="hang", events=[]), Timeout, True, limits={"deadline_s": 1.0}),
    "drips": Case(Reply("word " * 60, delay_s=0.1), Timeout, True, limits={"deadline_s": 1.0}),
    "silent in the middle": Case(Reply("a b c d", fault="hang"), Timeout, True, limits={"idle_s": 1.0}),
    # ---- no model server at this address
    "a page": Case(Reply(fault="html"), ProviderReplyInvalid),
    "bad JSON": Case(Reply("a b c d", fault="bad_json"), ProviderReplyInvalid),
    "an event that is no object": Case(Reply(events=[5]), ProviderReplyInvalid),
    "no choice at all": Case(Reply(events=[{"choices": []}, {"choices": None}]), ProviderReplyInvalid),
    "other JSON": Case(Reply(body={"hello": "world"}), ProviderReplyInvalid),
    "no HTTP": Case(Reply(raw=b"220 smtp.example ESMTP\r\n\r\n"), Unavailable, True),
    "no such path": Case(Reply(status=404, body={"detail": "Not Found"}), Unavailable),
    "redirect": Case(Reply(status=307, headers={"Location": "http://127.0.0.1:9/"}), Unavailable),
}
RUNS = [pytest.param(name, case, id=f"{case_name}-{name}") for case_name, case in CASES.items() for name in case.names]


def failing(job: Callable[[], T]) -> ProviderError:
    """What `job` fails with: an error of ours, fit to be shown, with nothing foreign behind it."""
    with pytest.raises(ProviderError) as caught:
        job()
    error = caught.value
    assert 2 <= len(error.lines()) <= 3
    assert "{" not in error.message + error.hint
    assert error.__cause__ is None
    assert error.__context__ is None
    assert KEY not in "".join(traceback.format_exception(error)) + repr(vars(error))
    error.detailed = False
    assert len(error.lines()) == 1
    error.detailed = True
    return error


@pytest.mark.parametrize(("name", "case"), RUNS)
def test_a_failing_server_becomes_the_right_error(name: str, case: Case) -> None:
    with ModelServer(case.reply) as server:
        error = failing(lambda: ask(name, server.root, **case.limits))
        assert len(server.seen) == 1
    assert (type(error), error.retryable) == (case.error, case.retryable)


# ---- no server at all -------------------------------------------------------------------------------------------


def closed() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def self_signed() -> str:
    """A server whose certificate nobody signed. It ends with the process."""
    return ModelServer(Reply("hello"), tls=True).__enter__().root


def plain_but_called_https() -> str:
    """A server that speaks no TLS, at an address that says it does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(1_000)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    return f"https://127.0.0.1:{listener.getsockname()[1]}"


UNREACHABLE: dict[str, tuple[Callable[[], str], str]] = {
    "refused": (closed, "cannot be reached"),
    "unknown host": (lambda: "http://no-such-host.invalid", "is unknown"),
    "untrusted certificate": (self_signed, "certificate"),
    "no TLS": (plain_but_called_https, "does not speak TLS"),
    "no scheme": (lambda: "localhost:4000", "not valid"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("address", "words"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_server_that_cannot_be_reached_is_told_at_once(name: str, address: Callable[[], str], words: str) -> None:
    root = address()
    failing(lambda: ask(name, closed()))  # imports the SDK
    begun = time.monotonic()
    error = failing(lambda: ask(name, root))
    assert time.monotonic() - begun < 0.5
    assert words in error.message
    assert not error.retryable
    assert f"{URL_SETTINGS[name]} (from environment)" in error.hint


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_server_that_never_takes_the_connection_is_given_up_after_five_seconds(name: str) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(8)]  # fills the queue: the next one is not answered at all
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        begun = time.monotonic()
        error = failing(lambda: ask(name, f"http://127.0.0.1:{address[1]}"))
        assert 4.5 < time.monotonic() - begun < 6.5
        for each in waiting:
            each.close()
    assert "in time" in error.message
    assert error.retryable


@pytest.mark.parametrize("key", ["sk-line-one\nsk-line-two", "sk-schlüssel-geheim"], ids=["line break", "not ASCII"])
@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_cannot_be_sent_is_told_without_showing_it(name: str, key: str) -> None:
    with ModelServer(Reply("hello")) as server:
        error = failing(lambda: ask(name, server.root, key=key))
    assert type(error) is ProviderAuthError
    assert "cannot be sent" in error.message
    assert KEY_SETTINGS[name] in error.hint
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert not any(part in shown for part in ("line-one", "line-two", "geheim"))


# ---- the table as a whole ---------------------------------------------------------------------------------------


def test_every_row_of_the_table_is_shown_by_a_real_server() -> None:
    """All of them again, in one go: so that a row that nothing real leads to is found."""
    name = "openai"
    met = set()
    for case in CASES.values():
        with ModelServer(case.reply) as server:
            met.add(template_of(failing(lambda: ask(name, server.root, **case.limits))))  # noqa: B023
    for address, _ in UNREACHABLE.values():
        met.add(template_of(failing(lambda: ask(name, address()))))  # noqa: B023
    met.add(template_of(failing(lambda: ask(name, closed(), key="sk-ü"))))
    elsewhere = {"{server} does not take the connection in time.", "The request to {server} failed."}
    assert {row.message for row in TABLE} - met == elsewhere


def template_of(error: ProviderError) -> str:
    """The message of the table's row that this error was made from."""
    for row in TABLE:
        pattern = re.sub(r"\\\{.*?\\\}", ".+", re.escape(row.message))
        if type(error) is row.error and re.fullmatch(pattern, error.message):
            return row.message
    raise AssertionError(f"no row made {error.message!r}")


@pytest.mark.parametrize("name", NAMES)
def test_the_hints_name_the_settings_and_where_their_values_came_from(name: str) -> None:
    with ModelServer(said("no", 401)) as server:
        hint = failing(lambda: ask(name, server.root)).hint
    assert f"{KEY_SETTINGS[name]} from environment, ends in ...cdef" in hint
    with ModelServer(said("no such model", 404), listings=()) as server:
        hint = failing(lambda: ask(name, server.root)).hint
    assert f"{MODEL_SETTINGS[name]} (from environment)" in hint
    with ModelServer(Reply(fault="html")) as server:
        hint = failing(lambda: ask(name, server.root)).hint
    assert f"{URL_SETTINGS[name]} (from environment)" in hint
    assert hint.endswith("/v1.") is (name == "openai")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_model_is_answered_with_the_nearest_names(name: str) -> None:
    missing = said("The model does not exist", 404, code="model_not_found")
    with ModelServer(missing, models=["some-modell", "other", "quite-different"]) as server:
        hint = failing(lambda: ask(name, server.root)).hint
    assert "some-modell" in hint
    assert "quite-different" not in hint


BODIES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: f"data: {text}\n\n".encode("utf-8", "replace")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "type", "choices", "delta", "content", "usage", "tool_calls", "index", "function",
                 "name", "arguments", "content_block", "text", "object", "code", "input_tokens", "prompt_tokens"]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=12,
    ).map(lambda value: f"data: {json.dumps(value)}\n\n".encode()),
)  # fmt: skip
KINDS = st.sampled_from(["text/event-stream", "application/json", "text/html", "text/plain; charset=utf-99", ""])
HEADS = st.sampled_from(["content-length: {size}", "transfer-encoding: chunked", "content-encoding: gzip", ""])


@pytest.mark.parametrize("name", NAMES)
@given(status=st.sampled_from([200, 204, 302, 400, 404, 418, 429, 500, 599]), kind=KINDS, head=HEADS, body=BODIES)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_a_server_says_nothing_foreign_escapes(
    name: str, status: int, kind: str, head: str, body: bytes
) -> None:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", head.format(size=len(body))]
    raw = "\r\n".join(line for line in lines if line).encode() + b"\r\n\r\n" + body
    # Anything else than an error of ours fails the test.
    with ModelServer(Reply(raw=raw)) as server, suppress(ProviderError):
        ask(name, server.root, deadline_s=5.0)
