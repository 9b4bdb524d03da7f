"""Scalebox, by its official SDK (1.0.10): all that the SDK does otherwise than one would think is dealt with here."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from ...errors import SettingsError
from ...types import MimeBundle, Output, OutputHook
from .engine import MIMETYPES, OURS, CloudFailure, CloudSandbox, CloudTarget
from .failures import translated
from .scalebox_failures import failure_of
from .sdks import check_installed

if TYPE_CHECKING:
    from scalebox.code_interpreter import Context, Sandbox
    from scalebox.code_interpreter.models import ExecutionError, OutputMessage, Result

_DOMAIN = "api.scalebox.dev/v1"
"""The SDK's default; it is passed on all the same, or the SDK would look into SBX_DOMAIN."""
_TEMPLATE = "code-interpreter"
_START_S = 150.0
_POLL_S = 0.3
_REQUEST_S = 30.0
_COPY_S = 600.0


class ScaleboxEngine:
    """Scalebox as a `CloudEngine`.

    Args:
        target: the account, and what is wanted there.

    Raises:
        MissingDependencyError: the SDK is not installed, or E2B's has overwritten a part of it.
        SettingsError: SBX_DEBUG is set.
    """

    name = "scalebox"
    title = "Scalebox"
    preamble = ""

    def __init__(self, target: CloudTarget) -> None:
        check_installed(self.name, "scalebox.code_interpreter")
        if os.environ.get("SBX_DEBUG", "").lower() == "true":
            raise SettingsError(
                "SBX_DEBUG is set.",
                name="SBX_DEBUG",
                source="environment",
                why="With it, Scalebox's SDK speaks to this machine, and ends no sandbox.",
                hint="Unset it.",
            )
        self._target = target
        self._domain = target.domain or _DOMAIN
        self._arguments: dict[str, object] = {}
        """What the SDK's object of the sandbox is made from, anew after each `disconnect`."""
        self._box: Sandbox | None = None
        self._context: Context | None = None
        """Where code runs; None is the sandbox's own default one."""

    # ---- life -----------------------------------------------------------------------------------------------------

    def create(self) -> str:
        """As `CloudEngine.create`."""
        with self._translated(creating=True):
            box = _sandbox_class().create(
                template=self._target.template or _TEMPLATE,
                timeout=self._target.life_s,
                metadata=dict(OURS),
                envs=dict(self._target.environment),
                api_key=self._target.api_key,
                domain=self._domain,
                request_timeout=_REQUEST_S,
            )
            sandbox_id = str(box.sandbox_id)
            self._remember(sandbox_id, box.sandbox_domain, box._envd_access_token)
            self._box = box
        try:
            self._wait(box)
        except BaseException:
            with contextlib.suppress(CloudFailure):
                self.kill(sandbox_id)
            raise
        return sandbox_id

    def connect(self, sandbox_id: str) -> None:
        """As `CloudEngine.connect`.

        Not by the SDK's own `connect`: that of 1.0.10 ends with KeyError: 'object_storage'.
        """
        with self._translated():
            info = _sandbox_class().get_info(sandbox_id, api_key=self._target.api_key, domain=self._domain)
            self._remember(sandbox_id, info.sandbox_domain, info._envd_access_token)
        self._context = None
        self._wait(self._sandbox())

    def extend(self, life_s: int) -> None:
        """As `CloudEngine.extend`."""
        with self._translated():
            _sandbox_class().set_timeout(self._id, life_s, api_key=self._target.api_key, domain=self._domain)

    def kill(self, sandbox_id: str) -> bool:
        """As `CloudEngine.kill`."""
        with self._translated():
            try:
                return bool(_sandbox_class().kill(sandbox_id, api_key=self._target.api_key, domain=self._domain))
            except Exception as problem:
                if failure_of(problem).kind == "gone":  # the SDK stumbles over a 404 without a body of its kind
                    return False
                raise

    def list(self) -> Sequence[CloudSandbox]:
        """As `CloudEngine.list`."""
        with self._translated():
            found = _sandbox_class().list(api_key=self._target.api_key, domain=self._domain)
        return [
            CloudSandbox(
                str(each.sandbox_id),
                each.started_at,
                isinstance(each.metadata, dict) and OURS.items() <= each.metadata.items(),
            )
            for each in found
        ]

    def disconnect(self) -> None:
        """As `CloudEngine.disconnect`."""
        box, self._box = self._box, None
        if box is not None:
            with contextlib.suppress(Exception):
                box.close()

    # ---- code -----------------------------------------------------------------------------------------------------

    def run(self, code: str, *, on_output: OutputHook, timeout_s: float) -> None:
        """As `CloudEngine.run`."""

        def text(message: OutputMessage) -> None:
            on_output(
                {"output_type": "stream", "name": "stderr" if message.error else "stdout", "text": message.content}
            )

        def result(shown: Result) -> None:
            on_output(_rich(shown))

        def error(raised: ExecutionError) -> None:
            lines = str(raised.traceback).split("\n")
            on_output({"output_type": "error", "ename": raised.name, "evalue": raised.value, "traceback": lines})

        with self._translated():
            box = self._sandbox()
            box.patience_s = timeout_s
            box.run_code(
                code,
                language=None if self._context else "python",
                context=self._context,
                on_stdout=text,
                on_stderr=text,
                on_result=result,
                on_error=error,
                timeout=timeout_s,
                request_timeout=_REQUEST_S,
            )

    def interrupt(self, pid: int) -> None:
        """As `CloudEngine.interrupt`; the SDK knows no interrupt of its own."""
        self._signal("INT", pid)

    def replace_context(self, pid: int) -> None:
        """As `CloudEngine.replace_context`."""
        before, self._context = self._context, None
        if pid:
            self._signal("KILL", pid)
        with self._translated():
            box = self._sandbox()
            if before is not None:
                box.destroy_context(before)
            self._context = box.create_code_context(request_timeout=_REQUEST_S)

    def _signal(self, name: str, pid: int) -> None:
        with self._translated():
            # Whether there was such a process is no matter.
            self._sandbox().commands.run(f"kill -{name} {pid} || true", timeout=_REQUEST_S, request_timeout=_REQUEST_S)

    # ---- files ----------------------------------------------------------------------------------------------------

    def write(self, path: str, source: BinaryIO) -> None:
        """As `CloudEngine.write`; the SDK holds the file in memory as well."""
        with self._translated(file=True):
            self._sandbox().files.write(path, source.read(), "root", _COPY_S)

    def read(self, path: str) -> bytes:
        """As `CloudEngine.read`; the SDK would take a `?` or `#` of the name for a part of the address."""
        with self._translated(file=True):
            return bytes(self._sandbox().files.read(quote(path), format="bytes", request_timeout=_COPY_S))

    # ---- inside ---------------------------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return str(self._arguments.get("sandbox_id", ""))

    def _remember(self, sandbox_id: str, domain: object, token: object) -> None:
        self._arguments = {"sandbox_id": sandbox_id, "sandbox_domain": domain, "token": token}

    def _sandbox(self) -> Sandbox:
        """The SDK's object of the sandbox, made from what is known of it."""
        if self._box is None:
            token = self._arguments.get("token")
            headers = {"Authorization": "Bearer root"}  # as the SDK does
            if isinstance(token, str) and token:
                headers["X-Access-Token"] = token
            from scalebox import ConnectionConfig

            self._box = _sandbox_class()(
                sandbox_id=self._id,
                sandbox_domain=self._arguments.get("sandbox_domain"),
                envd_version=None,
                envd_access_token=token,
                object_storage=None,
                network_proxy=None,
                connection_config=ConnectionConfig(
                    api_key=self._target.api_key, domain=self._domain, headers=headers, request_timeout=_REQUEST_S
                ),
            )
        return self._box

    def _wait(self, box: Sandbox) -> None:
        """Wait until the sandbox takes requests. Raises CloudFailure."""
        end = time.monotonic() + _START_S
        while True:
            try:
                with self._translated():
                    if box.answers():
                        return
            except CloudFailure as failure:
                if failure.kind in ("key", "forbidden"):
                    raise
            if time.monotonic() > end:
                raise CloudFailure("late", f"the sandbox did not start within {_START_S:g} seconds")
            time.sleep(_POLL_S)

    def _translated(self, *, creating: bool = False, file: bool = False) -> contextlib.AbstractContextManager[None]:
        return translated(failure_of, self._target.api_key, creating=creating, file=file)


def _rich(result: Result) -> Output:
    """A result as an output; what it says is cleaned by whoever takes it."""
    data: MimeBundle = {}
    for field, mimetype in MIMETYPES.items():
        value = getattr(result, field)
        if isinstance(value, str) and value:
            data[mimetype] = value
    if result.json_data is not None:
        data["application/json"] = result.json_data
    if isinstance(result.extra, dict):
        data |= {str(key): str(value) for key, value in result.extra.items() if "/" in str(key)}
    if result.is_main_result:
        return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}
    return {"output_type": "display_data", "data": data, "metadata": {}}


_made: list[type[Sandbox]] = []


def _sandbox_class() -> type[Sandbox]:
    """The SDK's class with the changes that it needs; made on first use, since the SDK is imported then."""
    if not _made:
        from .scalebox_sandbox import OurSandbox

        # Without a handler of its own, "Response 401" would stand in the notebook.
        logging.getLogger("scalebox").addHandler(logging.NullHandler())
        _made.append(OurSandbox)
    return _made[0]
