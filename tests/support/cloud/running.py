"""A service of sandboxes for a test: started, watched and made to fail. Needs only the standard library."""

from __future__ import annotations

import json
import os
import secrets
import select
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

START_S = 60.0
CERTIFICATE = Path(__file__).parent.parent / "self-signed.pem"
_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Cloud:
    """A running service."""

    kind: Literal["scalebox", "e2b"]
    port: int
    key: str
    """The API key that it takes."""
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of the whole service."""
        return f"{'https' if self.kind == 'scalebox' else 'http'}://{self.address}"

    def sandboxes(self) -> list[dict[str, Any]]:
        """Those that live, oldest first: id, template, metadata, end_at."""
        found: list[dict[str, Any]] = self._ask("state")["sandboxes"]
        return found

    def requests(self) -> list[str]:
        """`VERB /path` of all requests so far."""
        seen: list[str] = self._ask("state")["requests"]
        return seen

    def fail(
        self,
        route: str,
        *,
        status: int = 0,
        times: int = 1,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        delay_s: float = 0.0,
        cut_after: int | None = None,
        lines: list[str] | None = None,
        endless: bool = False,
    ) -> None:
        """Let the next requests that match `route` fail; see `web.Fault`. The first fault that matches is taken."""
        wish = {"route": route, "status": status, "times": times, "body": body, "headers": dict(headers or {})}
        self._ask("fault", {**wish, "delay_s": delay_s, "cut_after": cut_after, "lines": lines, "endless": endless})

    def heal(self) -> None:
        """No faults from now on."""
        self._ask("heal")

    def vanish(self, sandbox_id: str) -> None:
        """End a sandbox, as an expiry does: its connections break off."""
        self._ask("vanish", {"id": sandbox_id})

    def _ask(self, what: str, wish: object = None) -> dict[str, Any]:
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{self.url}/-/{what}", json.dumps(wish or {}).encode(), timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


@contextmanager
def start(
    kind: Literal["scalebox", "e2b"], *, python: str | Path = sys.executable, templates: tuple[str, ...] = ()
) -> Iterator[Cloud]:
    """Start a service, wait until it answers, and end it with all its sandboxes.

    Args:
        kind: which service.
        python: of an environment that has its SDK, ipykernel and jupyter_client.
        templates: further ones, beside the service's default.
    """
    key = f"test-key-{secrets.token_hex(8)}"
    command = [str(python), "-P", "-m", f"tests.support.cloud.{kind}", "--key", key]
    for template in templates:
        command += ["--template", template]
    process = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else ""
        assert line, "the service did not start"
        yield Cloud(kind, json.loads(line)["port"], key, process)
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
