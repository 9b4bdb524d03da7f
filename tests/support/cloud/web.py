"""What the services have in common: HTTP, connect-rpc's envelopes, sandboxes that expire, and faults on demand."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.cloud.room import Gone, Room

CERTIFICATE = Path(__file__).parent.parent / "self-signed.pem"
"""Of 127.0.0.1."""


@dataclass
class Fault:
    """What happens to the next requests of a route instead of, or before, what ought to."""

    route: str
    """A regular expression for `VERB /path`; searched, not matched."""
    times: int = 1
    delay_s: float = 0.0
    """Wait before all else."""
    status: int = 0
    """Answer this; 0: as ever."""
    body: object = None
    """With `status`: text as it is, anything else as JSON; unless given, what the service says itself."""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Break the connection off after so many pieces of a stream; 0: before any answer."""
    lines: list[str] | None = None
    """A stream's pieces, sent instead of what the code says; a service may not know it."""
    endless: bool = False
    """After those, one that does not end."""


class Cut(Exception):
    """The connection shall end here."""


class Service(ThreadingHTTPServer):
    """Sandboxes, and who may ask for them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[Handler], *, key: str, templates: list[str], prefix: str, tls: bool) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.key, self.templates, self.prefix = key, templates, prefix
        self.port: int = self.server_address[1]
        self.tls = tls
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            # The handshake is made by the thread that serves the connection, not by the one that takes all of them.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.base = Path(tempfile.mkdtemp(prefix="cloud-"))
        self.rooms: dict[str, Room] = {}
        self.faults: list[Fault] = []
        self.page = 3
        """Sandboxes on one page of a list, at most: few enough that a test meets the second one."""
        self.requests: list[str] = []
        """`VERB /path` of each, in order."""
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def create(self, template: str, environment: dict[str, str], metadata: dict[str, str], life_s: float) -> Room:
        """A new sandbox.

        Raises:
            LookupError: there is no such template.
        """
        if template not in self.templates:
            raise LookupError(template)
        room = Room(
            self.base, self.prefix, template=template, environment=environment, metadata=metadata, life_s=life_s
        )
        with self.lock:
            self.rooms[room.id] = room
        return room

    def remove(self, room_id: str) -> bool:
        """End a sandbox; whether there was one."""
        with self.lock:
            room = self.rooms.pop(room_id, None)
        if room is not None:
            room.end()
        return room is not None

    def fault(self, verb: str, path: str) -> Fault | None:
        """What shall happen to this request, if anything; counts it."""
        with self.lock:
            self.requests.append(f"{verb} {path}")
            for fault in self.faults:
                if fault.times and re.search(fault.route, f"{verb} {path}"):
                    fault.times -= 1
                    return fault
        return None

    def run(self) -> None:
        """Serve until standard input closes."""
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()
        threading.Thread(target=self._expire, daemon=True).start()
        print(json.dumps({"port": self.port}), flush=True)
        sys.stdin.read()
        self.closing.set()
        for room_id in list(self.rooms):
            self.remove(room_id)
        self.shutdown()
        shutil.rmtree(self.base, ignore_errors=True)

    def _expire(self) -> None:
        while not self.closing.wait(0.1):
            for room in list(self.rooms.values()):
                if time.time() > room.end_at:
                    self.remove(room.id)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class Handler(BaseHTTPRequestHandler):
    """One connection. A service writes `route`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Service
    cut_after: int | None = None
    instead: Fault | None = None
    """A stream of the test's own in the place of the service's."""

    def log_message(self, format: str, *args: object) -> None:
        """Not to the test's output; `requests` has them."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def route(self, verb: str, path: str, body: bytes) -> None:
        """Answer a request."""
        raise NotImplementedError

    def refuse(self, status: int, message: str) -> None:
        """An error as the service words it."""
        raise NotImplementedError

    def _serve(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        try:
            if path.startswith("/-/"):
                self._control(path, body)
                return
            fault = self.server.fault(self.command, path)
            self.cut_after, self.instead = None, None
            if fault is not None:
                self.cut_after = fault.cut_after
                self.instead = fault if fault.lines is not None or fault.endless else None
                if self.server.closing.wait(fault.delay_s) or fault.cut_after == 0:
                    raise Cut
                if fault.status:
                    self._fail(fault)
                    return
            self.route(self.command, path, body)
        except (Cut, Gone):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _fail(self, fault: Fault) -> None:
        self.extra = fault.headers
        try:
            if fault.body is None:
                self.refuse(fault.status, _WORDS.get(fault.status, "it failed"))
            elif isinstance(fault.body, str):
                self.answer(fault.status, fault.body.encode(), "text/html")
            else:
                self.answer(fault.status, fault.body)
        finally:
            self.extra = {}

    extra: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _control(self, path: str, body: bytes) -> None:
        """What the test wants; no part of the protocol."""
        wish = json.loads(body or b"{}")
        if path == "/-/fault":
            self.server.faults.append(Fault(**wish))
        elif path == "/-/heal":
            self.server.faults.clear()
        elif path == "/-/vanish":
            self.server.remove(wish["id"])
        with self.server.lock:
            rooms = [
                {"id": room.id, "template": room.template, "metadata": room.metadata, "end_at": room.end_at}
                for room in self.server.rooms.values()
            ]
            state = {
                "sandboxes": rooms,
                "requests": self.server.requests,
                "faults": [asdict(fault) for fault in self.server.faults],
            }
        self.answer(200, state)

    # ---- answers --------------------------------------------------------------------------------------------------

    def answer(self, status: int, content: object = b"", kind: str = "application/json") -> None:
        """A whole answer: bytes as they are, anything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **self.extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    @contextlib.contextmanager
    def stream(self, kind: str) -> Iterator[_Stream]:
        """An answer in pieces."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in (self.instead.headers if self.instead else {}).items():
            self.send_header(name, value)
        self.end_headers()
        yield _Stream(self)
        self.wfile.write(b"0\r\n\r\n")


class _Stream:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._left = handler.cut_after

    def send(self, data: bytes) -> None:
        """A piece; the last one before the cut, if there is to be one."""
        if self._left == 0:
            raise Cut
        if self._left is not None:
            self._left -= 1
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


def envelope(data: bytes, *, last: bool = False) -> bytes:
    """A message of a connect-rpc stream. https://connectrpc.com/docs/protocol#streaming-rpcs"""
    return struct.pack(">BI", 2 if last else 0, len(data)) + data


def opened(data: bytes) -> bytes:
    """The one message in a stream's request."""
    flags, size = struct.unpack(">BI", data[:5])
    if flags & 1:
        raise ValueError("a compressed message")
    return data[5 : 5 + size]


def deadline_of(handler: Handler) -> float | None:
    """When a connect-rpc request's time is over (of `time.monotonic`)."""
    milliseconds = handler.headers.get("connect-timeout-ms")
    return time.monotonic() + int(float(milliseconds)) / 1000 if milliseconds else None


_WORDS = {
    401: "invalid api key",
    403: "forbidden",
    404: "sandbox not found",
    429: "too many requests",
    500: "internal error",
    502: "bad gateway",
    503: "no capacity",
}


def main(handler: type[Handler], *, prefix: str, template: str, tls: bool) -> None:
    """Run a service as a command: it prints its port and serves until its standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--key", required=True)
    parser.add_argument("--template", action="append", default=[template])
    arguments = parser.parse_args()
    Service(handler, key=arguments.key, templates=arguments.template, prefix=prefix, tls=tls).run()
