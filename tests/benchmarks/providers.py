"""Providers: how soon an error or a first word is there, and what switching between them leaves open."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from statistics import median

from sandbox_agent_magic import Session, providers, settings
from sandbox_agent_magic.display import NotebookDisplay
from sandbox_agent_magic.errors import ProviderError
from sandbox_agent_magic.types import JSON, Message, ModelRequest, RequestSent, TextStreamed
from tests.support.model_server import ModelServer, Reply

from .report import Row

NAMES = ("openai", "azure", "anthropic")
SWITCHES = 100


def environ_of(root: str) -> dict[str, str]:
    """Settings of all three providers, at one server."""
    return {
        "OPENAI_API_KEY": "bench",
        "OPENAI_BASE_URL": f"{root}/v1",
        "AZURE_OPENAI_API_KEY": "bench",
        "AZURE_API_BASE": root,
        "AZURE_API_VERSION": "2024-10-21",
        "AZURE_DEPLOYMENT_NAME": "scripted",
        "ANTHROPIC_API_KEY": "bench",
        "ANTHROPIC_BASE_URL": root,
    }


# ---- errors -----------------------------------------------------------------------------------------------------


def _connect(host: str, port: int, tls: bool) -> None:
    """The attempt itself, by nothing but a socket."""
    with suppress(OSError), socket.create_connection((host, port), 5) as sock:
        if tls:
            ssl.create_default_context().wrap_socket(sock, server_hostname=host)


def _seconds(job: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        job()
        taken.append(time.perf_counter() - begun)
    return median(taken)


def _fail(name: str, root: str) -> None:
    with closing(providers.create(settings.load({"agent_provider": name}, environ=environ_of(root)))) as provider:
        try:
            provider.complete(ModelRequest((Message("user", "Go."),)), on_text=lambda text: None)
        except ProviderError as exc:
            if len(exc.lines()) > 3:
                raise RuntimeError(f"an error of {len(exc.lines())} lines") from exc
            return
    raise RuntimeError("no error")


def unreachable(rounds: int) -> list[Row]:
    """The slowest provider's error, over the bare attempt to connect. The SDK is loaded already."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rows = []
    with ModelServer(Reply(), tls=True) as unsigned:
        places = {
            "refused": ("http", "127.0.0.1", port),
            "unknown host": ("http", "no-such-host.invalid", 80),
            "untrusted certificate": ("https", "127.0.0.1", unsigned.port),
        }
        for what, (scheme, host, at) in places.items():
            root = f"{scheme}://{host}:{at}"
            floor = _seconds(lambda: _connect(host, at, scheme == "https"), rounds)  # noqa: B023
            worst = 0.0
            for name in NAMES:
                _fail(name, root)
                worst = max(worst, _seconds(lambda: _fail(name, root), rounds))  # noqa: B023
            rows.append(Row(f"error when the server is not there: {what}", worst, 0.3, "s", floor, "over"))
    return rows


# ---- the first word ---------------------------------------------------------------------------------------------


def _say_the_time(listener: socket.socket) -> None:
    """A chat server whose first token, after half a second of silence, is the time at which it was sent."""

    def event(delta: dict[str, str], reason: str | None = None) -> bytes:
        data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        return f"data: {data}\n\n".encode()

    with suppress(OSError):
        while True:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65_536)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                sock.sendall(event({"role": "assistant", "content": ""}))
                time.sleep(0.5)
                sock.sendall(event({"content": f"<{time.monotonic():.6f}>"}))
                time.sleep(0.2)
                sock.sendall(event({}, "stop") + b"data: [DONE]\n\n")


def first_token(rounds: int) -> list[Row]:
    """From the server's send to the display's update."""
    delays: list[float] = []
    asked_for: list[int] = []

    def show(bundle: dict[str, JSON], _: dict[str, JSON]) -> None:
        text = str(bundle["text/plain"])
        if "<" in text and len(delays) < len(asked_for):  # later ones only count the seconds
            delays.append((time.monotonic() - float(text.split("<")[1].split(">")[0])) * 1_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_say_the_time, args=(listener,), daemon=True).start()
        root = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with closing(providers.create(settings.load({"agent_provider": "openai"}, environ=environ_of(root)))) as asked:
            for number in range(rounds + 1):
                asked_for.append(number)
                display = NotebookDisplay(show)
                display(RequestSent(1, 1))
                asked.complete(
                    ModelRequest((Message("user", "Go."),)),
                    on_text=lambda text: display(TextStreamed(text)),  # noqa: B023
                )
                display.close()
        listener.shutdown(socket.SHUT_RDWR)
    if len(delays) < rounds:
        raise RuntimeError(f"{len(delays)} of {rounds} first tokens were displayed")
    return [Row("first streamed token: from the server to the display", median(delays[1:]), 5, "ms")]


# ---- switching --------------------------------------------------------------------------------------------------


def switching() -> list[Row]:
    """File descriptors that 100 switches between providers and models of one session leave open."""
    with ModelServer(Reply("Here.")) as server:
        arguments = {name.lower(): value for name, value in environ_of(server.root).items()}
        with Session(**arguments) as session:  # type: ignore[arg-type]

            def switch(number: int) -> None:
                session.ask("Go.", overrides={"agent_provider": NAMES[number % 3], "model": f"model-{number % 7}"})

            for number in range(10):
                switch(number)
            before = len(os.listdir("/proc/self/fd"))
            for number in range(SWITCHES):
                switch(number)
            # The server is in this process: each open connection counts on both sides.
            time.sleep(0.5)
            after = len(os.listdir("/proc/self/fd"))
    return [Row(f"file descriptors left open by {SWITCHES} switches of provider", after - before, 0)]
