"""A provider without a model: it says what a script says. For tests and demonstrations, through the public seam.

`-p scripted -m replies.json` reads the script from a file: a JSON list with one object for each request, in order:

    [{"text": "I compute it.", "code": "print(sum(range(1, 101)))"},
     {"text": "The sum is 5050."}]

| field | meaning |
|---|---|
| `text` | text of the reply |
| `code` | code to run: a call of the tool `python`; a fenced block in the text where the request offers no tools |
| `usage` | `{"input_tokens": 120, "cached_tokens": 0, "output_tokens": 7, "cost_usd": 0.001}`, each of them optional |
| `finish_reason` | `stop`, `tool_calls`, `length`, `content_filter`; unless given, what fits the reply |
| `error` | name of an error to raise instead, such as `ProviderRateLimited` |
| `retry_after` | of `ProviderRateLimited`: seconds |
| `delay_s` | seconds to wait before the reply |

From Python, `ScriptedProvider` also takes replies, errors, and functions of the request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from .. import errors
from ..errors import ProviderError, ProviderRateLimited, ProviderUnavailable, UsageError
from ..types import ModelReply, ModelRequest, ModelTraits, TextHook, ToolCall, Usage, no_text

Step: TypeAlias = ModelReply | ProviderError | Callable[[ModelRequest], ModelReply]
"""What happens at one request."""

_FIELDS = {"text", "code", "usage", "finish_reason", "error", "retry_after", "delay_s"}
_USAGE_FIELDS = {"input_tokens", "cached_tokens", "output_tokens", "cost_usd"}


class ScriptedProvider:
    """Answers each request with the next step of a script.

    Args:
        steps: replies to give, errors to raise, or functions of the request.
        model: name to show.
        traits: as of the model that is played.
    """

    name = "scripted"

    def __init__(
        self,
        steps: Iterable[Step],
        *,
        model: str = "script",
        traits: ModelTraits = ModelTraits(),  # noqa: B008  (frozen)
    ) -> None:
        self.model = model
        self.traits = traits
        self.requests: list[ModelRequest] = []
        """Every request that came, in order."""
        self._steps = iter(steps)

    @classmethod
    def load(cls, path: Path) -> ScriptedProvider:
        """From a script file.

        Raises:
            UsageError: the file cannot be read, or is not a script.
        """
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise _bad(path, reason) from None
        if not isinstance(rows, list):
            raise _bad(path, "it is not a list")
        return cls([_step(path, number, row) for number, row in enumerate(rows, 1)], model=path.name)

    def complete(
        self,
        request: ModelRequest,
        *,
        on_text: TextHook,
        on_reasoning: TextHook = no_text,  # noqa: ARG002
    ) -> ModelReply:
        """The next step of the script; its text is streamed line by line.

        Raises:
            ProviderError: the script says so, or it has come to its end.
        """
        self.requests.append(request)
        step = next(self._steps, None)
        if step is None:
            raise ProviderError(
                "The script is over.",
                provider=self.name,
                model=self.model,
                why=f"This is request {len(self.requests)}.",
                hint="Add a reply to the script.",
            )
        if isinstance(step, ProviderError):
            raise step
        reply = step if isinstance(step, ModelReply) else step(request)
        for line in reply.text.splitlines(keepends=True):
            on_text(line)
        return reply

    def models(self) -> Sequence[str]:
        """Only the script itself."""
        return [self.model]

    def close(self) -> None:
        """Nothing is open."""


def code_reply(code: str, text: str = "", usage: Usage = Usage()) -> Callable[[ModelRequest], ModelReply]:  # noqa: B008
    """A step that asks to run `code`: by the tool `python`, or as a fenced block where the request offers no tools."""

    def step(request: ModelRequest) -> ModelReply:
        if not request.tools:
            return ModelReply(f"{text}\n```python\n{code}\n```".lstrip(), usage=usage)
        number = 1 + sum(len(message.tool_calls) for message in request.messages)
        call = ToolCall(f"call_{number}", "python", json.dumps({"code": code}))
        return ModelReply(text, (call,), "tool_calls", usage)

    return step


def _step(path: Path, number: int, row: object) -> Step:
    if not isinstance(row, dict):
        raise _bad(path, f"reply {number} is not an object")
    unknown = set(row) - _FIELDS
    if unknown:
        raise _bad(path, f"reply {number} has unknown fields: {', '.join(sorted(unknown))}")
    text, code, delay_s = row.get("text", ""), row.get("code"), row.get("delay_s", 0)
    if not isinstance(text, str) or not isinstance(code, str | None) or not isinstance(delay_s, int | float):
        raise _bad(path, f"reply {number}: text and code are strings, delay_s a number")
    usage = _usage(path, number, row.get("usage", {}))
    failure = _error(path, number, row) if "error" in row else None
    make = code_reply(code, text, usage) if code is not None else None
    reason = row.get("finish_reason")

    def step(request: ModelRequest) -> ModelReply:
        time.sleep(max(0.0, delay_s))
        if failure is not None:
            raise failure
        reply = make(request) if make is not None else ModelReply(text, usage=usage)
        return ModelReply(reply.text, reply.tool_calls, reason or reply.finish_reason, reply.usage)

    return step


def _usage(path: Path, number: int, value: object) -> Usage:
    numbers = value.values() if isinstance(value, Mapping) else ()
    if (
        not isinstance(value, dict)
        or set(value) - _USAGE_FIELDS
        or not all(isinstance(n, int | float) for n in numbers)
    ):
        raise _bad(path, f"reply {number}: usage has numbers named {', '.join(sorted(_USAGE_FIELDS))}")
    return Usage(**value)


def _error(path: Path, number: int, row: Mapping[str, object]) -> ProviderError:
    kind = getattr(errors, str(row["error"]), None)
    if not (isinstance(kind, type) and issubclass(kind, ProviderError)):
        raise _bad(path, f"reply {number}: error is not the name of a ProviderError: {row['error']}")
    message = str(row.get("text") or f"The script raises {kind.__name__}.")
    wait = row.get("retry_after")
    if issubclass(kind, ProviderRateLimited):
        seconds = float(wait) if isinstance(wait, int | float) else None
        return kind(message, provider="scripted", model=path.name, retry_after=seconds)
    if issubclass(kind, ProviderUnavailable):
        return kind(message, provider="scripted", model=path.name, retryable=True)
    return kind(message, provider="scripted", model=path.name)


def _bad(path: Path, reason: str) -> UsageError:
    return UsageError(
        "The script of replies cannot be used.",
        why=f"{path}: {reason}.",
        hint='It is a JSON list, such as [{"text": "I compute it.", "code": "print(1)"}, {"text": "Done."}].',
    )
