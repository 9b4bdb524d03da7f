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
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

START_TIMEOUT_S = 90.0
KINDS = (
    "server",
    "gateway",
    pytest.param(
        "enterprise",
        # Its pyzmq has no wheel for a newer Python.
        marks=[pytest.mark.may_skip] if sys.version_info >= (3, 12) else [],
    ),
)
"""For `parametrize`: Jupyter Server, Kernel Gateway and Enterprise Gateway."""


@dataclass
class Server:
    """A server that can be killed and started again at the same address."""

    kind: str
    home: Path
    port: int
    token: str
    options: Sequence[str] = ()
    """Further options of its command line."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it and its kernels say."""
        return self.home / "log"

    @property
    def root(self) -> Path:
        """The folder that it serves, and its kernels start in."""
        return self.home / "root"

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

    def add_kernelspec(self, name: str, first: str = "") -> None:
        """A kernel in this environment, which runs a line of Python first."""
        spec = self.home / "jupyter" / "kernels" / name
        spec.mkdir(parents=True, exist_ok=True)
        program = f"{first}\nfrom ipykernel.kernelapp import launch_new_instance\nlaunch_new_instance()"
        command = [sys.executable, "-P", "-c", program, "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}), "utf-8"
        )

    def kernel_pids(self) -> list[int]:
        """Its kernels that run."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.root.mkdir(exist_ok=True)
        python, arguments = _command(self)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [python, "-P", "-m", *arguments, *self.options],
                cwd=self.root,
                env={
                    "PATH": f"{Path(python).parent}:{os.environ.get('PATH', '')}",
                    "HOME": str(self.home),
                    "JUPYTER_PATH": str(self.home / "jupyter"),
                    "LANG": "C.UTF-8",
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.ask("GET", "api/kernels")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def end(self, *, kill: bool = False) -> None:
        """End it, with its kernels; `kill` leaves it no time to say goodbye."""
        process, self.process = self.process, None
        if process is None:
            return
        kernels = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        for kernel in kernels:
            try:
                kernel.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(kernels, timeout=10)


@contextmanager
def jupyter(kind: str, *options: str) -> Generator[Server]:
    """Start a `server` (Jupyter Server), a `gateway` (Kernel Gateway) or an `enterprise` gateway, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="jupyter-", ignore_cleanup_errors=True) as home:
        server = Server(kind, Path(home), port, secrets.token_hex(16), options)
        try:
            server.start()
            yield server
        finally:
            server.end()


def _command(server: Server) -> tuple[str, list[str]]:
    """The Python, and what follows -m."""
    match server.kind:
        case "server":
            return sys.executable, [
                "jupyter_server",
                "--allow-root",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={server.port}",
                f"--ServerApp.root_dir={server.root}",
                f"--IdentityProvider.token={server.token}",
                "--ServerApp.open_browser=False",
                "--ServerApp.jpserver_extensions={}",
            ]
        case "gateway":
            return sys.executable, [
                "kernel_gateway",
                "--KernelGatewayApp.ip=127.0.0.1",
                f"--KernelGatewayApp.port={server.port}",
                f"--KernelGatewayApp.auth_token={server.token}",
                "--JupyterWebsocketPersonality.list_kernels=True",
            ]
    server.add_kernelspec("python3")  # the gateway's own environment has none
    return _enterprise_python(), [
        "enterprise_gateway",
        "--EnterpriseGatewayApp.ip=127.0.0.1",
        f"--EnterpriseGatewayApp.port={server.port}",
        "--EnterpriseGatewayApp.port_retries=0",
        f"--EnterpriseGatewayApp.auth_token={server.token}",
        "--EnterpriseGatewayApp.list_kernels=True",
        # Root may start kernels here (in CI it does), and somebody has to be refused.
        "--EnterpriseGatewayApp.unauthorized_users=mallory",
        # A client that sends variables empties the kernel's environment but for these.
        "--EnterpriseGatewayApp.inherited_envs=['PATH','HOME','LANG']",
    ]


def _enterprise_python() -> str:
    """Enterprise Gateway's virtual environment: it needs older packages than we do."""
    folder = os.environ.get("GATEWAY_VENV", "")
    python = Path(folder) / "bin" / "python"
    if not folder or not python.is_file():
        pytest.skip("GATEWAY_VENV does not name an environment with Enterprise Gateway; `make test` makes one")
    return str(python)
