"""The OpenAI provider against a loopback server: what is sent, what is read, and how each mishap looks."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import pytest

from sandbox_agent_magic.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderRateLimited,
    ProviderReplyInvalid,
    ProviderTimeout,
    ProviderUnavailable,
)
from sandbox_agent_magic.providers.asked import Server
from sandbox_agent_magic.providers.openai import OpenAIProvider
from sandbox_agent_magic.types import Image, Message, ModelReply, ModelRequest, ModelTraits, Tool, ToolCall, Usage
from tests.support.model_server import ModelServer, Reply

KEY = "sk-test-0123456789abcdef"
PYTHON = Tool("python", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})
QUESTION = (Message("system", "You help."), Message("user", "What is 1 + 1?"))
CALLED = (
    *QUESTION,
    Message("assistant", "Let me see.", tool_calls=(ToolCall("call_1", "python", '{"code": "print(1 + 1)"}'),)),
    Message("tool", "2\n", tool_call_id="call_1"),
)


def provider(server: ModelServer, *, key: str = KEY, images: bool = True) -> OpenAIProvider:
    traits = ModelTraits(images=images)
    at = Server(server.url, key, sources={"OPENAI_API_KEY": ".env"}, trust_env=False)
    return OpenAIProvider(name="openai", model="m", server=at, traits=traits)


def ask(
    server: ModelServer,
    messages: Sequence[Message] = QUESTION,
    *,
    tools: Sequence[Tool] = (PYTHON,),
    temperature: float | None = 0.03,
    max_output_tokens: int | None = None,
    deadline_s: float = 10.0,
    on_text: Callable[[str], None] = lambda text: None,
) -> ModelReply:
    request = ModelRequest(tuple(messages), tuple(tools), temperature, max_output_tokens, deadline_s)
    asked = provider(server)
    try:
        return asked.complete(request, on_text=on_text)
    finally:
        asked.close()


def sent(server: ModelServer, number: int = -1) -> list[dict[str, object]]:
    """The messages of a request that the server saw."""
    messages = server.seen[number].json["messages"]
    assert isinstance(messages, list)
    return messages


def chunk(delta: object, reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(**fields: object) -> dict[str, object]:
    return {"tool_calls": [fields]}


# ---- a reply ----------------------------------------------------------------------------------------------------


def test_text_is_passed_on_piece_by_piece_and_returned_whole() -> None:
    pieces: list[str] = []
    with ModelServer([Reply("one two three")]) as server:
        reply = ask(server, on_text=pieces.append)
    assert pieces == ["one ", "two ", "three"]
    assert reply == ModelReply("one two three", (), "stop", Usage(20, 0, 10))


def test_a_tool_call_that_comes_in_pieces_is_put_together() -> None:
    with ModelServer([Reply("Computing.", code="print('hi ✓')\n" * 20)]) as server:
        reply = ask(server)
    assert reply.text == "Computing."
    assert reply.finish_reason == "tool_calls"
    assert json.loads(reply.tool_calls[0].arguments) == {"code": "print('hi ✓')\n" * 20}


def test_parallel_calls_keep_their_own_arguments() -> None:
    calls = [("a", "python", '{"code": "1"}'), ("b", "python", '{"code": "2"}')]
    with ModelServer([Reply(tool_calls=calls)]) as server:
        reply = ask(server)
    assert reply.tool_calls == (ToolCall("a", "python", '{"code": "1"}'), ToolCall("b", "python", '{"code": "2"}'))


F1, G2 = {"name": "f", "arguments": "1"}, {"name": "g", "arguments": "2"}
ODD_CALLS = {
    "all calls are numbered 0": [call(index=0, id="a", function=F1), call(index=0, id="b", function=G2)],
    "no call is numbered": [call(id="a", function=F1), call(id="b", function=G2)],
    "arguments are null at first, and the id comes twice": [
        call(index=0, id="a", function={"name": "f", "arguments": None}),
        call(index=0, id="a", function=F1),
        call(index=1, id="b", function={"name": "g"}),
        call(index=1, function={"arguments": "2"}),
    ],
}


@pytest.mark.parametrize("deltas", ODD_CALLS.values(), ids=ODD_CALLS)
def test_servers_that_number_calls_badly_are_understood(deltas: Sequence[object]) -> None:
    with ModelServer([Reply(events=[*map(chunk, deltas), chunk({}, "tool_calls")])]) as server:
        reply = ask(server)
    assert reply.tool_calls == (ToolCall("a", "f", "1"), ToolCall("b", "g", "2"))


def test_a_call_without_an_id_gets_one_that_is_the_same_each_time_and_new_in_the_conversation() -> None:
    events = [chunk(call(index=0, id=None, function={"name": "python", "arguments": "{}"})), chunk({}, "stop")]
    with ModelServer(Reply(events=events)) as server:
        first, second, later = ask(server), ask(server), ask(server, CALLED)
    assert first.tool_calls[0].id == second.tool_calls[0].id == "call_1"
    assert later.tool_calls[0].id == "call_2"


def test_an_empty_reply_is_a_reply() -> None:
    with ModelServer([Reply("")]) as server:
        assert ask(server) == ModelReply("", (), "stop", Usage(20, 0, 10))


def test_tokens_cached_tokens_and_cost_are_read_also_from_a_chunk_with_a_choice() -> None:
    usage = {
        "prompt_tokens": 120,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 100},
        "cost": 0.25,
    }
    events = [chunk({"content": "ok"}), {**chunk({}, "stop"), "usage": usage}]
    with ModelServer([Reply(events=events)]) as server:
        assert ask(server).usage == Usage(120, 100, 7, 0.25)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_passed_on_as_such_and_is_no_part_of_the_reply(field: str) -> None:
    events = [chunk({field: "Let me "}), chunk({field: "see."}), chunk({"content": "Two."}), chunk({}, "stop")]
    text: list[str] = []
    thoughts: list[str] = []
    with ModelServer([Reply(events=events)]) as server:
        asked = provider(server)
        reply = asked.complete(ModelRequest(QUESTION), on_text=text.append, on_reasoning=thoughts.append)
        asked.close()
    assert (text, thoughts, reply.text) == (["Two."], ["Let me ", "see."], "Two.")


@pytest.mark.parametrize("where", ["text", "pieces", "arguments"])
def test_a_server_that_says_our_key_back_does_not_get_it_into_the_reply(where: str) -> None:
    pieces = [KEY[:7], KEY[7:15], f"{KEY[15:]} and ", KEY[:9], "x"] if where == "pieces" else [f"It is {KEY}!", KEY]
    events = [chunk({"content": piece}) for piece in pieces]
    if where == "arguments":
        function = {"name": "python", "arguments": json.dumps({"code": f"print('{KEY}')"})}
        events = [chunk(call(index=0, id="a", function=function))]
    shown: list[str] = []
    with ModelServer([Reply(events=[*events, chunk({}, "stop")])]) as server:
        reply = ask(server, on_text=shown.append)
    assert KEY not in reply.text + "".join(shown) + repr(reply)
    assert "***" in repr(reply)
    if where == "pieces":
        assert reply.text == "".join(shown) == f"*** and {KEY[:9]}x"


def test_nonsense_in_a_stream_does_no_harm() -> None:
    events = [
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": "x", "usage": "y"},
        chunk(None),
        chunk({"content": 5, "tool_calls": {"a": 1}}),
        chunk({"tool_calls": [None, 5]}),
        {"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": "many", "cost": True}},
        chunk({"content": "fine"}, "stop"),
    ]
    with ModelServer([Reply(events=events)]) as server:
        assert ask(server).text == "fine"


def test_a_server_that_does_not_stream_is_understood_too() -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]}
    with ModelServer([Reply(body=body)]) as server:
        assert ask(server).text == "whole"


def test_the_cost_of_a_whole_reply_is_read_from_litellms_header() -> None:
    message = {"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    body = {"choices": [message], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    headers = {"x-litellm-version": "1.102.4", "x-litellm-response-cost": "0.0125"}
    with ModelServer([Reply(body=body, headers=headers)]) as server:
        assert ask(server).usage == Usage(3, 0, 1, 0.0125)


def test_an_alias_of_a_proxy_is_priced_as_the_model_behind_it() -> None:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
    headers = {"x-litellm-version": "1.102.4", "x-litellm-model-name": "openai/gpt-4o"}
    with ModelServer([Reply("ok", usage=usage, headers=headers)]) as server:
        cost = ask(server).usage.cost_usd
    assert cost is not None
    assert 1 < cost < 5


# ---- a request --------------------------------------------------------------------------------------------------


def test_each_request_of_a_conversation_is_a_byte_identical_prefix_of_the_next() -> None:
    conversation: tuple[Message, ...] = QUESTION
    with ModelServer(Reply("And now?", code="print('ü')")) as server:
        asked = provider(server)
        for turn in range(6):
            reply = asked.complete(ModelRequest(conversation, (PYTHON,), 0.03), on_text=lambda text: None)
            calls = tuple(ToolCall(f"{c.id}-{turn}", c.name, c.arguments) for c in reply.tool_calls)
            conversation += (Message("assistant", reply.text, tool_calls=calls),)
            conversation += (Message("tool", "ü\n", (Image("image/png", "AAAA"),), tool_call_id=calls[0].id),)
        asked.close()
        bodies = [seen.raw for seen in server.seen]
        assert server.connections == 1
    for earlier, later in itertools.pairwise(bodies):
        assert later.startswith(earlier.removesuffix(b"]}"))


def test_pictures_of_a_tool_follow_as_a_users_message_after_the_last_result() -> None:
    calls = (ToolCall("a", "python", "{}"), ToolCall("b", "python", "{}"))
    picture = Image("image/png", "AAAA")
    conversation = (
        *QUESTION,
        Message("assistant", "", tool_calls=calls),
        Message("tool", "one", (picture,), tool_call_id="a"),
        Message("tool", "two", tool_call_id="b"),
    )
    with ModelServer([Reply("ok")]) as server:
        ask(server, conversation)
        messages = sent(server)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}} in messages[-1]["content"]  # type: ignore[operator]


def test_no_picture_goes_to_a_model_that_cannot_see() -> None:
    messages = (Message("user", "look", (Image("image/png", "AAAA"),)),)
    with ModelServer([Reply("ok")]) as server:
        provider(server, images=False).complete(ModelRequest(messages), on_text=lambda text: None)
        assert b"AAAA" not in server.seen[0].raw


def test_arguments_that_are_not_json_and_bytes_that_are_not_text_can_be_sent_back() -> None:
    conversation = (
        Message("user", "undecodable: \udcff"),
        Message("assistant", "", tool_calls=(ToolCall("a", "python", '{"code": "pri'),)),
        Message("tool", "broken", tool_call_id="a"),
    )
    with ModelServer([Reply("ok")]) as server:
        ask(server, conversation)
        function = sent(server)[1]["tool_calls"][0]["function"]  # type: ignore[index]
        assert json.loads(function["arguments"]) == {"invalid_json": '{"code": "pri'}
        assert sent(server)[0]["content"] == "undecodable: ?"


def test_the_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-environment")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-of-the-environment")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "Authorization: Bearer of-the-environment\nX-Secret: of-the-environment"
    )
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ModelServer([Reply("ok")]) as server:
        ask(server)
        headers = server.seen[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "of-the-environment" not in str(headers)


def test_importing_the_provider_imports_no_sdk() -> None:
    code = "import sys, sandbox_agent_magic.providers.openai; print({'openai', 'httpx2', 'anyio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


# ---- what a server refuses is learned once ----------------------------------------------------------------------


def test_without_tools_the_conversation_goes_on_in_fenced_blocks_and_that_is_learned_once() -> None:
    with ModelServer(Reply("Computing.", code="print(2)"), refuse=["tools"]) as server:
        first = ask(server, CALLED)
        ask(server, CALLED)
        assert len(server.seen) == 3
        assert "tools" in server.seen[0].json
        assert "tools" not in server.seen[1].json
        assert server.seen[1].raw == server.seen[2].raw
        messages = sent(server)
    assert first.text == "Computing.\n```python\nprint(2)\n```"
    assert messages[2] == {"role": "assistant", "content": "Let me see.\n```python\nprint(1 + 1)\n```"}
    assert messages[3] == {"role": "user", "content": "Output:\n2\n"}
    assert "```python" in str(messages[0]["content"])


def test_code_that_holds_a_fence_is_fenced_by_a_longer_one() -> None:
    call_ = ToolCall("a", "python", json.dumps({"code": 's = """```"""'}))
    with ModelServer(Reply("ok"), refuse=["tools"]) as server:
        ask(server, (*QUESTION, Message("assistant", "", tool_calls=(call_,)), Message("tool", "", tool_call_id="a")))
        assert sent(server)[2]["content"] == '````python\ns = """```"""\n````'


def test_refused_parameters_are_left_out_or_renamed_one_after_the_other() -> None:
    with ModelServer(Reply("ok"), refuse=["temperature", "stream_options", "max_tokens"]) as server:
        assert ask(server, max_output_tokens=100).text == "ok"
        assert len(server.seen) == 4
        body = server.seen[-1].json
        ask(server, max_output_tokens=100)
        assert len(server.seen) == 5
    assert body["max_completion_tokens"] == 100
    assert {"tools", "messages", "stream", "model"} < set(body)
    assert not {"temperature", "stream_options", "max_tokens"} & set(body)


def test_a_server_that_cannot_see_pictures_gets_none_from_then_on() -> None:
    def choose(request: dict[str, object]) -> Reply:
        if "image_url" in json.dumps(request):
            return Reply(status=400, body={"error": {"message": "unknown variant `image_url`, expected `text`"}})
        return Reply("ok")

    with ModelServer(choose) as server:
        assert ask(server, (Message("user", "look", (Image("image/png", "AAAA"),)),)).text == "ok"
        assert len(server.seen) == 2


def test_a_bad_value_of_a_parameter_is_an_error_and_is_not_dropped_in_silence() -> None:
    error = {"message": "Invalid 'temperature': decimal above maximum value.", "param": "temperature"}
    with ModelServer(Reply(status=400, body={"error": error})) as server:
        with pytest.raises(ProviderError, match="refused the request"):
            ask(server, temperature=9.0)
        assert len(server.seen) == 1


# ---- mishaps ----------------------------------------------------------------------------------------------------


MISHAPS: dict[str, tuple[Reply, type[ProviderError], bool]] = {
    "a page": (Reply(fault="html"), ProviderReplyInvalid, False),
    "bad JSON": (Reply("a b c d", fault="bad_json"), ProviderReplyInvalid, False),
    "an event that is no object": (Reply(events=[5]), ProviderReplyInvalid, False),
    "a page with status 502": (Reply(status=502, body="<title>Bad Gateway</title>"), ProviderUnavailable, True),
    "no choice at all": (Reply(events=[{"choices": []}]), ProviderReplyInvalid, False),
    "other JSON": (Reply(body={"hello": "world"}), ProviderReplyInvalid, False),
    "cut off": (Reply("a b c d", fault="cut"), ProviderUnavailable, True),
    "ended early": (Reply("a b c d", fault="end_early"), ProviderUnavailable, True),
    "reset": (Reply("a b c d", fault="reset"), ProviderUnavailable, True),
    "error event": (Reply(events=[{"error": {"message": "it died", "code": "500"}}]), ProviderUnavailable, True),
    "error event after some text": (
        Reply(events=[chunk({"content": "a"}), {"error": {"message": "slow down", "code": 429}}]),
        ProviderRateLimited,
        True,
    ),
    "error event of vLLM": (
        Reply(events=[{"object": "error", "message": "busy", "code": 503}]),
        ProviderUnavailable,
        True,
    ),
    "redirect": (Reply(status=301, headers={"Location": "http://127.0.0.1:9/"}), ProviderUnavailable, False),
    "error with status 200": (Reply(body={"error": {"message": "Invalid API key"}}), ProviderAuthError, False),
}


@pytest.mark.parametrize(("reply", "error", "retryable"), MISHAPS.values(), ids=MISHAPS)
def test_a_mishap_becomes_the_right_error(reply: Reply, error: type[ProviderError], retryable: bool) -> None:
    with ModelServer([reply]) as server, pytest.raises(error) as caught:
        ask(server)
    assert caught.value.retryable is retryable
    assert len(caught.value.lines()) == 3


def test_nobody_listens_there() -> None:
    server = ModelServer(Reply("never"))
    server.close()
    with pytest.raises(ProviderUnavailable, match="refused") as caught:
        ask(server)
    assert not caught.value.retryable
    assert "OPENAI_BASE_URL" in caught.value.hint


@pytest.mark.parametrize(
    "reply",
    [
        Reply("a b c d e f", fault="hang"),
        Reply("word " * 60, delay_s=0.1),
        Reply(fault="hang", events=[]),
    ],
    ids=["silence after some words", "drips", "silence after the headers"],
)
def test_no_server_can_take_longer_than_the_deadline(reply: Reply) -> None:
    begun = time.monotonic()
    with ModelServer([reply]) as server, pytest.raises(ProviderTimeout, match="REQUEST_TIMEOUT"):
        ask(server, deadline_s=1.0)
    assert 0.9 < time.monotonic() - begun < 2.0


def test_a_stream_that_is_complete_but_never_closed_is_not_waited_for() -> None:
    begun = time.monotonic()
    with ModelServer([Reply("all said", fault="no_end")]) as server:
        assert ask(server).text == "all said"
    assert time.monotonic() - begun < 2.0


def test_a_reply_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_agent_magic.providers.transport.MAX_REPLY_BYTES", 100_000)
    with ModelServer([Reply("x" * 200_000)]) as server, pytest.raises(ProviderReplyInvalid, match="longer than"):
        ask(server)


def test_ctrl_c_while_the_server_is_silent_returns_at_once_and_closes_the_connection() -> None:
    with ModelServer([Reply("a b c", fault="hang")]) as server:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        begun = time.monotonic()
        asked = provider(server)
        with pytest.raises(KeyboardInterrupt):
            asked.complete(ModelRequest(QUESTION, deadline_s=30.0), on_text=lambda text: None)
        assert time.monotonic() - begun < 1.5
        assert wait_until(lambda: not server.open_connections())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_what_our_own_hook_raises_comes_through_as_it_is(error: type[BaseException]) -> None:
    def fail(text: str) -> None:
        raise error("ours")

    with ModelServer([Reply("a b c")]) as server, pytest.raises(error, match="ours"):
        ask(server, on_text=fail)


def test_the_models_of_a_server_are_listed() -> None:
    with ModelServer(Reply(), models=["a", "b"]) as server:
        assert list(provider(server).models()) == ["a", "b"]


# ---- secrets ----------------------------------------------------------------------------------------------------

BAD_KEYS = {"newline": "sk-line-one-secret\nline-two-secret", "not ascii": "sk-schlüssel-secret", "spaces": "  \t "}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_that_cannot_be_a_header_is_an_error_that_does_not_show_it(key: str) -> None:
    with ModelServer([Reply(status=401)]) as server, pytest.raises(ProviderAuthError) as caught:
        provider(server, key=key).complete(ModelRequest(QUESTION), on_text=lambda text: None)
    assert_no_secret(caught.value, "secret")


def test_an_error_that_quotes_the_key_is_shown_without_it() -> None:
    said = f"Incorrect API key provided: {KEY}, first part {KEY[:12]}, last {KEY[-9:]}, other sk-other_0123456789."
    refusal = Reply(status=401, body={"error": {"message": said}})
    with ModelServer([refusal]) as server, pytest.raises(ProviderAuthError) as caught:
        ask(server)
    assert_no_secret(caught.value, KEY[:12], KEY[-9:], "sk-other_0123456789")
    assert "OPENAI_API_KEY from .env, ends in ...cdef" in caught.value.hint


def test_the_representation_has_no_key() -> None:
    with ModelServer(Reply()) as server:
        assert KEY not in repr(provider(server))


def assert_no_secret(error: BaseException, *secrets: str) -> None:
    """Neither the error nor anything that a traceback prints along with it holds a secret."""
    printed = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert error.__context__ is None
    assert error.__cause__ is None
    for secret in secrets:
        assert secret not in printed


def wait_until(true: Callable[[], bool], timeout_s: float = 3.0) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return true()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
