"""The web socket of one kernel on a Jupyter server: requests out, messages in, and no trust in what comes.

Read in the caller's thread, on `websocket-client`: what the code prints waits at the server until it is asked for, so
it cannot fill this process's memory, as it could where a thread reads into a queue.
https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from ...errors import ExecutorError
from ..channel import KernelMessage
from .server import JupyterServer

if TYPE_CHECKING:
    import websocket

_CONNECT_S = 30.0
_SEND_S = 60.0
_LEAST_S = 0.01
"""To read what is there already."""
_MAX_PARTS = 10_000
"""Frames of one message."""
_MAX_VALUES = 1_000_000
"""Commas and brackets of one message: a million empty lists would take 60 times their bytes."""
_PLAIN_BYTES = 1 << 20
_KINDS = {
    "shell": frozenset({"execute_reply", "kernel_info_reply"}),
    "iopub": frozenset(
        {
            "stream",
            "display_data",
            "update_display_data",
            "execute_result",
            "error",
            "status",
            "clear_output",
        }
    ),
}


class SocketClosed(Exception):
    """The connection is gone: closed by the server, cut, or a message was over the size."""

    def __init__(self, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.too_large = too_large


class NoWebSocket(ExecutorError):
    """The kernel exists, and the server answers otherwise."""


class KernelSocket:
    """A connection to a kernel. Use it from one thread.

    Args:
        server: where the kernel is.
        kernel_id: of the kernel.
        session_id: of this client; a server keeps messages for one that comes back with the same.
        max_bytes: of one message.

    Raises:
        KernelGone: there is no such kernel.
        ExecutorError: the server cannot be reached or refuses.
    """

    def __init__(self, server: JupyterServer, kernel_id: str, session_id: str, *, max_bytes: int) -> None:
        import websocket

        class Bounded(websocket.frame_buffer):
            """Looks at a frame's size before the frame is read."""

            def recv_length(self) -> None:
                super().recv_length()
                if self.length > max_bytes:
                    raise SocketClosed("a message was over the size", too_large=True)

        self._errors = (websocket.WebSocketException, OSError, MemoryError)
        self._timed_out = websocket.WebSocketTimeoutException
        self._session_id = session_id
        self._max_bytes = max_bytes
        self._until = 0.0
        """Of `time.monotonic`: so long a frame is read, however it comes."""
        self._parts: list[bytes] = []
        """Of a message that comes in several frames."""
        self._parts_bytes = 0
        self.received = 0
        """Messages that came, of whatever kind."""
        self.last_s = time.monotonic()
        """When something came, of `time.monotonic`."""
        self._socket = websocket.WebSocket(
            skip_utf8_validation=True, sslopt=_tls()
        )  # json decodes it, and says the same
        self._socket.frame_buffer = Bounded(self._read, True)
        failure = self._connect(server, kernel_id)
        if failure:
            server.check_kernel(kernel_id)  # says what is wrong, if it is the token, the address or the kernel
            raise NoWebSocket(
                "The kernel's web socket cannot be opened.",
                executor="remote",
                why=f"{server.target.shown}, which answers otherwise: {failure}.",
                hint="A proxy in between may not let web sockets through.",
            )

    def _connect(self, server: JupyterServer, kernel_id: str) -> str:
        """Connect: what went wrong, or nothing."""
        import websocket

        url = f"ws{server.target.url.removeprefix('http')}/api/kernels/{quote(kernel_id, safe='')}/channels"
        # A server that sends a byte of its answer now and then would else hold its caller for ever.
        watch = threading.Timer(_CONNECT_S, self._cut)
        watch.daemon = True
        watch.start()
        try:
            self._socket.connect(
                f"{url}?{urlencode({'session_id': self._session_id})}",
                timeout=_CONNECT_S,
                header=[f"{name}: {value}" for name, value in server.headers().items()],
                suppress_origin=True,
                redirect_limit=0,  # the token would go along
            )
        except websocket.WebSocketBadStatusException as error:
            return f"it answered {error.status_code}"
        except Exception as error:  # an answer that is no HTTP becomes an IndexError, among others
            return type(error).__name__
        finally:
            watch.cancel()
        return ""

    def _cut(self) -> None:
        """Wake whoever reads: a socket that is only closed would let him sleep."""
        sock = self._socket.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, without waiting for the other end. Idempotent."""
        with contextlib.suppress(*self._errors):
            self._socket.shutdown()

    def request(self, kind: str, content: Mapping[str, object], *, request_id: str = "") -> str:
        """Send a request on the shell channel; returns its id, which answers carry as `parent_id`.

        Raises:
            SocketClosed: the connection is gone.
        """
        request_id = request_id or secrets.token_hex(16)
        message = {
            "channel": "shell",
            "header": {
                "msg_id": request_id,
                "msg_type": kind,
                "session": self._session_id,
                "username": "",
                "date": datetime.now(UTC).isoformat(),
                "version": "5.3",
            },
            "parent_header": {},
            "metadata": {},
            "content": content,
            "buffers": [],
        }
        try:
            self._socket.settimeout(_SEND_S)
            self._socket.send(json.dumps(message))
        except self._errors as error:
            raise SocketClosed(type(error).__name__) from None
        return request_id

    def receive(self, deadline: float) -> KernelMessage | None:
        """The next message of a known kind, or None at `deadline` (of `time.monotonic`), even in the middle of one.

        Raises:
            SocketClosed: the connection is gone.
        """
        while True:
            left = deadline - time.monotonic()
            if not self._readable(max(0.0, left)):
                return None
            try:
                self._until = max(deadline, time.monotonic() + _LEAST_S)
                data = self._take(self._socket.recv_frame())
            except self._timed_out:
                data = b""  # what has come of the frame is kept for the next call
            except self._errors as error:
                raise SocketClosed(type(error).__name__) from None
            if data:
                self.received += 1
                message = _parse(data)
                if message is not None:
                    return message
            if left <= 0:
                return None

    def _read(self, size: int) -> bytes:
        """Bytes of a frame. One by one they would each have the whole of a socket's timeout."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise self._timed_out
        self._socket.settimeout(left)
        data: bytes = self._socket._recv(size)
        return data

    def _take(self, frame: websocket.ABNF) -> bytes:
        """The message that `frame` completes, if it does."""
        self.last_s = time.monotonic()
        if frame.opcode == _CLOSE:
            raise SocketClosed("the server closed it")
        if frame.opcode == _PING:
            self._socket.pong(frame.data)
        if frame.opcode not in (_MORE, _TEXT, _BINARY):
            return b""
        if frame.opcode != _MORE:
            self._parts, self._parts_bytes = [], 0
        self._parts.append(bytes(frame.data))
        self._parts_bytes += len(frame.data)
        # Empty pieces cost memory as well.
        if len(self._parts) > _MAX_PARTS or self._parts_bytes > self._max_bytes:
            raise SocketClosed("a message was over the size", too_large=True)
        return b"".join(self._parts) if frame.fin else b""

    def _readable(self, seconds: float) -> bool:
        """Whether something has come; also what TLS has already read."""
        sock = self._socket.sock
        if sock is None:
            raise SocketClosed("it is closed")
        pending = getattr(sock, "pending", None)
        if pending is not None and pending():
            return True
        try:
            if _QUICK_ACK is not None:
                sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            return bool(select.select([sock], [], [], seconds)[0])
        except (OSError, ValueError):
            raise SocketClosed("it is closed") from None


def _tls() -> dict[str, str]:
    """The authorities that the REST API's requests trust."""
    import certifi

    place = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    return {"ca_cert_path" if os.path.isdir(place) else "ca_certs": place}


_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Tornado waits for the acknowledgement of one small message before it sends the next, and the system here would let it
wait 40 ms, several times in each cell. The system forgets the wish, so it is said each time. Linux only."""
_MORE, _TEXT, _BINARY, _CLOSE, _PING = 0, 1, 2, 8, 9


def _parse(data: bytes) -> KernelMessage | None:
    """A well-formed message of a known kind, or None. What the kernel says is a claim."""
    if len(data) > _PLAIN_BYTES and sum(map(data.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        return None
    try:
        message = json.loads(data)
        channel: Literal["shell", "iopub"] = message["channel"]
        kind = message["header"]["msg_type"]
        parent_id = message["parent_header"].get("msg_id", "")
        content = message["content"]
        if kind not in _KINDS[channel]:
            return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(parent_id, str) or not isinstance(content, dict):
        return None
    return KernelMessage(channel, kind, parent_id, content)
