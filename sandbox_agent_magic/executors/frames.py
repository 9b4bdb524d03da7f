"""ZMTP, the wire format of ZeroMQ, as far as a client of a Jupyter kernel needs it, over a socket.

Written out here because the other end is hostile. libzmq bounds a frame, but neither a message's number of frames nor
what it queues meanwhile, so code in a sandbox could fill the memory of the program outside. Here a message has a size,
what is over it is skipped as it arrives, and nothing is read before it is asked for: the rest waits in the sandbox.
https://rfc.zeromq.org/spec/23/
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TypeAlias

Endpoint: TypeAlias = str | Callable[[], socket.socket]
"""A unix socket's address, such as `ipc:///tmp/x/shell`, where somebody listens already; or how a connection is had."""

_MORE, _LONG, _COMMAND = 1, 2, 4
_SIGNATURE = b"\xff\0\0\0\0\0\0\0\x01\x7f"
_GREETING = _SIGNATURE + b"\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32)
_MAX_FRAMES = 64
_MAX_COMMAND = 512
_READ_BYTES = 256 << 10
_MAX_UNSENT = 64 << 20


class ProtocolError(Exception):
    """The other end does not speak ZMTP, or no longer."""


class FrameSocket:
    """One connection: whole messages go out and come in, as lists of frames. Never blocks.

    Args:
        endpoint: where the other end is.
        kind: our socket type, `DEALER` or `SUB`; the latter subscribes to everything.
        max_bytes: of one message; larger ones are skipped and counted.

    Raises:
        OSError: nobody listens there.
    """

    def __init__(self, endpoint: Endpoint, kind: str, *, max_bytes: int) -> None:
        self.oversized_bytes = 0
        """Of messages that were skipped."""
        self._max_bytes = max_bytes
        self._unsent = bytearray(_GREETING)
        self._held = bytearray()
        """Messages, until the other end is READY: libzmq takes none before."""
        self._ready = False
        self._received = bytearray()
        self._greeted = False
        self._skip = 0
        """Bytes of an oversized frame that are still to come."""
        self._frames: list[bytes] = []
        self._size = 0
        self._too_large = False
        ready = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind.encode()
        self._unsent += _frame(ready, _COMMAND)
        if kind == "SUB":
            self._held += _frame(b"\x01", 0)
        self._socket = socket.socket(socket.AF_UNIX) if isinstance(endpoint, str) else endpoint()
        try:
            self._socket.setblocking(False)
            if isinstance(endpoint, str):
                self._socket.connect(endpoint.removeprefix("ipc://"))
            self.flush()
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        """Whether the other end has yet to take what we sent."""
        return bool(self._unsent)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._socket.close()

    def send(self, frames: list[bytes]) -> None:
        """Queue one message, and send what can be sent now.

        Raises:
            ProtocolError: the other end is gone, or takes nothing.
        """
        queue = self._unsent if self._ready else self._held
        if len(queue) > _MAX_UNSENT:
            raise ProtocolError("nothing is taken")
        for number, frame in enumerate(frames, 1):
            queue += _frame(frame, _MORE if number < len(frames) else 0)
        self.flush()

    def flush(self) -> None:
        """Send what can be sent now. Raises as `send`."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ProtocolError(error.strerror) from None

    def receive(self) -> Iterator[list[bytes]]:
        """Messages that are complete, from one piece of what has arrived; none if nothing has.

        Raises:
            ProtocolError: the other end is gone, or talks nonsense.
        """
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise ProtocolError(error.strerror) from None
        if not data:
            raise ProtocolError("closed")
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        self._received += memoryview(data)[self._skip :]
        self._skip = 0
        yield from self._messages()

    def _messages(self) -> Iterator[list[bytes]]:
        position = 0
        if not self._greeted:
            if len(self._received) < len(_GREETING):
                return
            greeting = self._received[: len(_GREETING)]
            if greeting[0] != 0xFF or greeting[9] != 0x7F or greeting[10] < 3 or greeting[12:17] != b"NULL\0":
                raise ProtocolError("greeting")
            self._greeted, position = True, len(_GREETING)
        try:
            while (header := self._header(position)) is not None:
                flags, start, end = header
                complete = end <= len(self._received)
                if flags & _COMMAND:  # the other end's READY first; later ones do not matter
                    if end - start > _MAX_COMMAND:
                        raise ProtocolError("command")
                    if not complete:
                        return
                    position = end
                    self._open()
                    continue
                self._too_large |= self._size + end - start > self._max_bytes or len(self._frames) >= _MAX_FRAMES
                if self._too_large:
                    self._frames.clear()
                    self.oversized_bytes += end - position
                    self._skip = max(0, end - len(self._received))
                elif complete:
                    self._frames.append(bytes(self._received[start:end]))
                else:
                    return
                self._size += end - start
                position = min(end, len(self._received))
                if not flags & _MORE:
                    frames, too_large = self._frames, self._too_large
                    self._frames, self._size, self._too_large = [], 0, False
                    if not too_large:
                        yield frames
        finally:
            del self._received[:position]

    def _header(self, position: int) -> tuple[int, int, int] | None:
        """Flags, start and end of the frame at `position`; None until its length is here."""
        received = self._received
        if len(received) < position + 2:
            return None
        flags = received[position]
        if flags & ~(_MORE | _LONG | _COMMAND):
            raise ProtocolError("flags")
        start = position + (9 if flags & _LONG else 2)
        if len(received) < start:
            return None
        return flags, start, start + int.from_bytes(received[position + 1 : start], "big")

    def _open(self) -> None:
        """The other end is ready for messages."""
        if not self._ready:
            self._ready = True
            self._unsent += self._held
            self._held.clear()
            self.flush()


def _frame(content: bytes, flags: int) -> bytes:
    long = len(content) > 255
    return bytes([flags | (_LONG if long else 0)]) + len(content).to_bytes(8 if long else 1, "big") + content
