"""The HTTP client under a provider's SDK, and what its exceptions mean.

The SDKs bound the silence between two bytes, not the whole: a server that drips, or goes silent after the first word,
would hold a request for ever. The client made here bounds time and size of every body, error pages included.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .cleaning import clean
from .failure import Failure, Kind

if TYPE_CHECKING:
    import httpx2

CONNECT_TIMEOUT_S = 5.0
MAX_REPLY_BYTES = 16 * 2**20
"""Of one body. A long answer has 100 kB."""


class BadReply(ValueError):
    """A body, or an event of a stream, that is not what the protocol says."""


class IdleTimeout(TimeoutError):
    """The reply had begun, and then nothing of it came for too long."""


class Deadline:
    """When the attempt under way must be over; ends a read that still waits then.

    Two bounds: the whole attempt's, and, once a first token has come, that of the silence before the next one. Before
    the first token silence is normal: a small model reads its prompt for a minute, a reasoning model thinks.
    """

    def __init__(self) -> None:
        self._end = float("inf")
        self._idle_s = float("inf")
        self._token_at: float | None = None
        self._timer: threading.Timer | None = None
        self._sock: socket.socket | None = None

    def start(self, seconds: float, *, idle_s: float = float("inf")) -> None:
        """Begin an attempt that may take `seconds`, and be silent for `idle_s` once it has begun to speak."""
        self._end = time.monotonic() + seconds
        self._idle_s = idle_s
        self._token_at = None

    def token(self) -> None:
        """The first piece of the reply came: from now on silence counts."""
        self._token_at = time.monotonic()

    def alive(self) -> None:
        """The server showed that it still works on the reply, if that has begun."""
        if self._token_at is not None:
            self._token_at = time.monotonic()

    def left_s(self) -> float:
        """Seconds that are left, never below 0."""
        silent = float("inf") if self._token_at is None else self._token_at + self._idle_s
        return max(0.0, min(self._end, silent) - time.monotonic())

    def error(self) -> Exception:
        """What to raise when nothing is left."""
        import httpx2

        if time.monotonic() < self._end:
            return IdleTimeout(f"no further word within {self._idle_s:g} s")
        return httpx2.ReadTimeout("out of time")

    def watch(self, sock: socket.socket | None) -> None:
        """Shut `sock` at the end: no timeout of the HTTP client covers a body that goes silent half way."""
        self.unwatch()
        self._sock = sock
        self._arm(sock)

    def shorten(self, seconds: float) -> None:
        """Leave at most `seconds` from now."""
        if self._timer is not None and seconds < self.left_s():
            self.start(seconds)
            self.watch(self._sock)

    def unwatch(self) -> None:
        """The body is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._sock = None

    def _arm(self, sock: socket.socket | None) -> None:
        # Each token moves the bound, so it is looked at when it would be due: a timer for each would be a thread each.
        seconds = min(self.left_s(), self._idle_s, threading.TIMEOUT_MAX)
        self._timer = threading.Timer(seconds, self._look, (sock,))
        self._timer.daemon = True
        self._timer.start()

    def _look(self, sock: socket.socket | None) -> None:
        if sock is not self._sock:
            return
        if self.left_s():
            self._arm(sock)
        else:
            _shut(sock)


def _shut(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            # Not the method of an SSLSocket: that one would take the TLS state away from under the waiting read.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def http_client(deadline: Deadline, *, trust_env: bool) -> httpx2.Client:
    """A client whose replies end at `deadline` and at `MAX_REPLY_BYTES`.

    Args:
        deadline: of the attempt under way; the provider starts it.
        trust_env: whether proxies and certificates named in the environment count. Never for a loopback server.
    """
    import httpx2

    class BoundedStream(httpx2.SyncByteStream):
        """A body that stops in time."""

        def __init__(self, stream: httpx2.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            try:
                for chunk in self._stream:
                    size += len(chunk)
                    if size > MAX_REPLY_BYTES:
                        raise BadReply(f"it is longer than {MAX_REPLY_BYTES // 2**20} MB")
                    if not deadline.left_s():
                        break
                    yield chunk
            except httpx2.TransportError:
                if deadline.left_s():
                    raise
            if not deadline.left_s():
                raise deadline.error()

        def close(self) -> None:
            deadline.unwatch()
            self._stream.close()

    def bound(response: httpx2.Response) -> None:
        network = response.extensions.get("network_stream")
        deadline.watch(network.get_extra_info("socket") if network is not None else None)
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = BoundedStream(response.stream)

    # Redirects stay unfollowed: a conversation goes to the address that the settings name, or nowhere.
    return httpx2.Client(trust_env=trust_env, follow_redirects=False, event_hooks={"response": [bound]})


def transport_errors() -> tuple[type[Exception], ...]:
    """What may come up through an SDK raw: its HTTP client's errors, TLS, JSON, and what a bad key does to headers."""
    import anyio
    import httpx2

    # ValueError holds JSONDecodeError, UnicodeEncodeError and pydantic's; TypeError is an SDK's word for "no key".
    return (
        httpx2.HTTPError,
        httpx2.InvalidURL,
        httpx2.CookieConflict,
        httpx2.StreamError,
        anyio.EndOfStream,
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
    )


def failure_of(exc: BaseException, secrets: Iterable[str]) -> Failure:
    """`exc`, from an SDK or from below it, as a `Failure` without secrets."""
    import httpx2

    response = getattr(exc, "response", None)
    if isinstance(response, httpx2.Response) and response.is_closed and not isinstance(exc, httpx2.HTTPError):
        body = getattr(exc, "body", None)
        return Failure.of_body(body, status=response.status_code, secrets=secrets, headers=response.headers)
    root = exc
    # "Connection error." says nothing; the reason is the cause that the HTTP client gave.
    while not isinstance(root, httpx2.HTTPError) and isinstance(root.__cause__, Exception):
        root = root.__cause__
    return Failure(kind=_kind(root), message=clean(str(root) or type(root).__name__, secrets))


def _kind(exc: BaseException) -> Kind:
    import anyio
    import httpx2

    kinds: tuple[tuple[tuple[type[BaseException], ...], Kind], ...] = (
        ((httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError), "connect"),
        ((IdleTimeout,), "idle"),
        ((httpx2.TimeoutException, TimeoutError), "timeout"),
        ((httpx2.UnsupportedProtocol, httpx2.InvalidURL), "address"),
        ((httpx2.LocalProtocolError, UnicodeEncodeError), "key"),
        ((httpx2.DecodingError, BadReply, ValueError), "reply"),
        ((httpx2.TransportError, anyio.EndOfStream, OSError), "cut"),
    )
    return next((kind for types, kind in kinds if isinstance(exc, types)), "other")
