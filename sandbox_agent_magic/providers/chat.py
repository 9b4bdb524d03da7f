"""The chat-completions wire format: messages into JSON, and a stream of JSON chunks into a reply.

What is written depends on nothing but the messages, so each request of a conversation is a byte-identical prefix of
the next and the server's cache of prompts works. What is read is hostile: every field may be missing or of any type.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..types import JSON, Image, Message, ModelReply, Tool, ToolCall, Usage
from .thinking import ThinkingSplitter

FENCED_NOTE = "Tools are off: to run code, reply with one ```python block; its output follows."
_MAX_NUMBER = 10**12
"""Above it, a count or a price is nonsense."""


def tools_json(tools: Sequence[Tool]) -> list[JSON]:
    """The tools of a request."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
        }
        for t in tools
    ]


def messages_json(
    messages: Iterable[Message], *, fenced: bool = False, note: bool = False, images: bool = True
) -> list[JSON]:
    """The messages of a request.

    Args:
        messages: the conversation.
        fenced: write tool calls as ```python blocks and their results as the user's words, for a server without tools.
        note: tell the model in the system prompt that tools are off.
        images: whether pictures go along; a line of text stands for them otherwise.
    """
    made: list[JSON] = []
    waiting: list[Image] = []
    for message in messages:
        if message.role != "tool" and waiting:
            made.append(_pictures(waiting, images))
            waiting = []
        if note and message.role == "system":
            made.append({"role": "system", "content": f"{utf8(message.text)}\n{FENCED_NOTE}"})
        else:
            made.append(_fenced(message) if fenced else _plain(message))
        if message.role == "user" and message.images and images:
            made[-1] = {"role": "user", "content": [_text_part(message.text), *map(_image_part, message.images)]}
        elif message.images:
            # The wire format has no pictures in a tool's message, and nothing may stand between those of one reply.
            waiting.extend(message.images)
    if waiting:
        made.append(_pictures(waiting, images))
    return made


def _plain(message: Message) -> dict[str, JSON]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id or "", "content": utf8(message.text)}
    if message.role == "assistant" and message.tool_calls:
        calls: list[JSON] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _arguments(c.arguments)}}
            for c in message.tool_calls
        ]
        return {"role": "assistant", "content": utf8(message.text) or None, "tool_calls": calls}
    return {"role": message.role, "content": utf8(message.text)}


def _fenced(message: Message) -> dict[str, JSON]:
    return {"role": "user" if message.role == "tool" else message.role, "content": fenced_message(message)}


def fenced_message(message: Message) -> str:
    """A message as text alone: calls as ```python blocks, results as the user's words."""
    if message.role == "tool":
        return f"Output:\n{utf8(message.text)}"
    blocks = [utf8(message.text)] if message.text else []
    for call in message.tool_calls:
        code = _code(call.arguments)
        fence = "```"
        while fence in code:
            fence += "`"
        blocks.append(f"{fence}python\n{utf8(code)}\n{fence}")
    return "\n".join(blocks)


def _code(arguments: str) -> str:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    code = value.get("code") if isinstance(value, dict) else None
    return code if isinstance(code, str) else arguments


def _arguments(text: str) -> str:
    """`text`, or a JSON object that holds it: servers that render calls into a template fail on broken JSON."""
    try:
        if isinstance(json.loads(text), dict):
            return utf8(text)
    except (ValueError, RecursionError):
        pass
    return json.dumps({"invalid_json": text})


def _pictures(pictures: Sequence[Image], shown: bool) -> JSON:
    if not shown:
        return {"role": "user", "content": not_shown(pictures)}
    return {"role": "user", "content": [_text_part("Pictures of the output:"), *map(_image_part, pictures)]}


def not_shown(pictures: Sequence[Image]) -> str:
    """What stands for pictures that do not go along."""
    return f"({len(pictures)} picture{'s' if len(pictures) != 1 else ''}, not shown)"


def _text_part(text: str) -> JSON:
    return {"type": "text", "text": utf8(text)}


def _image_part(image: Image) -> JSON:
    return {"type": "image_url", "image_url": {"url": f"data:{image.mimetype};base64,{image.data}"}}


