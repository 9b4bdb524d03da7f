"""E2B, by its official SDK (e2b-code-interpreter 2.11 on e2b 2.63)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from ...types import OutputHook
from .e2b_failures import failure_of
from .e2b_results import PREAMBLE, rich
from .engine import OURS, CloudFailure, CloudSandbox, CloudTarget
from .failures import translated
from .sdks import check_installed

if TYPE_CHECKING:
    from e2b_code_interpreter import Context
    from e2b_code_interpreter.models import ExecutionError, OutputMessage, Result

    from .e2b_sandbox import OurSandbox

_DOMAIN = "e2b.app"
"""The SDK's default; it is passed on all the same, or the SDK would look into the environment itself."""
_TEMPLATE = "code-interpreter-v1"
_START_S = 120.0
_POLL_S = 0.3
_REQUEST_S = 30.0
_MAX_FILE = (1 << 30) + (1 << 20)
"""Bytes of a file that comes: more than is ever asked for, so it is not what was asked for."""
_PAGES = 20
"""Of a list of sandboxes, 100 on each: an account may have 1,100 at once (https://e2b.dev/docs/sandbox/rate-limits)."""
_USER = "root"
"""As which code runs over there: what signals it, and shares its files, has to be the same."""
_RESTARTED = "ContextRestarting"
"""What the interpreter calls the end of a kernel under its code; it has no traceback, which code's exceptions have."""
_ENDED = "UnexpectedEndOfExecution"
"""What it calls its own loss of the kernel."""


