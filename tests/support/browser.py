"""A real browser without a window: what becomes of a page, and what it asked for."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Counter:
    """A server on loopback that counts."""

    address: str
    requests: list[str] = field(default_factory=list)
    """Paths that were asked for."""


@contextmanager
def counting_server() -> Iterator[Counter]:
    """Answer everything with an empty page, and remember it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            counter.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        counter = Counter(f"http://127.0.0.1:{server.server_address[1]}/leak")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield counter
        server.shutdown()


def dom_after(page: str, *, timeout_s: float = 60) -> str:
    """The page's elements once it has loaded and three seconds of its time have passed."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        path = f"{folder}/page.html"
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            # Nothing but loopback: a test must not depend on the network, nor reach it.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder}/profile",
            "--virtual-time-budget=3000",
            "--dump-dom",
            f"file://{path}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True)
    return done.stdout
