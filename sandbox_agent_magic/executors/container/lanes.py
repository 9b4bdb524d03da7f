"""The host's end of a relay in a container: its pipes become sockets, one for each connection to the kernel.

What comes out of a container is hostile, even what the relay seems to say. So a frame has a bound, frames of lanes that
nobody opened are dropped, and nothing is queued here beyond what a socket holds: who does not read a lane stops them
all, and then the container waits. Threads and sockets, because pipes cannot be waited for on Windows.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from io import BufferedReader, FileIO

from .relay import HEADER, PIECE_BYTES

_LINE_BYTES = 64 << 10
_WORDS_BYTES = 4096


class Lanes:
    """Connections through the stdin and stdout of a process.

    Args:
        stdin: unbuffered.
        stdout: unbuffered.
        on_end: called once, from a thread, when nothing more can come.
    """

    def __init__(self, stdin: FileIO, stdout: FileIO, *, on_end: Callable[[], None]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._on_end = on_end
        self._lock = threading.Lock()
        self._ends: dict[int, socket.socket] = {}
        """Our end of each open lane."""
        self._next = 1
        self._orders: deque[bytes] = deque()
        self._woken, self._waker = socket.socketpair()
        for each in (self._woken, self._waker):
            each.setblocking(False)
        self._closed = False
        self._threads = [
            threading.Thread(target=target, name=f"container-{name}", daemon=True)
            for name, target in (("reader", self._read), ("writer", self._write))
        ]

    def start(self, first: bytes) -> None:
        """Send `first` as it is, then carry."""
        self._orders.append(first)
        for thread in self._threads:
            thread.start()

    def open(self, name: str) -> socket.socket:
        """A new connection to the kernel's socket of that name; the caller closes it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(True)
        with self._lock:
            number, self._next = self._next, self._next % 0xFFFF + 1
            self._ends[number] = ours
        self.order({"open": [number, name]})
        return theirs

    def order(self, command: Mapping[str, object]) -> None:
        """Send the relay a command; never blocks."""
        self._orders.append(frame(0, json.dumps(command).encode()))
        self._wake()

    def close(self) -> None:
        """Close the pipes and the lanes, which ends the relay. From any thread; idempotent."""
        with self._lock:
            self._closed = True
            ends = list(self._ends.values())
        for each in ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._wake()

    def join(self) -> None:
        """After the process has ended: wait for the threads, and close what they used."""
        self.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5)
        for each in (self._woken, self._waker, *self._ends.values()):
            each.close()
        self._ends.clear()
        for file in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                file.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is awake, or gone
            self._waker.send(b"x")

    # ---- from the container --------------------------------------------------------------------------------------

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while len(header := read_exactly(self._stdout, HEADER.size)) == HEADER.size:
                number, size = HEADER.unpack(header)
                if size > PIECE_BYTES:
                    break  # no relay of ours
                content = read_exactly(self._stdout, size) if size else b""
                if len(content) < size:
                    break
                self._deliver(number, content)
        with self._lock:
            ends = list(self._ends.values())
        for each in ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._on_end()

    def _deliver(self, number: int, content: bytes) -> None:
        with self._lock:
            end = self._ends.get(number)
        if end is None:
            return
        with contextlib.suppress(OSError):  # whoever used the lane has closed it
            if content:
                end.sendall(content)
            else:
                end.shutdown(socket.SHUT_RDWR)

    # ---- to the container ----------------------------------------------------------------------------------------

    def _write(self) -> None:
        known: dict[int, socket.socket] = {}
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ, 0)
            while not self._closed:
                while self._orders:
                    write_all(self._stdin, self._orders.popleft())
                with self._lock:
                    new = {number: end for number, end in self._ends.items() if number not in known}
                for number, end in new.items():
                    selector.register(end, selectors.EVENT_READ, number)
                known |= new
                for key, _ in selector.select():
                    if key.data == 0:
                        with contextlib.suppress(BlockingIOError):
                            self._woken.recv(4096)
                    elif not self._send(key.data, known[key.data]):
                        selector.unregister(known.pop(key.data))
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _send(self, number: int, end: socket.socket) -> bool:
        """Pass a piece of a lane on; False when the lane has been closed."""
        try:
            content = end.recv(PIECE_BYTES)
        except OSError:
            content = b""
        while self._orders:  # such as the one that opens this lane
            write_all(self._stdin, self._orders.popleft())
        write_all(self._stdin, frame(number, content))
        if not content:
            with self._lock:
                self._ends.pop(number, None)
            end.close()
        return bool(content)


class Lines:
    """What the relay says on stderr, and what others say there: a container's engine, when it refuses.

    Args:
        stderr: of the process.
        word: begins the relay's lines.
        on_line: takes what such a line says, in a thread.
    """

    def __init__(self, stderr: BufferedReader, word: str, on_line: Callable[[Mapping[str, object]], None]) -> None:
        self._stderr, self._word, self._on_line = stderr, f"{word} ".encode(), on_line
        self._others = b""
        self._thread = threading.Thread(target=self._read, name="container-lines", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether no more can come."""
        return not self._thread.is_alive()

    def words(self) -> str:
        """The last of the other lines."""
        return next((line.strip() for line in reversed(self._others.decode(errors="replace").splitlines()) if line), "")

    def join(self) -> None:
        """After the process has ended."""
        self._thread.join(5)
        self._stderr.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := self._stderr.readline(_LINE_BYTES):
                if line.startswith(self._word):
                    with contextlib.suppress(ValueError, RecursionError):
                        said = json.loads(line[len(self._word) :])
                        if isinstance(said, dict):
                            self._on_line(said)
                else:
                    self._others = (self._others + line)[-_WORDS_BYTES:]


def frame(number: int, content: bytes) -> bytes:
    """A frame of a lane."""
    return HEADER.pack(number, len(content)) + content


def read_exactly(file: FileIO, size: int) -> bytes:
    """That many bytes; fewer at the end."""
    content = b""
    while len(content) < size and (piece := file.read(size - len(content))):
        content += piece
    return content


def write_all(file: FileIO, content: bytes) -> None:
    """All of it: a pipe may take less at a time."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]