class E2BEngine:
    """E2B as a `CloudEngine`.

    Args:
        target: the account, and what is wanted there.

    Raises:
        MissingDependencyError: the SDK is not installed, or Scalebox's has overwritten a part of it.
    """

    name = "e2b"
    title = "E2B"
    preamble = PREAMBLE

    def __init__(self, target: CloudTarget) -> None:
        check_installed(self.name, "e2b_code_interpreter")
        self._target = target
        domain = target.domain or _DOMAIN
        self._options: dict[str, Any] = {
            "api_key": target.api_key,
            "domain": domain,
            "api_url": target.api_url or f"https://api.{domain}",
            "sandbox_url": target.sandbox_url or None,
            "debug": False,
            "http_version": "2",
            "request_timeout": _REQUEST_S,
        }
        """All that the SDK would otherwise look up in the environment."""
        self._box: OurSandbox | None = None
        self._context: Context | None = None
        """Where code runs; None is the sandbox's own default one."""

    # ---- life -----------------------------------------------------------------------------------------------------

    def create(self) -> str:
        """As `CloudEngine.create`."""
        with self._translated(creating=True):
            box = self._box = _sandbox_class().create(
                template=self._target.template or _TEMPLATE,
                timeout=self._target.life_s,
                metadata=dict(OURS),
                envs=dict(self._target.environment),
                **self._options,
            )
        try:
            self._wait(box)
        except BaseException:
            with contextlib.suppress(CloudFailure):
                self.kill(box.sandbox_id)
            raise
        return str(box.sandbox_id)

    def connect(self, sandbox_id: str) -> None:
        """As `CloudEngine.connect`."""
        with self._translated():
            self._box = _sandbox_class().connect(sandbox_id, timeout=self._target.life_s, **self._options)
        self._context = None
        self._wait(self._sandbox())

    def extend(self, life_s: int) -> None:
        """As `CloudEngine.extend`."""
        with self._translated():
            self._sandbox().set_timeout(life_s)

    def kill(self, sandbox_id: str) -> bool:
        """As `CloudEngine.kill`."""
        with self._translated():
            return bool(_sandbox_class().kill(sandbox_id, **self._options))

    def list(self) -> Sequence[CloudSandbox]:
        """As `CloudEngine.list`."""
        from e2b import SandboxQuery, SandboxState

        found = []
        with self._translated():
            pages = _sandbox_class().list(query=SandboxQuery(state=[SandboxState.RUNNING]), limit=100, **self._options)
            for _ in range(_PAGES):
                if pages.has_next:
                    found += pages.next_items()
        return [
            CloudSandbox(
                str(each.sandbox_id),
                each.started_at,
                isinstance(each.metadata, dict) and OURS.items() <= each.metadata.items(),
            )
            for each in found
        ]

    def disconnect(self) -> None:
        """As `CloudEngine.disconnect`; what the SDK shares with others goes on."""
        if self._box is not None:
            self._box.close()

    # ---- code -----------------------------------------------------------------------------------------------------

    def run(self, code: str, *, on_output: OutputHook, timeout_s: float) -> None:
        """As `CloudEngine.run`."""
        lost = False

        def text(message: OutputMessage) -> None:
            on_output(
                {"output_type": "stream", "name": "stderr" if message.error else "stdout", "text": str(message.line)}
            )

        def result(shown: Result) -> None:
            on_output(rich(shown))

        def error(raised: ExecutionError) -> None:
            nonlocal lost
            if not raised.traceback and raised.name in (_RESTARTED, _ENDED):
                lost = raised.name == _ENDED  # a kernel that restarted is found out by the generation it lacks
                return
            lines = str(raised.traceback).split("\n")
            on_output(
                {"output_type": "error", "ename": str(raised.name), "evalue": str(raised.value), "traceback": lines}
            )

        from e2b import NotFoundException

        with self._translated():
            try:
                self._sandbox().run_code(
                    code,
                    context=self._context,
                    on_stdout=text,
                    on_stderr=text,
                    on_result=result,
                    on_error=error,
                    timeout=timeout_s,
                    request_timeout=_REQUEST_S,
                )
            except NotFoundException:
                self._context = None  # somebody else removed it; the default one is always there
                raise
        if lost:
            raise CloudFailure("cut")

    def interrupt(self, pid: int) -> None:
        """As `CloudEngine.interrupt`; the SDK knows no interrupt of its own, and code whose client left runs on."""
        self._signal("INT", pid)

    def replace_context(self, pid: int) -> None:
        """As `CloudEngine.replace_context`."""
        from e2b import NotFoundException

        before, self._context = self._context, None
        if pid:
            self._signal("KILL", pid)
        with self._translated():
            box = self._sandbox()
            if before is not None:
                with contextlib.suppress(NotFoundException):
                    box.remove_code_context(before)
            self._context = box.create_code_context(request_timeout=_REQUEST_S)

    def _signal(self, name: str, pid: int) -> None:
        with self._translated():
            # Whether there was such a process is no matter.
            self._sandbox().commands.run(f"kill -{name} {pid} || true", user=_USER, timeout=_REQUEST_S)

    # ---- files ----------------------------------------------------------------------------------------------------

    def write(self, path: str, source: BinaryIO) -> None:
        """As `CloudEngine.write`."""
        with self._translated(file=True):
            self._sandbox().files.write(path, source, user=_USER)

    def read(self, path: str) -> bytes:
        """As `CloudEngine.read`."""
        data = bytearray()
        with self._translated(file=True):
            pieces = self._sandbox().files.read(path, format="stream", user=_USER)
            with contextlib.closing(pieces):
                for piece in pieces:
                    data += piece
                    if len(data) > _MAX_FILE:
                        raise CloudFailure("file", "it goes on and on")
        return bytes(data)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _sandbox(self) -> OurSandbox:
        if self._box is None:
            raise CloudFailure("gone")
        return self._box

    def _wait(self, box: OurSandbox) -> None:
        """Wait until the code interpreter takes requests. Raises CloudFailure."""
        end = time.monotonic() + _START_S
        while True:
            try:
                with self._translated():
                    box.list_code_contexts()
                    return
            except CloudFailure as failure:
                if failure.kind not in ("server", "cut", "unreachable") or time.monotonic() > end:
                    raise
            time.sleep(_POLL_S)

    def _translated(self, *, creating: bool = False, file: bool = False) -> contextlib.AbstractContextManager[None]:
        return translated(failure_of, self._target.api_key, creating=creating, file=file)


_made: list[type[OurSandbox]] = []


def _sandbox_class() -> type[OurSandbox]:
    """The SDK's class with the changes that it needs; made on first use, since the SDK is imported then."""
    if not _made:
        from .e2b_sandbox import OurSandbox

        for name in ("e2b", "e2b_code_interpreter"):  # what they log would stand in the notebook
            logging.getLogger(name).addHandler(logging.NullHandler())
        _made.append(OurSandbox)
    return _made[0]
