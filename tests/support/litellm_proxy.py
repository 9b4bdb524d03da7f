"""A real LiteLLM proxy on loopback, from a virtual environment of its own (it needs other versions than we do)."""

from __future__ import annotations

import os
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

from tests.support.model_server import Reply

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "integration" / "litellm"
START_TIMEOUT_S = 150.0


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    url: str
    """Its OpenAI-compatible address, with `/v1`."""
    pid: int
    script: list[Reply]
    """What the model `up-told` says to the next requests; the tests fill it."""
    key: str = "sk-good-0123456789"

    @property
    def root(self) -> str:
        """The address without `/v1`, as Azure's and Anthropic's SDKs want it."""
        return self.url.removesuffix("/v1")


@contextmanager
def litellm_proxy(
    *, upstream_url: str = "http://127.0.0.1:9/v1", script: list[Reply] | None = None
) -> Generator[Proxy]:
    """Start the proxy of `tests/integration/litellm`, wait until it answers, and end it.

    Args:
        upstream_url: address behind its models named `up-...`.
        script: what the server there says for `up-told`.
    """
    python = environment() / "bin" / "python"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="litellm-") as home, open(Path(home) / "log", "w+b") as log:
        command = [str(python.with_name("litellm")), "--config", str(FOLDER / "config.yaml")]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"],
            cwd=home,
            env={
                "PATH": f"{python.parent}:{os.environ.get('PATH', '')}",
                "HOME": home,
                "LANG": "C.UTF-8",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY": "False",
                "PYTHONDONTWRITEBYTECODE": "1",
                "UPSTREAM_URL": upstream_url,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health/liveliness", Path(log.name))
            yield Proxy(f"http://127.0.0.1:{port}/v1", process.pid, script if script is not None else [])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def environment() -> Path:
    """The proxy's virtual environment: LITELLM_VENV, or `.venv-litellm` of the repository; made if it is missing."""
    folder = Path(os.environ.get("LITELLM_VENV") or ROOT / ".venv-litellm")
    if not (folder / "bin" / "litellm").exists():
        script, requirements = ROOT / "scripts" / "make_venv.py", ROOT / "tests" / "requirements-litellm.txt"
        subprocess.run([sys.executable, script, folder, requirements], check=True, timeout=900)
    return folder


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and process.poll() is None:
        try:
            with opener.open(address, timeout=2):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise RuntimeError(f"the LiteLLM proxy did not start:\n{log.read_text(errors='replace')[-3000:]}")
