"""A model server on loopback that says what it is told to say, at once, and can misbehave.

    with ModelServer([Reply(code="print(1)"), Reply("It printed 1.")]) as server:
        Session(openai_base_url=server.url, openai_api_key="k").ask("...")

It speaks OpenAI's chat completions, at Azure's addresses too, and Anthropic's messages (both are at `server.root`).

Replies are taken in order, one for each chat request; a function of the request's JSON may stand in their place. As a
process of its own (for benchmarks, whose CPU time must not hold the server's):

    python -m tests.support.model_server --script replies.json [--cycle]

where the file has a list of objects with `Reply`'s fields. It prints its port on one line and serves until its standard
input closes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Literal

from tests.support import dialects

Fault = Literal["", "cut", "end_early", "reset", "hang", "bad_json", "html", "no_end"]


@dataclass(frozen=True)
class Reply:
    """What the server does with one chat request."""

    text: str = ""
    code: str | None = None
    """Call the tool `python` with this code; a fenced block at the end of the text where no tools were offered."""
    tool_calls: Sequence[tuple[str, str, str]] = ()
    """Further calls: id, name, arguments."""
    chunks: int = 0
    """Pieces that the text is cut into; 0: one for each word."""
    usage: Mapping[str, object] = field(default_factory=lambda: {"prompt_tokens": 20, "completion_tokens": 10})
    finish_reason: str | None = None
    """Unless set, `tool_calls` or `stop`."""
    events: Sequence[object] | None = None
    """The `data` of each event of the stream, instead of all of the above: JSON values."""
    status: int = 200
    body: object = None
    """Not a stream but this: text as it is, anything else as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """These bytes and no others, not even a status; then the connection ends."""
    fault: Fault = ""
    """What goes wrong after half of the stream (`hang`, `cut`, `end_early`, `reset`, `bad_json`), instead of it
    (`html`), or at its end (`no_end`: the stream is never closed)."""
    delay_s: float = 0.0
    """Before each event."""

    @staticmethod
    def of_json(value: Mapping[str, object]) -> Reply:
        """From an object of a script file."""
        return Reply(**value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    raw: bytes
    """The body."""
    at: float = field(default_factory=time.monotonic)
    """When it came, seconds, monotonic."""

    @property
    def json(self) -> dict[str, object]:
        """The body, parsed."""
        value: dict[str, object] = json.loads(self.raw)
        return value


REFUSALS = {
    "tools": "registry/model does not support tools",
    "temperature": "Unsupported value: 'temperature' does not support 0.03 with this model.",
    "stream_options": "Unknown parameter: 'stream_options'.",
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "seed": "Extra inputs are not permitted: seed",
}


class ModelServer:
    """The server, in threads of this process. A context manager.

    Args:
        replies: in order; a function of the request's JSON; or one reply for all.
        models: what `/v1/models` lists.
        refuse: parameters answered with status 400 and real servers' words.
        listings: where the models are listed.
        tls: speak TLS, with a certificate that nobody has signed.
    """

    def __init__(
        self,
        replies: Sequence[Reply] | Iterator[Reply] | Callable[[dict[str, object]], Reply] | Reply,
        *,
        models: Sequence[str] = ("scripted",),
        refuse: Sequence[str] = (),
        listings: Sequence[str] = ("/models",),
        tls: bool = False,
    ) -> None:
        self.seen: list[Seen] = []
        """Chat requests, the refused ones too."""
        self.connections = 0
        self._models = models
        self._refuse = refuse
        self._listings = tuple(listings)
        self._choose: Callable[[dict[str, object]], Reply]
        if isinstance(replies, Reply):
            self._choose = lambda request: replies
        elif callable(replies):
            self._choose = replies
        else:
            script = iter(replies)
            over = Reply(status=500, body={"error": {"message": "the script is over"}})
            self._choose = lambda request: next(script, over)
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(Path(__file__).with_name("self-signed.pem"))
        self.root = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"

    def __enter__(self) -> ModelServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and break every connection off."""
        self._closing.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def open_connections(self) -> int:
        """How many clients are connected, as far as the server can tell."""
        gone = []
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                if sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                    gone.append(sock)
        return len(self._open) - len(gone)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._open.add(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        if self._tls is not None:
            with contextlib.suppress(OSError):
                sock = self._tls.wrap_socket(sock, server_side=True)
        with contextlib.suppress(OSError, ValueError), sock, sock.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while (line := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.strip().lower()] = value.strip()
                raw = stream.read(int(headers.get("content-length", 0)))
                if not self._answer(sock, Seen(method, path, headers, raw)):
                    break
        self._open.discard(sock)

    def _answer(self, sock: socket.socket, request: Seen) -> bool:
        """Send the reply; False ends the connection."""
        path = request.path.partition("?")[0]
        if path.endswith(self._listings):
            sock.sendall(_whole(200, {"object": "list", "data": [{"id": name} for name in self._models]}, {}))
            return True
        if not path.endswith(("/chat/completions", "/v1/messages")):
            sock.sendall(_whole(404, {"detail": "Not Found"}, {}))
            return True
        self.seen.append(request)
        body = request.json
        for name in self._refuse:
            if name in body:
                error = {"message": REFUSALS[name], "type": "invalid_request_error", "param": None, "code": None}
                sock.sendall(_whole(400, {"error": error}, {}))
                return True
        reply = self._choose(body)
        if reply.raw is not None:
            sock.sendall(reply.raw)
            return False
        if reply.fault == "html":
            sock.sendall(_whole(200, "<html><title>Welcome</title><body>Hello</body></html>", {}))
            return True
        if reply.body is not None or reply.status != 200:
            sock.sendall(_whole(reply.status, reply.body, reply.headers))
            return True
        return self._stream(sock, reply, dialects.events(path, reply, body))

    def _stream(self, sock: socket.socket, reply: Reply, events: list[str]) -> bool:
        half = len(events) // 2
        headers = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **reply.headers}
        head = f"HTTP/1.1 200 OK\r\n{_lines(headers)}\r\n".encode()
        first = [head, *(_chunk(event) for event in events[: half if reply.fault else None])]
        if reply.delay_s:
            for piece in first:
                sock.sendall(piece)
                if self._closing.wait(reply.delay_s):
                    return False
        else:
            sock.sendall(b"".join(first))
        if reply.fault in ("hang", "no_end"):
            if reply.fault == "no_end":
                sock.sendall(b"".join(_chunk(event) for event in events[half:]))
            self._closing.wait(60)
            return False
        if reply.fault == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif reply.fault == "bad_json":
            sock.sendall(_chunk('data: {"choices": [{"delta": {"cont'))
        elif reply.fault == "end_early":
            sock.sendall(b"0\r\n\r\n")
        elif not reply.fault:
            sock.sendall(b"0\r\n\r\n")
            return True
        if reply.fault == "cut":
            sock.shutdown(socket.SHUT_RDWR)
        return False


def _whole(status: int, body: object, headers: Mapping[str, str]) -> bytes:
    kind = "text/html" if isinstance(body, str) else "application/json"
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{_lines(headers)}\r\n"
    return head.encode() + data


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _chunk(lines: str) -> bytes:
    event = f"{lines}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def main() -> None:
    """Serve a script file until standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--cycle", action="store_true", help="begin again at the end")
    arguments = parser.parse_args()
    replies = [Reply.of_json(value) for value in json.loads(arguments.script.read_text())]
    with ModelServer(cycle(replies) if arguments.cycle else replies) as server:
        print(server.port, flush=True)
        while sys.stdin.read(1):
            time.sleep(0)


if __name__ == "__main__":
    main()