def utf8(text: str) -> str:
    """`text` that can be sent: a lone surrogate (an undecodable byte of some output) becomes a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


# ---- reading ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ReplyBuilder:
    """Puts the chunks of one stream together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking = ThinkingSplitter()
        self._calls: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self.finish_reason = ""
        """Empty until the server gave one."""
        self.usage: Usage | None = None
        self.seen = False
        """Whether any chunk was one of a chat completion."""
        self.begun = False
        """Whether a first token came."""
        self.model = ""
        """The model's name that the server says."""

    @property
    def over(self) -> bool:
        """Whether the reply has come to its end: some servers give no reason, and some count no tokens."""
        return bool(self.finish_reason) or self.usage is not None

    def feed(self, chunk: Mapping[str, object]) -> tuple[str, str]:
        """Take one chunk in; returns its piece of the text and of the model's reasoning, both often empty."""
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.usage = read_usage(usage)
            self.seen = True
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return "", ""
        self.seen = True
        if not self.model and isinstance(model := chunk.get("model"), str):
            self.model = model
        choice = choices[0]
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finish_reason = reason
        # A server that does not stream sends one `message` instead of deltas.
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return "", ""
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._feed_call(call)
        said = _text(delta.get("content")) or _text(delta.get("refusal"))
        # DeepSeek, vLLM and LiteLLM say `reasoning_content`; OpenRouter and Ollama say `reasoning`.
        thought = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        self.begun = self.begun or bool(said or thought or calls)
        if not said:
            return "", thought
        piece, tagged = self._thinking.feed(said)
        self._text.append(piece)
        return piece, thought + tagged

    def rest(self) -> tuple[str, str]:
        """What of the text and the reasoning was held back until the end."""
        piece, thought = self._thinking.rest()
        self._text.append(piece)
        return piece, thought

    def _feed_call(self, delta: Mapping[str, object]) -> None:
        function = delta.get("function")
        fields: Mapping[str, object] = function if isinstance(function, dict) else {}
        index, id_, name = delta.get("index"), delta.get("id"), fields.get("name")
        id_ = id_ if isinstance(id_, str) else ""
        name = name if isinstance(name, str) else ""
        # Some servers number all calls 0, and some number none: an id that is new begins a call all the same.
        slot = index if isinstance(index, int) else len(self._calls) if id_ or name else len(self._calls) - 1
        call = self._open.get(slot)
        if call is None or (id_ and call.id and id_ != call.id):
            call = self._open[slot] = _Call()
            self._calls.append(call)
        call.id = call.id or id_
        call.name = call.name or name
        arguments = fields.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        if isinstance(arguments, str):
            call.arguments.append(arguments)

    def reply(self, *, earlier_calls: int) -> ModelReply:
        """The whole reply.

        Args:
            earlier_calls: tool calls that the conversation has already; made-up ids count on from there.
        """
        calls = []
        taken: set[str] = set()
        for number, call in enumerate(self._calls, earlier_calls + 1):
            id_ = call.id if call.id and call.id not in taken else f"call_{number}"
            taken.add(id_)
            calls.append(ToolCall(id_, call.name, "".join(call.arguments)))
        reason = self.finish_reason or "stop"
        if calls and reason in ("stop", "function_call"):
            reason = "tool_calls"
        return ModelReply("".join(self._text), tuple(calls), reason, self.usage or Usage())


def read_usage(usage: Mapping[str, object]) -> Usage:
    """Tokens and cost as the server counted them; what is not a number counts 0."""
    details = usage.get("prompt_tokens_details")
    cost = usage.get("cost")
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        cached_tokens=count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
        output_tokens=count(usage.get("completion_tokens")),
        cost_usd=price_of(cost),
    )


def count(value: object) -> int:
    """A number of tokens; what is none counts 0."""
    return value if isinstance(value, int) and 0 < value < _MAX_NUMBER else 0


def price_of(value: object) -> float | None:
    """US dollars, if that is what the value can be."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return float(number) if number is not None and 0 <= number < _MAX_NUMBER else None


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # parts
        return "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return ""
