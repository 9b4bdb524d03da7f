"""The Anthropic provider against a loopback server: what is sent, what is read, what is learned."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from sandbox_agent_magic.errors import ProviderError
from sandbox_agent_magic.providers.anthropic import MAX_OUTPUT_TOKENS, AnthropicProvider
from sandbox_agent_magic.providers.asked import Server, SettingNames
from sandbox_agent_magic.types import Image, Message, ModelReply, ModelRequest, Tool, ToolCall, Usage
from tests.support.model_server import ModelServer, Reply

KEY = "sk-ant-0123456789abcdef"
PYTHON = Tool("python", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})
QUESTION = (Message("system", "You help."), Message("user", "What is 1 + 1?"))
PICTURE = Image("image/png", "AAAA")


def provider(server: ModelServer) -> AnthropicProvider:
    names = SettingNames("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
    return AnthropicProvider(model="m", server=Server(server.root, KEY, names, trust_env=False))


def ask(
    server: ModelServer,
    messages: Sequence[Message] = QUESTION,
    *,
    on_text: Callable[[str], None] = lambda text: None,
    on_reasoning: Callable[[str], None] = lambda text: None,
    max_output_tokens: int | None = None,
) -> ModelReply:
    asked = provider(server)
    request = ModelRequest(tuple(messages), (PYTHON,), 0.03, max_output_tokens, deadline_s=10)
    try:
        return asked.complete(request, on_text=on_text, on_reasoning=on_reasoning)
    finally:
        asked.close()


def start(**usage: int) -> dict[str, object]:
    return {"type": "message_start", "message": {"role": "assistant", "model": "m", "usage": usage}}


def block(index: int, **content: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **fields: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def end(reason: str = "end_turn", **usage: int) -> list[dict[str, object]]:
    return [{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}, {"type": "message_stop"}]


# ---- a reply ----------------------------------------------------------------------------------------------------


def test_text_is_passed_on_piece_by_piece_and_returned_whole() -> None:
    pieces: list[str] = []
    with ModelServer([Reply("one two three")]) as server:
        reply = ask(server, on_text=pieces.append)
    assert pieces == ["one ", "two ", "three"]
    assert reply == ModelReply("one two three", (), "stop", Usage(20, 0, 10))


def test_parallel_tool_calls_keep_their_order_and_their_arguments() -> None:
    calls = [("a", "python", '{"code": "1"}'), ("b", "python", '{"code": "print(2)\\nprint(3)"}')]
    with ModelServer([Reply("See:", tool_calls=calls)]) as server:
        reply = ask(server)
    assert [(call.id, json.loads(call.arguments)) for call in reply.tool_calls] == [
        ("a", {"code": "1"}),
        ("b", {"code": "print(2)\nprint(3)"}),
    ]
    assert (reply.text, reply.finish_reason) == ("See:", "tool_calls")


def test_thinking_is_passed_on_as_such_and_is_no_part_of_the_reply() -> None:
    events = [
        start(input_tokens=5),
        block(0, type="thinking", thinking=""),
        delta(0, type="thinking_delta", thinking="Let me "),
        delta(0, type="thinking_delta", thinking="see."),
        delta(0, type="signature_delta", signature="xyz"),
        block(1, type="text", text=""),
        delta(1, type="text_delta", text="Two."),
        *end(output_tokens=7),
    ]
    text: list[str] = []
    thoughts: list[str] = []
    with ModelServer([Reply(events=events)]) as server:
        reply = ask(server, on_text=text.append, on_reasoning=thoughts.append)
    assert (text, thoughts) == (["Two."], ["Let me ", "see."])
    assert reply.text == "Two."


def test_cached_tokens_are_counted_among_those_that_were_read() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 90, "output_tokens": 1}
    events = [start(**usage), block(0, type="text", text="ok"), *end(output_tokens=7)]
    with ModelServer([Reply(events=events)]) as server:
        assert ask(server).usage == Usage(1_000, 900, 7, cache_write_tokens=90)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("stop_sequence", "stop"),
        ("something_new", "something_new"),
    ],
)
def test_why_a_reply_ended_is_put_into_our_words(said: str, meant: str) -> None:
    with ModelServer([Reply("a", finish_reason=said)]) as server:
        assert ask(server).finish_reason == meant


def test_a_server_that_does_not_stream_is_understood_too() -> None:
    content = [
        {"type": "text", "text": "whole"},
        {"type": "tool_use", "id": "a", "name": "python", "input": {"code": "1"}},
    ]
    body = {"type": "message", "content": content, "stop_reason": "tool_use", "usage": {"input_tokens": 3}}
    with ModelServer([Reply(body=body)]) as server:
        reply = ask(server)
    assert reply.text == "whole"
    assert reply.tool_calls == (ToolCall("a", "python", '{"code": "1"}'),)


def test_nonsense_in_a_stream_does_no_harm() -> None:
    events = [
        start(input_tokens=-5),
        {"type": "message_start", "message": 5},
        {"type": "ping"},
        {"type": "news"},
        {"no": "type"},
        block(0, type="text"),
        {"type": "content_block_start", "index": "x", "content_block": None},
        delta(7, type="input_json_delta", partial_json="lost"),
        delta(0, type="text_delta", text=5),
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "message_delta", "delta": None, "usage": "many"},
        delta(0, type="text_delta", text="fine"),
        *end(),
    ]
    with ModelServer([Reply(events=events)]) as server:
        assert ask(server).text == "fine"


# ---- a request --------------------------------------------------------------------------------------------------


def called(id_: str, text: str, *images: Image, arguments: str = '{"code": "1"}') -> tuple[Message, Message]:
    call = ToolCall(id_, "python", arguments)
    return Message("assistant", "", tool_calls=(call,)), Message("tool", text, images, tool_call_id=id_)


def test_what_is_sent_is_what_the_service_documents() -> None:
    with ModelServer([Reply("ok")]) as server:
        ask(server, (*QUESTION, *called("a", "2\n", PICTURE)))
        body, headers = server.seen[0].json, server.seen[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["anthropic-version"]
    assert body == {
        "model": "m",
        "stream": True,
        "cache_control": {"type": "ephemeral"},
        "temperature": 0.03,
        "tools": [{"name": "python", "description": "Runs code.", "input_schema": PYTHON.parameters}],
        "max_tokens": MAX_OUTPUT_TOKENS,
        "system": [{"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is 1 + 1?"}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "a", "name": "python", "input": {"code": "1"}}],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [
                            {"type": "text", "text": "2\n"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        ],
                    }
                ],
            },
        ],
    }


def test_each_request_of_a_conversation_is_a_byte_identical_prefix_of_the_next() -> None:
    conversation: tuple[Message, ...] = QUESTION
    with ModelServer(Reply("And now?", code="print('ü')")) as server:
        asked = provider(server)
        for turn in range(5):
            reply = asked.complete(ModelRequest(conversation, (PYTHON,), 0.03), on_text=lambda text: None)
            calls = tuple(ToolCall(f"{c.id}-{turn}", c.name, c.arguments) for c in reply.tool_calls)
            conversation += (Message("assistant", reply.text, tool_calls=calls),)
            conversation += (Message("tool", "ü\n", (PICTURE,), tool_call_id=calls[0].id),)
        asked.close()
        bodies = [seen.raw for seen in server.seen]
        assert server.connections == 1
    assert len(bodies) == 5
    for earlier, later in itertools.pairwise(bodies):
        assert later.startswith(earlier.removesuffix(b"]}"))


def test_one_side_speaks_once_and_empty_text_is_left_out() -> None:
    conversation = (
        *QUESTION,
        Message("user", " \n"),
        Message("assistant", "", tool_calls=(ToolCall("a", "python", "{}"), ToolCall("b", "python", "{}"))),
        Message("tool", "one", tool_call_id="a"),
        Message("tool", "", tool_call_id="b"),
        Message("user", "Go on."),
    )
    with ModelServer([Reply("ok")]) as server:
        ask(server, conversation)
        messages = server.seen[0].json["messages"]
    assert isinstance(messages, list)
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [part["type"] for part in messages[-1]["content"]] == ["tool_result", "tool_result", "text"]
    assert '"text": ""' not in json.dumps(messages)


def test_a_conversation_that_another_provider_began_can_go_on_here() -> None:
    odd = called("functions.python:0", "broken", arguments='{"code": "pri')
    undecodable = Message("user", "undecodable: \udcff")
    with ModelServer([Reply("ok")]) as server:
        ask(server, (*QUESTION, *odd, undecodable))
        messages = server.seen[0].json["messages"]
    assert isinstance(messages, list)
    use, result = messages[1]["content"][0], messages[2]["content"][0]
    assert use["id"] == result["tool_use_id"] == "functions_python_0"
    assert use["input"] == {"invalid_json": '{"code": "pri'}
    assert messages[2]["content"][1]["text"] == "undecodable: ?"


def test_the_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-of-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Secret: of-the-environment\nAuthorization: of-the-environment")
    monkeypatch.setenv("ANTHROPIC_PROFILE", "of-the-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ModelServer([Reply("ok")]) as server:
        ask(server)
        assert "of-the-environment" not in str(server.seen[0].headers)


def test_importing_the_provider_imports_no_sdk() -> None:
    code = "import sys, sandbox_agent_magic.providers.anthropic; print({'anthropic', 'httpx2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_the_models_are_listed_and_one_that_is_not_there_is_answered_with_the_nearest() -> None:
    missing = Reply(status=404, body={"type": "error", "error": {"type": "not_found_error", "message": "model: m"}})
    with ModelServer(missing, models=["claude-one", "m2"]) as server:
        assert list(provider(server).models()) == ["claude-one", "m2"]
        with pytest.raises(ProviderError) as caught:
            ask(server)
    assert "Nearest there: m2" in caught.value.hint


# ---- what a server refuses is learned once ----------------------------------------------------------------------


def refusing(*words: str) -> Callable[[dict[str, object]], Reply]:
    """A server that refuses a request in which any of these words stands, as strict ones do."""

    def choose(request: dict[str, object]) -> Reply:
        for word in words:
            if f'"{word}"' in json.dumps(request):
                error = {"type": "invalid_request_error", "message": f"{word}: Extra inputs are not permitted"}
                return Reply(status=400, body={"type": "error", "error": error})
        return Reply("ok")

    return choose


def test_a_server_without_prompt_caching_is_asked_with_marks_and_then_without() -> None:
    with ModelServer(refusing("cache_control")) as server:
        assert ask(server).text == "ok"
        ask(server)
        bodies = [seen.json for seen in server.seen]
    assert len(bodies) == 4
    assert "cache_control" not in bodies[1]
    assert bodies[1]["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}  # type: ignore[index]
    assert "cache_control" not in json.dumps(bodies[2:])


@pytest.mark.parametrize("word", ["temperature", "tools", "image"])
def test_refused_parameters_are_left_out_and_that_is_learned_once(word: str) -> None:
    with ModelServer(refusing(word)) as server:
        assert ask(server, (*QUESTION, *called("a", "2", PICTURE))).text == "ok"
        ask(server, (*QUESTION, *called("a", "2", PICTURE)))
        assert len(server.seen) == 3
        assert server.seen[1].raw == server.seen[2].raw


def test_the_most_that_a_model_can_write_is_learned_from_its_refusal() -> None:
    message = f"max_tokens: {MAX_OUTPUT_TOKENS} > 8192, which is the maximum allowed number of output tokens for m"

    def choose(request: dict[str, object]) -> Reply:
        if request["max_tokens"] > 8192:  # type: ignore[operator]
            return Reply(status=400, body={"error": {"type": "invalid_request_error", "message": message}})
        return Reply("ok")

    with ModelServer(choose) as server:
        ask(server)
        ask(server)
        ask(server, max_output_tokens=100)
        assert [seen.json["max_tokens"] for seen in server.seen] == [MAX_OUTPUT_TOKENS, 8192, 8192, 100]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
