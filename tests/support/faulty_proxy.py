"""A proxy on loopback that passes requests on to a real server, and does to some of them what goes wrong out there."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

CERTIFICATE = Path(__file__).with_name("self-signed.pem")


@dataclass(frozen=True)
class Seen:
    """The head of a request that came."""

    verb: str
    path: str
    headers: dict[str, str]
    """By name in lower case."""


Fault = Callable[[socket.socket, Seen], bool]
"""Does something to a request; says whether it is passed on then."""


@dataclass
class _Rule:
    pattern: re.Pattern[str]
    fault: Fault
    left: float


class FaultyProxy:
    """A context manager. One request for each connection, web sockets included.

    Args:
        upstream: address of the real server; the port that nobody listens on if nothing is ever passed on.
        tls: speak TLS, with a certificate of its own.
    """

    def __init__(self, upstream: str = "http://127.0.0.1:9", *, tls: bool = False) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(CERTIFICATE)
        self.seen: list[Seen] = []
        """All requests, in order."""
        self._rules: list[_Rule] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._closed = False

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def on(self, pattern: str, fault: Fault, *, times: float = float("inf")) -> None:
        """Do `fault` to the next requests whose `VERB /path` the pattern finds."""
        self._rules.append(_Rule(re.compile(pattern), fault, times))

    def cut(self) -> None:
        """Cut all connections that there are."""
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def down(self) -> None:
        """Cut all connections, and refuse new ones until `up`."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def up(self) -> None:
        """Listen again at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self.down()

    # ---- inside -----------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        with contextlib.suppress(OSError, ssl.SSLError, ValueError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(sock)
            data, seen = _head(sock)
            self.seen.append(seen)
            if self._fault(sock, seen):
                self._relay(sock, data)
        self._open.discard(sock)
        with contextlib.suppress(OSError):
            sock.close()

    def _fault(self, sock: socket.socket, seen: Seen) -> bool:
        for rule in self._rules:
            if rule.left > 0 and rule.pattern.search(f"{seen.verb} {seen.path}"):
                rule.left -= 1
                return rule.fault(sock, seen)
        return True

    def _relay(self, sock: socket.socket, data: bytes) -> None:
        with socket.create_connection(self._upstream, 10) as upstream:
            upstream.settimeout(None)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(upstream)
            upstream.sendall(data)
            back = threading.Thread(target=_pump, args=(upstream, sock), daemon=True)
            back.start()
            _pump(sock, upstream)
            back.join(60)
            self._open.discard(upstream)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _head(sock: socket.socket) -> tuple[bytes, Seen]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(1 << 16)
        if not piece:
            raise ValueError("it was closed")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    verb, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    left = int(headers.get("content-length", 0)) - len(body)
    while left > 0:  # a socket that is closed with something unread takes the answer back
        piece = sock.recv(min(left, 1 << 16))
        if not piece:
            raise ValueError("it was closed")
        data += piece
        left -= len(piece)
    return data, Seen(verb, path, headers)


# ---- what goes wrong --------------------------------------------------------------------------------------------


def respond(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer in the server's place; `Retry_After` stands for `Retry-After`."""

    def fault(sock: socket.socket, _: Seen) -> bool:
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        sock.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body)
        return False

    return fault


def delay(seconds: float) -> Fault:
    """Pass it on later."""

    def fault(_: socket.socket, __: Seen) -> bool:
        time.sleep(seconds)
        return True

    return fault


def cut(_: socket.socket, __: Seen) -> bool:
    """Close the connection without a word."""
    return False


def raw(pieces: Callable[[], Iterator[bytes]], *, pause_s: float = 0.0) -> Fault:
    """Answer with these bytes, however many they are."""

    def fault(sock: socket.socket, _: Seen) -> bool:
        for piece in pieces():
            sock.sendall(piece)
            time.sleep(pause_s)
        return False

    return fault


def web_socket(pieces: Callable[[], Iterator[bytes]], *, pause_s: float = 0.0) -> Fault:
    """Open the web socket in the server's place, and say these bytes on it."""

    def fault(sock: socket.socket, seen: Seen) -> bool:
        magic = seen.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        head = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        sock.sendall(f"{head}{accept}\r\n\r\n".encode())
        return raw(pieces, pause_s=pause_s)(sock, seen)

    return fault


def frame(data: bytes, *, opcode: int = 1, fin: bool = True, length: int | None = None) -> bytes:
    """A web socket's frame; `length` claims another one than it has."""
    size = len(data) if length is None else length
    return bytes([opcode | (0x80 if fin else 0), 127]) + size.to_bytes(8, "big") + data
