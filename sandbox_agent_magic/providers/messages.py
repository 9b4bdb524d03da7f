"""Anthropic's messages wire format: messages into JSON, and a stream of events into a reply.

As with `chat`, what is written depends on nothing but the messages, and what is read is hostile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..types import JSON, Image, Message, ModelReply, Tool, ToolCall, Usage
from .chat import FENCED_NOTE, count, fenced_message, not_shown, price_of, utf8

CACHE_CONTROL: dict[str, JSON] = {"type": "ephemeral"}
"""Marks the end of what the server's cache shall keep."""

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
"""The API refuses ids and names with other characters; a conversation that another provider began may hold some."""


def tools_json(tools: Sequence[Tool]) -> list[JSON]:
    """The tools of a request."""
    return [{"name": t.name, "description": t.description, "input_schema": dict(t.parameters)} for t in tools]


def system_json(messages: Iterable[Message], *, note: bool = False, cache: bool = True) -> list[JSON]:
    """The system prompt as blocks; tools and it are cached by a mark at its end."""
    text = "\n\n".join(utf8(message.text) for message in messages if message.role == "system" and message.text.strip())
    text = f"{text}\n{FENCED_NOTE}".strip() if note else text
    if not text:
        return []
    return [_marked({"type": "text", "text": text}) if cache else {"type": "text", "text": text}]


def messages_json(
    messages: Iterable[Message], *, fenced: bool = False, images: bool = True, mark_last: bool = False
) -> list[JSON]:
    """The messages of a request, users and assistants in turn; what one side says in a row becomes one message.

    Args:
        messages: the conversation; its system messages are left out.
        fenced: write tool calls as ```python blocks and their results as the user's words, for a server without tools.
        images: whether pictures go along; a line of text stands for them otherwise.
        mark_last: end what is to be cached at the last block.
    """
    made: list[tuple[str, list[JSON]]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, fenced=fenced, images=images)
        if made and made[-1][0] == role:
            made[-1][1].extend(blocks)
        elif blocks:
            made.append((role, blocks))
    if mark_last and made and isinstance(last := made[-1][1][-1], dict):
        made[-1][1][-1] = _marked(last)
    return [{"role": role, "content": blocks} for role, blocks in made]


def _blocks(message: Message, *, fenced: bool, images: bool) -> list[JSON]:
    if fenced:
        text = fenced_message(message)
        return [*_text(text), *_pictures(message.images, images)]
    if message.role == "tool":
        content = [*_text(message.text), *_pictures(message.images, images)]
        result: dict[str, JSON] = {"type": "tool_result", "tool_use_id": _name(message.tool_call_id or "")}
        return [{**result, "content": content}] if content else [result]
    calls: list[JSON] = [
        {"type": "tool_use", "id": _name(c.id), "name": _name(c.name), "input": _input(c.arguments)}
        for c in message.tool_calls
    ]
    return [*_text(message.text), *_pictures(message.images, images), *calls]


def _text(text: str) -> list[JSON]:
    """A block; none where there is only white space, which the API refuses."""
    return [{"type": "text", "text": utf8(text)}] if text.strip() else []


def _pictures(pictures: Sequence[Image], shown: bool) -> list[JSON]:
    if pictures and not shown:
        return _text(not_shown(pictures))
    return [
        {"type": "image", "source": {"type": "base64", "media_type": picture.mimetype, "data": picture.data}}
        for picture in pictures
    ]


