"""The SDK's sandbox object, its connections closable. Imports the SDK: only `e2b.py` imports this, on use."""

from __future__ import annotations

import contextlib
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
from e2b_code_interpreter import Sandbox

_LINE_BYTES = 64 << 20
"""Of one line of the stream: the SDK holds it in memory until it ends, and a sandbox may never end it."""


class OurSandbox(Sandbox):
    """The SDK's sandbox.

    The SDK's own connections are made by a library in Rust: what waits for one cannot be woken, and its timeouts are
    sums of those that were asked for. Code runs over connections of Python's instead, one client for all runs, which
    also saves making one for each.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._runs: httpx.Client | None = None
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def _client(self) -> httpx.Client:
        """For requests to the code interpreter."""
        if self._runs is None:
            trust = httpx.create_ssl_context()
            trust.load_default_certs()  # the system's beside certifi's, as in the SDK's own connections
            self._runs = httpx.Client(
                verify=trust,
                headers={"Accept-Encoding": "identity"},
                event_hooks={"response": [self._answered]},
            )
        return self._runs

    def _answered(self, response: httpx.Response) -> None:
        self._streams.add(response.extensions["network_stream"])
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise httpx.DecodingError("It is compressed, which it was not asked to be.", request=response.request)
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Lines(response.stream)

    def close(self) -> None:
        """Close the connections that code runs over: whoever reads from one gets an error. Never raises."""
        client, self._runs = self._runs, None
        for stream in list(self._streams):
            with contextlib.suppress(Exception):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._streams.clear()
        if client is not None:
            with contextlib.suppress(Exception):
                client.close()


class _Lines(httpx.SyncByteStream):
    """A body whose lines have an end."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        length = 0
        for piece in self._body:
            _, newline, after = piece.rpartition(b"\n")
            length = len(after) if newline else length + len(piece)
            if length > _LINE_BYTES:
                raise httpx.DecodingError("One line of the answer does not end.")
            yield piece

    def close(self) -> None:
        self._body.close()
