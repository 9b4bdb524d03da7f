"""Speaking with a Jupyter kernel: two connections, one poller, and no trust in what comes back.

Anyone inside the sandbox can write to these sockets: the signing key lies in the kernel's own memory. So a message is a
claim. It must parse, be signed, be of a known type and answer the request at hand; anything else is dropped in silence.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import selectors
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from .frames import Endpoint, FrameSocket, ProtocolError

MAX_MESSAGE_BYTES = 16 << 20
"""A larger message is skipped, and counted in `KernelChannel.oversized_bytes`."""

# Needs no descriptor of its own, where there is one; Windows has none.
_Selector = selectors.PollSelector if hasattr(selectors, "PollSelector") else selectors.SelectSelector
_DELIMITER = b"<IDS|MSG>"
_PLAIN_BYTES = 1 << 20
_MAX_VALUES = 1_000_000
"""Commas and brackets of a content over `_PLAIN_BYTES`: a million empty lists would take 60 times their bytes."""
_MAX_ID = 200
_OUTPUTS = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error"})
_ACCEPTED = {
    "shell": frozenset({"execute_reply", "kernel_info_reply"}),
    "iopub": _OUTPUTS | {"status", "clear_output"},
}


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """A message of a known type. Its content is still hostile."""

    channel: Literal["shell", "iopub"]
    kind: str
    parent_id: str
    content: Mapping[str, object]


class KernelChannel:
    """The shell and iopub sockets of one kernel. Use it from one thread.

    Args:
        shell: endpoint. Somebody must listen there, though not answer yet.
        iopub: endpoint.
        key: the key that messages are signed with.
        max_bytes: of one message.
    """

    def __init__(self, shell: Endpoint, iopub: Endpoint, key: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._endpoints: dict[str, Endpoint] = {"shell": shell, "iopub": iopub}
        self._key = key
        self._max_bytes = max_bytes
        self._session_id = secrets.token_hex(16)
        self._sockets: dict[Literal["shell", "iopub"], FrameSocket] = {}
        self.received = 0
        """Messages that came, of whatever kind."""
        self.broken = False
        """A connection was lost."""
        self._connect()

    @property
    def oversized_bytes(self) -> int:
        """Of messages over the size, since the last `reconnect`."""
        return sum(socket.oversized_bytes for socket in self._sockets.values())

    def _connect(self) -> None:
        kinds: tuple[tuple[Literal["shell", "iopub"], str], ...] = (("shell", "DEALER"), ("iopub", "SUB"))
        self.broken = False
        for name, kind in kinds:
            try:
                self._sockets[name] = FrameSocket(self._endpoints[name], kind, max_bytes=self._max_bytes)
            except (OSError, ProtocolError):
                self.broken = True

    def reconnect(self) -> None:
        """Start over with new sockets, after `broken`. What was in flight is lost."""
        self.close()
        self._connect()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()

    def request(self, kind: str, content: Mapping[str, object]) -> str:
        """Send a request on the shell channel; returns its id, which answers carry as `parent_id`."""
        request_id = secrets.token_hex(16)
        header = {
            "msg_id": request_id,
            "msg_type": kind,
            "session": self._session_id,
            "username": "",
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        }
        parts = [json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode()]
        try:
            self._sockets["shell"].send([_DELIMITER, self._sign(parts), *parts])
        except (KeyError, ProtocolError):
            self.broken = True
        return request_id

    def wait(self, deadline: float, *, also: int) -> None:
        """Wait for a message, until `deadline` (of `time.monotonic`), or until the descriptor `also` is readable."""
        with _Selector() as selector:
            selector.register(also, selectors.EVENT_READ)
            for socket in self._sockets.values():
                selector.register(socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if socket.unsent else 0))
            selector.select(max(0.001, deadline - time.monotonic()))

    def receive(self) -> Iterator[KernelMessage]:
        """Messages that have arrived. Bounded, so that a flood cannot keep the caller from its deadline."""
        for name, socket in self._sockets.items():
            try:
                socket.flush()
                for frames in socket.receive():
                    self.received += 1
                    message = self._parse(name, frames)
                    if message is not None:
                        yield message
            except ProtocolError:
                self.broken = True

    def _sign(self, parts: list[bytes]) -> bytes:
        return hmac.new(self._key, b"".join(parts), hashlib.sha256).hexdigest().encode()

    def _parse(self, channel: Literal["shell", "iopub"], frames: list[bytes]) -> KernelMessage | None:
        """A well-formed, signed message of an accepted type, or None."""
        try:
            start = frames.index(_DELIMITER, 0, 8) + 1
            signature, *parts = frames[start : start + 5]
            if len(parts) != 4 or not hmac.compare_digest(signature, self._sign(parts)):
                return None
            kind = json.loads(_small(parts[0]))["msg_type"]
            parent_id = json.loads(_small(parts[1])).get("msg_id")
            if not isinstance(kind, str) or kind not in _ACCEPTED[channel]:
                return None
            content = json.loads(_small(parts[3]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # hostile bytes
            return None
        if not isinstance(parent_id, str) or len(parent_id) > _MAX_ID or not isinstance(content, dict):
            return None
        return KernelMessage(channel, kind, parent_id, content)


def _small(content: bytes) -> bytes:
    """`content` unless it would grow beyond measure when it is parsed.

    Raises:
        ValueError: it would.
    """
    if len(content) > _PLAIN_BYTES and sum(map(content.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise ValueError("too many values")
    return content
