"""What went over the wire, one JSON object a line, for DEBUG=true: requests and replies without their secrets."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from ..types import JSON, ModelReply
from .asked import Asked
from .cleaning import Redactor
from .failure import Failure

MAX_BYTES = 10 * 2**20
"""A file that has grown beyond it makes way for a new one; the one before is kept as `.1`."""
_MAX_STRING = 20_000
"""Longer strings, such as pictures, are shortened."""


class WireLog:
    """Appends to one file, which only its owner can read. A file that cannot be written is done without.

    Args:
        path: of the file; its folder is made if need be.
        secrets: every key that the settings hold, whoever it belongs to.
    """

    def __init__(self, path: Path, secrets: tuple[str, ...]) -> None:
        self.path = path
        self._hide = Redactor(secrets)

    def request(self, asked: Asked, body: Mapping[str, JSON]) -> None:
        """A request, as it is sent; headers are never logged."""
        self._write("request", asked, {"body": dict(body)})

    def reply(self, asked: Asked, reply: ModelReply) -> None:
        """A complete reply."""
        calls: list[JSON] = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in reply.tool_calls]
        usage = reply.usage
        tokens: dict[str, JSON] = {
            "input": usage.input_tokens,
            "cached": usage.cached_tokens,
            "output": usage.output_tokens,
            "cost_usd": usage.cost_usd,
        }
        content: dict[str, JSON] = {"text": reply.text, "tool_calls": calls, "finish_reason": reply.finish_reason}
        self._write("reply", asked, {**content, "usage": tokens})

    def failure(self, asked: Asked, failure: Failure) -> None:
        """What a failed attempt said."""
        said: dict[str, JSON] = {"kind": failure.kind, "status": failure.status, "message": failure.message}
        self._write("failure", asked, {**said, "type": failure.type, "code": failure.code, "param": failure.param})

    def _write(self, event: str, asked: Asked, fields: Mapping[str, JSON]) -> None:
        head: dict[str, JSON] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "process": os.getpid(),
            "event": event,
            "provider": asked.provider,
            "model": asked.model,
            "server": asked.server,
        }
        # Redacted before it is escaped: JSON would write a key with a line break in another way.
        line = json.dumps(self._clean({**head, **fields}), ensure_ascii=False)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
                self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            opened = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(opened, "w", encoding="utf-8", errors="replace") as file:
                file.write(line + "\n")

    def _clean(self, value: JSON) -> JSON:
        if isinstance(value, str):
            text = self._hide.arguments(value)
            return text if len(text) <= _MAX_STRING else f"{text[:_MAX_STRING]}... ({len(text):,} characters)"
        if isinstance(value, list):
            return [self._clean(each) for each in value]
        if isinstance(value, dict):
            return {self._hide.whole(key): self._clean(each) for key, each in value.items()}
        return value