def _input(arguments: str) -> JSON:
    """The arguments as an object; text that is none is put into one."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        made: dict[str, JSON] = json.loads(utf8(json.dumps(value, ensure_ascii=False)))
        return made
    return {"invalid_json": utf8(arguments)}


def _name(text: str) -> str:
    return _NOT_IN_A_NAME.sub("_", text)[:128] or "_"


def _marked(block: Mapping[str, JSON]) -> dict[str, JSON]:
    return {**block, "cache_control": CACHE_CONTROL}


# ---- reading ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    input: JSON
    pieces: list[str] = field(default_factory=list)

    def arguments(self) -> str:
        """What came in pieces; a server that does not stream gives the whole input at once."""
        return "".join(self.pieces) or json.dumps(self.input or {}, ensure_ascii=False)


class MessageBuilder:
    """Puts the events of one stream together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._tokens: dict[str, int] = {}
        self._cost: float | None = None
        self._stop_reason = ""
        self.over = False
        """Whether the reply has come to its end."""
        self.seen = False
        """Whether any event was one of a message."""
        self.begun = False
        """Whether a first token came."""
        self.model = ""
        """The model's name that the server says."""

    def feed(self, event: Mapping[str, object]) -> tuple[str, str]:
        """Take one event in; returns its piece of the text and of the model's thinking, both often empty."""
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event.get("index"), event.get("delta"))
            case "content_block_start":
                return self._block(event.get("index"), event.get("content_block"))
            case "message_start":
                self._head(event.get("message"))
            case "message_delta":
                self._head({**_dict(event.get("delta")), "usage": event.get("usage")})
            case "message_stop":
                self.over = True
            case "message":  # a server that does not stream
                content = event.get("content")
                blocks = enumerate(content if isinstance(content, list) else [])
                pieces = [self._block(number, block) for number, block in blocks]
                self._head(event)
                self.over = True
                return "".join(text for text, _ in pieces), "".join(thought for _, thought in pieces)
        return "", ""

    def rest(self) -> tuple[str, str]:
        """Nothing is held back."""
        return "", ""

    def _head(self, message: object) -> None:
        """What an event says of the message as a whole. Counts are those of the message so far, not of the event."""
        fields = _dict(message)
        self.seen = True
        self.model = _string(fields.get("model")) or self.model
        reason = fields.get("stop_reason")
        if isinstance(reason, str) and reason:
            self._stop_reason = reason
        usage = _dict(fields.get("usage"))
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"):
            # A proxy may begin with zeros and know better at the end, or count only at the beginning.
            self._tokens[name] = count(usage.get(name)) or self._tokens.get(name, 0)
        cost = price_of(usage.get("cost"))
        self._cost = cost if cost is not None else self._cost

    def _block(self, index: object, block: object) -> tuple[str, str]:
        fields = _dict(block)
        text, thought = _string(fields.get("text")), _string(fields.get("thinking"))
        if fields.get("type") == "tool_use":
            slot = index if isinstance(index, int) else len(self._calls)
            made = json.loads(json.dumps(fields.get("input"), default=str))
            self._calls[slot] = _Call(_string(fields.get("id")), _string(fields.get("name")), made)
            self.begun = True
        return self._said(text, thought)

    def _delta(self, index: object, delta: object) -> tuple[str, str]:
        fields = _dict(delta)
        partial = fields.get("partial_json")
        if isinstance(partial, str):
            call = self._calls.get(index if isinstance(index, int) else -1)
            if call is not None:
                call.pieces.append(partial)
            return "", ""
        return self._said(_string(fields.get("text")), _string(fields.get("thinking")))

    def _said(self, text: str, thought: str) -> tuple[str, str]:
        self.begun = self.begun or bool(text or thought)
        if text:
            self._text.append(text)
        return text, thought

    def reply(self, *, earlier_calls: int) -> ModelReply:
        """The whole reply.

        Args:
            earlier_calls: tool calls that the conversation has already; made-up ids count on from there.
        """
        numbered = enumerate(self._calls.values(), earlier_calls + 1)
        calls = tuple(ToolCall(call.id or f"call_{number}", call.name, call.arguments()) for number, call in numbered)
        reason = _FINISH_REASONS.get(self._stop_reason, self._stop_reason) or "stop"
        if calls and reason == "stop":
            reason = "tool_calls"
        return ModelReply("".join(self._text), calls, reason, self._usage())

    def _usage(self) -> Usage:
        tokens = self._tokens
        read, written = tokens.get("cache_read_input_tokens", 0), tokens.get("cache_creation_input_tokens", 0)
        # Unlike OpenAI, the service does not count cached tokens among the input.
        return Usage(
            input_tokens=tokens.get("input_tokens", 0) + read + written,
            cached_tokens=read,
            output_tokens=tokens.get("output_tokens", 0),
            cost_usd=self._cost,
            cache_write_tokens=written,
        )


def _dict(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
