"""The events of one reply's stream, as parsed JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from .transport import BadReply, Deadline

if TYPE_CHECKING:
    import httpx2

_DRAIN_S = 0.5


def events_of(response: httpx2.Response, deadline: Deadline) -> Iterator[Mapping[str, object]]:
    """The server-sent events of `response`; its whole body where the server does not stream.

    Args:
        response: whose headers are here, and whose body is not.
        deadline: of the attempt; told of each event.

    Raises:
        BadReply: something in it is no JSON object.
    """
    if re.search("json|html", response.headers.get("content-type", "")):
        yield _with_cost(_object(response.read()), response.headers)
        return
    pieces = response.iter_bytes()
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                _drain(pieces, deadline)
                return
            if data:
                deadline.alive()
                yield _object(data)
    data = rest[5:].strip() if rest.startswith(b"data:") else b""
    if data and data != b"[DONE]":
        yield _object(data)


def _drain(pieces: Iterator[bytes], deadline: Deadline) -> None:
    """Read what is left, so that the connection can be used again; not at any price, the reply is complete."""
    import httpx2

    deadline.shorten(_DRAIN_S)
    with suppress(httpx2.HTTPError, BadReply):
        for _ in pieces:
            pass


def _object(data: bytes) -> dict[str, object]:
    """One JSON object.

    Raises:
        BadReply: it is not one; the text says how it begins.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadReply(f"it begins with {data[:200].decode('utf-8', 'replace')!r}")
    return value


def _with_cost(reply: dict[str, object], headers: Mapping[str, str]) -> dict[str, object]:
    """A whole reply with the cost that LiteLLM says in a header. A stream's headers leave before it is known."""
    usage = reply.get("usage")
    with suppress(KeyError, ValueError):
        if isinstance(usage, dict) and "cost" not in usage:
            return {**reply, "usage": {**usage, "cost": float(headers["x-litellm-response-cost"])}}
    return reply
