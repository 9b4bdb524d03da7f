"""Kernels of one Jupyter server or gateway: started, looked for, interrupted, ended."""

from __future__ import annotations

import contextlib
import re
from urllib.parse import quote

from ...errors import ExecutorError
from .patience import Patience
from .refusals import no_kernel, no_server, no_specification, not_allowed
from .rest import Refusal, Rest
from .target import Target

_ANSWER_S = 30.0
"""Of a request that starts nothing; ending or restarting a kernel may take a while."""
_BUSY = frozenset({429, 503})
"""The server has done nothing."""
_STARTS_AGAIN = _BUSY | {502}
_READS_AGAIN = _BUSY | {500, 502, 504}
_ID = re.compile(r"[0-9A-Za-z_.-]{1,100}")


class JupyterServer:
    """Kernels of one server. May be used from several threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._rest = Rest(target)

    def headers(self) -> dict[str, str]:
        """What a request needs to be let in."""
        return self._rest.headers()

    def start_kernel(self, patience: Patience) -> str:
        """Start a kernel and return its id; one that comes when nobody waits any more is ended.

        Raises:
            ExecutorError: as `Rest.ask`; there is no such specification; the server starts none for this user.
        """
        body: dict[str, object] = {"name": self.target.kernel_name} if self.target.kernel_name else {}
        scheduling = {name: value for name, value in self.target.environment if name.startswith("KERNEL_")}
        if scheduling:  # what a gateway needs before the kernel exists; Kernel Gateway empties its own otherwise
            body["env"] = scheduling
        self._check_name()
        try:
            answer = self._rest.ask(
                "POST",
                "api/kernels",
                body,
                patience=patience,
                again=_STARTS_AGAIN,
                what=f"Waiting for a kernel on {self.target.shown}",
                late=self._end_late,
            )
        except Refusal as refusal:
            if refusal.reply.status == 403 and self._knows_us():
                raise not_allowed(self.target, refusal.reply) from None
            raise
        kernel_id = _id_of(answer)
        if not kernel_id:
            raise no_server(self.target, "its answer to POST /api/kernels has no kernel's id")
        return kernel_id

    def check_kernel(self, kernel_id: str) -> None:
        """Nothing if the kernel exists.

        Raises:
            KernelGone: it does not.
            ExecutorError: as `Rest.ask`.
        """
        self._kernel("GET", kernel_id)

    def interrupt(self, kernel_id: str) -> None:
        """Interrupt the kernel's code. Raises as `check_kernel`."""
        self._kernel("POST", kernel_id, "/interrupt")

    def restart(self, kernel_id: str) -> None:
        """Restart the kernel. Raises as `check_kernel`."""
        self._kernel("POST", kernel_id, "/restart", seconds=self.target.start_s)

    def end_kernel(self, kernel_id: str) -> None:
        """End the kernel. Raises as `check_kernel`."""
        self._kernel("DELETE", kernel_id)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _kernel(self, verb: str, kernel_id: str, action: str = "", *, seconds: float = _ANSWER_S) -> None:
        path = f"api/kernels/{quote(kernel_id, safe='')}{action}"
        body: dict[str, object] | None = {} if verb == "POST" else None
        again = _READS_AGAIN if verb == "GET" else _BUSY
        try:
            self._rest.ask(verb, path, body, patience=Patience(seconds), again=again)
        except Refusal as refusal:
            if refusal.reply.status == 404:
                raise no_kernel(self.target, kernel_id) from None
            raise

    def _check_name(self) -> None:
        """A kernel's name that the server does not have is said with those that it has; else it is a bare 500."""
        if not self.target.kernel_name:
            return
        answer = self._rest.ask("GET", "api/kernelspecs", patience=Patience(_ANSWER_S), again=_READS_AGAIN)
        specs = answer.get("kernelspecs") if isinstance(answer, dict) else None
        if isinstance(specs, dict) and self.target.kernel_name not in specs:
            raise no_specification(self.target, [str(name) for name in specs])

    def _knows_us(self) -> bool:
        """Whether the token is good for something else."""
        try:
            self._rest.ask("GET", "api/kernelspecs", patience=Patience(_ANSWER_S))
        except ExecutorError:
            return False
        return bool(self.target.token)

    def _end_late(self, answer: object) -> None:
        kernel_id = _id_of(answer)
        if kernel_id:
            with contextlib.suppress(ExecutorError):
                self.end_kernel(kernel_id)


def _id_of(answer: object) -> str:
    """The kernel's id in the answer to a start; empty if there is none that could be one."""
    found = answer.get("id") if isinstance(answer, dict) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""
