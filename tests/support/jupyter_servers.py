"""Real Jupyter servers and gateways on loopback, started from their packages."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 90.0
_MODULES = {"server": "jupyter_server", "gateway": "kernel_gateway"}


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    root: Path

    def kernels(self) -> list[dict[str, str]]:
        """The kernels that it runs."""
        found: list[dict[str, str]] = json.loads(self.ask("GET", "api/kernels"))
        return found

    def ask(self, verb: str, path: str, body: bytes | None = None) -> bytes:
        """One request, with the token."""
        request = urllib.request.Request(
            f"{self.url}/{path}", body, {"Authorization": f"token {self.token}"}, method=verb
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            content: bytes = response.read()
            return content


@contextmanager
def jupyter(kind: str) -> Generator[Server]:
    """Start a `server` (Jupyter Server) or a `gateway` (Kernel Gateway), wait until it answers, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="jupyter-") as home, open(Path(home) / "log", "w+b") as log:
        root = Path(home) / "root"
        root.mkdir()
        command = [sys.executable, "-P", "-m", _MODULES[kind]]
        if kind == "server":
            command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}"]
            command += [
                f"--IdentityProvider.token={token}",
                "--ServerApp.open_browser=False",
                "--ServerApp.jpserver_extensions={}",
            ]
        else:
            command += ["--KernelGatewayApp.ip=127.0.0.1", f"--KernelGatewayApp.port={port}"]
            command += [f"--KernelGatewayApp.auth_token={token}", "--JupyterWebsocketPersonality.list_kernels=True"]
        command += ["--allow-root"] if kind == "server" else []
        process = subprocess.Popen(
            command,
            cwd=root,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
                "HOME": home,
                "LANG": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        server = Server(f"http://127.0.0.1:{port}", token, process, root)
        try:
            _wait(server, Path(log.name))
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait(server: Server, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and server.process.poll() is None:
        try:
            server.ask("GET", "api/kernels")
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")
