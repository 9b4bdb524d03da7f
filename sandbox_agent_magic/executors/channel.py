"""Speaking with a Jupyter kernel: synchronous sockets, one poller, and no trust in what comes back.

Anyone inside the sandbox can write to these sockets: the signing key lies in the kernel's own memory. So a message is a
claim. It must parse, be signed, be of a known type and answer the request at hand; anything else is dropped in silence.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import zmq

MAX_MESSAGE_BYTES = 16 << 20
"""A larger frame makes libzmq drop the connection, which shows as `KernelChannel.broken`."""

_QUEUE = 100  # messages kept here; more wait in the kernel, whose memory is limited
_ACCEPTED = {
    "shell": frozenset({"execute_reply", "kernel_info_reply"}),
    "iopub": frozenset({"status", "stream", "display_data", "execute_result", "error", "clear_output"}),
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
        shell: endpoint, such as `ipc:///tmp/x/shell`.
        iopub: endpoint.
        key: the key that messages are signed with.
    """

    def __init__(self, shell: str, iopub: str, key: bytes) -> None:
        import zmq
        from jupyter_client.session import Session

        self._endpoints = {"shell": shell, "iopub": iopub}
        self._session = Session(key=key, username="")
        self._context = zmq.Context()
        self._sockets: dict[Literal["shell", "iopub"], zmq.Socket[bytes]] = {}
        self._monitors: list[zmq.Socket[bytes]] = []
        self._connect()

    def _connect(self) -> None:
        import zmq

        self._poller = zmq.Poller()
        kinds: tuple[tuple[Literal["shell", "iopub"], int], ...] = (("shell", zmq.DEALER), ("iopub", zmq.SUB))
        for name, kind in kinds:
            socket = self._context.socket(kind)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, _QUEUE)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
            socket.setsockopt(zmq.RECONNECT_IVL, 5)  # milliseconds; the usual 100 would be a tenth of a kernel's start
            if kind == zmq.SUB:
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            socket.connect(self._endpoints[name])
            self._sockets[name] = socket
            self._monitors.append(monitor)
            self._poller.register(socket, zmq.POLLIN)
            self._poller.register(monitor, zmq.POLLIN)
        self.broken = False

    def reconnect(self) -> None:
        """Start over with new sockets, after `broken`. What was in flight is lost."""
        self._disconnect()
        self._connect()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._disconnect()
        self._context.term()

    def _disconnect(self) -> None:
        for socket in self._sockets.values():
            socket.disable_monitor()
            socket.close(0)
        for monitor in self._monitors:
            monitor.close(0)
        self._sockets.clear()
        self._monitors.clear()

    def request(self, kind: str, content: Mapping[str, object]) -> str:
        """Send a request on the shell channel; returns its id, which answers carry as `parent_id`."""
        message = self._session.send(self._sockets["shell"], kind, content=dict(content))
        return str(message["header"]["msg_id"])

    def wait(self, deadline: float, *, also: int) -> None:
        """Wait for a message, until `deadline` (of `time.monotonic`), or until the descriptor `also` is readable."""
        import zmq

        self._poller.register(also, zmq.POLLIN)
        try:
            self._poller.poll(max(0, int((deadline - time.monotonic()) * 1000) + 1))
        finally:
            self._poller.unregister(also)

    def receive(self, *, at_most: int = 50) -> Iterator[KernelMessage]:
        """Messages that have arrived. Bounded, so that a flood cannot keep the caller from its deadline."""
        import zmq

        for name, socket in self._sockets.items():
            for _ in range(at_most):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                message = self._parse(name, frames)
                if message is not None:
                    yield message
        for monitor in self._monitors:
            if monitor.poll(0):
                monitor.recv_multipart()
                self.broken = True

    def _parse(self, channel: Literal["shell", "iopub"], frames: list[bytes]) -> KernelMessage | None:
        """A well-formed, signed message of an accepted type, or None."""
        try:
            _, parts = self._session.feed_identities(frames)
            raw = self._session.deserialize(parts)
            kind, parent, content = raw["header"]["msg_type"], raw["parent_header"].get("msg_id"), raw["content"]
        except Exception:  # hostile bytes: whatever parsing them raises, the message does not count
            return None
        if not (isinstance(kind, str) and isinstance(parent, str) and isinstance(content, dict)):
            return None
        return KernelMessage(channel, kind, parent, content) if kind in _ACCEPTED[channel] else None
