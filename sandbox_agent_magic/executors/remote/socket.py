"""The web socket of one kernel on a Jupyter server: requests out, messages in, and no trust in what comes.

Read in the caller's thread, on `websocket-client`: what the code prints waits at the server until it is asked for, so
it cannot fill this process's memory, as it could where a thread reads into a queue.
https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, urlencode

from ...errors import ExecutorError
from ..channel import KernelMessage
from .server import JupyterServer

_CONNECT_S = 30.0
_FRAME_S = 60.0
"""A message that has begun has to go on."""
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

        class Limited(websocket.WebSocket):
            """A connection whose frames have a largest size."""

            def __init__(self, *args: object, skip_utf8_validation: bool = True, **options: object) -> None:
                super().__init__(*args, skip_utf8_validation=skip_utf8_validation, **options)
                self.frame_buffer = Bounded(self._recv, skip_utf8_validation)

        self._errors = (websocket.WebSocketException, OSError)
        self._session_id = session_id
        self.received = 0
        """Messages that came, of whatever kind."""
        base = server.target.url
        url = f"ws{base.removeprefix('http')}/api/kernels/{quote(kernel_id, safe='')}/channels"
        failure = ""
        status = 0
        try:
            self._socket = websocket.create_connection(
                f"{url}?{urlencode({'session_id': session_id})}",
                timeout=_CONNECT_S,
                header=[f"{name}: {value}" for name, value in server.headers().items()],
                suppress_origin=True,
                skip_utf8_validation=True,  # json decodes it, and says the same
                class_=Limited,
            )
        except websocket.WebSocketBadStatusException as error:
            status = error.status_code
            failure = f"it answered {status}"
        except self._errors as error:
            failure = type(error).__name__
        if failure:
            server.check_kernel(kernel_id)  # says what is wrong, if it is the token, the address or the kernel
            raise ExecutorError(
                "The kernel's web socket cannot be opened.",
                executor="remote",
                why=f"{server.target.shown}, which answers otherwise: {failure}.",
                hint="A proxy in between may not let web sockets through.",
            )

    def close(self) -> None:
        """Close the connection, without waiting for the other end. Idempotent."""
        with contextlib.suppress(*self._errors):
            self._socket.shutdown()

    def request(self, kind: str, content: Mapping[str, object]) -> str:
        """Send a request on the shell channel; returns its id, which answers carry as `parent_id`.

        Raises:
            SocketClosed: the connection is gone.
        """
        request_id = secrets.token_hex(16)
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
            self._socket.settimeout(_FRAME_S)
            self._socket.send(json.dumps(message))
        except self._errors as error:
            raise SocketClosed(type(error).__name__) from None
        return request_id

    def receive(self, deadline: float) -> KernelMessage | None:
        """The next message of a known kind, or None at `deadline` (of `time.monotonic`).

        Raises:
            SocketClosed: the connection is gone.
        """
        while True:
            left = deadline - time.monotonic()
            if not self._readable(max(0.0, left)):
                return None
            try:
                self._socket.settimeout(_FRAME_S)
                opcode, frame = self._socket.recv_data_frame(control_frame=True)
            except self._errors as error:
                raise SocketClosed(type(error).__name__) from None
            if opcode == _CLOSE:
                raise SocketClosed("the server closed it")
            if opcode == _TEXT:
                self.received += 1
                message = _parse(frame.data)
                if message is not None:
                    return message
            elif opcode == _BINARY:
                self.received += 1  # a widget's buffers; none of the kinds above has any
            if left <= 0:
                return None

    def _readable(self, seconds: float) -> bool:
        """Whether something has come; also what TLS has already read."""
        sock = self._socket.sock
        if sock is None:
            raise SocketClosed("it is closed")
        pending = getattr(sock, "pending", None)
        if self._socket.frame_buffer.recv_buffer or (pending is not None and pending()):
            return True
        try:
            if _QUICK_ACK is not None:
                sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            return bool(select.select([sock], [], [], seconds)[0])
        except (OSError, ValueError):
            raise SocketClosed("it is closed") from None


_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Tornado waits for the acknowledgement of one small message before it sends the next, and the system here would let it
wait 40 ms, several times in each cell. The system forgets the wish, so it is said each time. Linux only."""
_TEXT, _BINARY, _CLOSE = 1, 2, 8


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
