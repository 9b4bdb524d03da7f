"""How a reply of the test server is written in each protocol, event by event."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model_server import Reply

Call = tuple[str, str, str]
"""Id, name and arguments."""


def events(path: str, reply: Reply, request: Mapping[str, object]) -> list[str]:
    """The lines of each event of a well-formed stream, or of the events that the reply names."""
    anthropic = path.endswith("/v1/messages")
    if reply.events is not None:
        given = [_named(event) if anthropic else _plain(event) for event in reply.events]
        return given if anthropic or reply.fault else [*given, "data: [DONE]"]
    text, calls = _content(reply, request)
    if anthropic:
        return [_named(event) for event in _message(text, calls, reply)]
    return [*(_plain(event) for event in _chat(text, calls, reply, request)), "data: [DONE]"]


def _plain(event: object) -> str:
    return f"data: {json.dumps(event)}"


def _named(event: object) -> str:
    kind = event.get("type", "error") if isinstance(event, dict) else "error"
    return f"event: {kind}\ndata: {json.dumps(event)}"


def _content(reply: Reply, request: Mapping[str, object]) -> tuple[str, list[Call]]:
    """The text and the calls; code goes into a call where tools were offered, into the text otherwise."""
    text, calls = reply.text, list(reply.tool_calls)
    if reply.code is not None and request.get("tools"):
        calls.append((f"call_{zlib.crc32(reply.code.encode()):08x}", "python", json.dumps({"code": reply.code})))
    elif reply.code is not None:
        text = f"{text}\n```python\n{reply.code}\n```".lstrip()
    return text, calls


def _chat(text: str, calls: list[Call], reply: Reply, request: Mapping[str, object]) -> Iterator[object]:
    def event(delta: object, reason: str | None = None) -> object:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"id": "c", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice]}

    yield event({"role": "assistant", "content": ""})
    for piece in _pieces(text, reply.chunks):
        yield event({"content": piece})
    for index, (id_, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        yield event({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]})
        for part in _parts(arguments):
            yield event({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield event({}, reply.finish_reason or ("tool_calls" if calls else "stop"))
    if request.get("stream_options"):
        yield {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": reply.usage}


def _message(text: str, calls: list[Call], reply: Reply) -> Iterator[dict[str, object]]:
    usage = {"input_tokens": reply.usage.get("prompt_tokens", 0), "output_tokens": 1}
    head = {"id": "m", "type": "message", "role": "assistant", "model": "scripted", "content": [], "usage": usage}
    yield {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None}}
    yield {"type": "ping"}
    index = 0
    if text:
        yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        for piece in _pieces(text, reply.chunks):
            yield {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}}
        yield {"type": "content_block_stop", "index": index}
        index += 1
    for index, (id_, name, arguments) in enumerate(calls, index):  # noqa: B020  (goes on counting)
        block = {"type": "tool_use", "id": id_, "name": name, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for part in _parts(arguments):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    reason = reply.finish_reason or ("tool_use" if calls else "end_turn")
    end = {"output_tokens": reply.usage.get("completion_tokens", 0)}
    yield {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": end}
    yield {"type": "message_stop"}


def _parts(arguments: str) -> list[str]:
    return [arguments[start : start + 16] for start in range(0, len(arguments), 16)]


def _pieces(text: str, count: int) -> list[str]:
    if not count:
        return [word + " " for word in text.split(" ")[:-1]] + [text.split(" ")[-1]] if text else []
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]
