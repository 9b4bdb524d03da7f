"""The REST API of a Jupyter server or gateway, as far as kernels go, and what its errors mean.

Written against `requests` rather than a client of kernels: the token stays out of addresses, where servers and proxies
log it; no redirect is followed with it; and each failure is told apart here, once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ...errors import ExecutorError, ExecutorTimeout
from ...outputs import clean_text

if TYPE_CHECKING:
    import requests

_CONNECT_S = 10.0
_ANSWER_S = 60.0
"""A gateway answers when the kernel has been scheduled, which may take its time."""
_MAX_ANSWER = 1 << 20
_REASON_CHARS = 300


class KernelGone(ExecutorError):
    """The server knows no kernel of that id (any more)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and as whom."""

    url: str
    """Up to, and without, `/api`."""
    token: str = field(default="", repr=False)
    kernel_name: str = ""
    """Kernel specification to start; empty leaves it to the server."""
    kernel_id: str = ""
    """A running kernel to use instead of an own one."""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Variables for an own kernel."""
    token_source: str = ""
    """Where the token came from, for messages."""

    @property
    def shown(self) -> str:
        """The server's address as it stands in messages: without user or query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, slots=True)
class _Meaning:
    message: str
    hint: str


_ADDRESS = "AGENT_REMOTE_URL is the server's address up to /api, such as http://host:8888 or https://hub/user/NAME."
_MEANINGS = {
    401: _Meaning("The Jupyter server does not accept the token.", "Set AGENT_REMOTE_TOKEN to this server's token."),
    403: _Meaning("The Jupyter server refuses this.", "Set AGENT_REMOTE_TOKEN to this server's token."),
    404: _Meaning("There is no Jupyter server at this address.", _ADDRESS),
    405: _Meaning("There is no Jupyter server at this address.", _ADDRESS),
    429: _Meaning("The Jupyter server takes no more requests now.", "Try again later, or end kernels that are idle."),
    503: _Meaning("The Jupyter server is overloaded or starting.", "Try again later."),
}


class JupyterServer:
    """Kernels of one server. Keeps no connection; may be used from several threads."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def start_kernel(self) -> str:
        """Start a kernel and return its id. Raises as `_request`."""
        body: dict[str, object] = {"name": self.target.kernel_name} if self.target.kernel_name else {}
        scheduling = {name: value for name, value in self.target.environment if name.startswith("KERNEL_")}
        if scheduling:  # what a gateway needs before the kernel exists; Kernel Gateway empties its own otherwise
            body["env"] = scheduling
        self._check_name()
        answer = self._request("POST", "api/kernels", body)
        kernel_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(kernel_id, str) or not kernel_id:
            raise self._no_server("its answer to POST /api/kernels has no kernel's id")
        return kernel_id

    def check_kernel(self, kernel_id: str) -> None:
        """Nothing if the kernel exists.

        Raises:
            KernelGone: it does not.
            ExecutorError: as `_request`.
        """
        self._request("GET", f"api/kernels/{quote(kernel_id, safe='')}", kernel_id=kernel_id)

    def interrupt(self, kernel_id: str) -> None:
        """Interrupt the kernel's code. Raises as `check_kernel`."""
        self._request("POST", f"api/kernels/{quote(kernel_id, safe='')}/interrupt", {}, kernel_id=kernel_id)

    def restart(self, kernel_id: str) -> None:
        """Restart the kernel. Raises as `check_kernel`."""
        self._request("POST", f"api/kernels/{quote(kernel_id, safe='')}/restart", {}, kernel_id=kernel_id)

    def end_kernel(self, kernel_id: str) -> None:
        """End the kernel. Raises as `check_kernel`."""
        self._request("DELETE", f"api/kernels/{quote(kernel_id, safe='')}", kernel_id=kernel_id)

    def headers(self) -> dict[str, str]:
        """For each request. Kernel Gateway knows `token` and not `Bearer`; all servers know `token`."""
        return {"Authorization": f"token {self.target.token}"} if self.target.token else {}

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _check_name(self) -> None:
        """A kernel's name that the server does not have is said with those that it has; else it is a bare 500."""
        wanted = self.target.kernel_name
        if not wanted:
            return
        answer = self._request("GET", "api/kernelspecs")
        specs = answer.get("kernelspecs") if isinstance(answer, dict) else None
        if isinstance(specs, dict) and wanted not in specs:
            have = clean_text(", ".join(sorted(map(str, specs))))[:_REASON_CHARS]
            raise ExecutorError(
                f"The Jupyter server has no kernel {wanted[:60]!r}.",
                executor="remote",
                why=f"{self.target.shown} has: {have}.",
                hint="Set AGENT_REMOTE_KERNEL to one of these, or leave it empty for the server's default.",
            )

    def _request(self, verb: str, path: str, body: dict[str, object] | None = None, *, kernel_id: str = "") -> object:
        """One request; returns the JSON of the answer, or None where there is none.

        Raises:
            KernelGone: 404 of a kernel.
            ExecutorTimeout: no answer in time.
            ExecutorError: the server cannot be reached, refuses, fails, or is none.
        """
        import requests

        failure: tuple[str, str] | None = None
        try:
            with requests.request(
                verb,
                f"{self.target.url}/{path}",
                json=body,
                headers={**self.headers(), "Accept": "application/json"},
                auth=_as_it_is,
                timeout=(_CONNECT_S, _ANSWER_S),
                allow_redirects=False,
                stream=True,
            ) as response:
                status = response.status_code
                content = response.raw.read(_MAX_ANSWER, decode_content=True) or b""
        except requests.Timeout:
            failure = "timeout", ""
        except requests.exceptions.SSLError as error:
            failure = "certificate", _innermost(error)
        except (requests.RequestException, OSError, ValueError) as error:
            failure = "connection", _innermost(error)
        except Exception as error:  # urllib3's own, where `raw` is read
            failure = "connection", _innermost(error)
        if failure is not None:
            raise self._unreachable(*failure)
        if 200 <= status < 300:
            try:
                return json.loads(content) if content.strip() else None
            except ValueError:
                raise self._no_server("its answer is no JSON") from None
        if status == 404 and kernel_id:
            raise KernelGone(
                f"There is no kernel {kernel_id[:60]} on the Jupyter server.",
                executor="remote",
                why=f"{self.target.shown} answered 404.",
                hint="It was ended, or the server was started anew. Without AGENT_REMOTE_KERNEL_ID one is started.",
            )
        raise self._refused(status, content)

    def _refused(self, status: int, content: bytes) -> ExecutorError:
        meaning = _MEANINGS.get(status)
        if 300 <= status < 400:
            meaning = _Meaning("The Jupyter server sends elsewhere.", _ADDRESS)
        if meaning is None:
            meaning = _Meaning("The Jupyter server failed.", "Its log says more.")
        why = f"{self.target.shown} answered {status}{self._said(content)}."
        hint = meaning.hint
        if status in (401, 403):
            token = f"is the one from {self.target.token_source}" if self.target.token else "is not set"
            why = why.removesuffix(".") + f"; AGENT_REMOTE_TOKEN {token}."
        return ExecutorError(meaning.message, executor="remote", why=why, hint=hint)

    def _said(self, content: bytes) -> str:
        """The server's own words, as far as they are fit to be shown; never the token."""
        try:
            answer = json.loads(content)
        except ValueError:
            return ""
        reason = answer.get("message") or answer.get("reason") if isinstance(answer, dict) else None
        if not isinstance(reason, str) or not reason.strip():
            return ""
        said = " ".join(clean_text(reason).split())[:_REASON_CHARS]
        if self.target.token:
            said = said.replace(self.target.token, "***")
        return f" ({said.rstrip('.')})"

    def _unreachable(self, kind: str, reason: str) -> ExecutorError:
        if kind == "timeout":
            return ExecutorTimeout(
                "The Jupyter server does not answer.",
                executor="remote",
                why=f"{self.target.shown} was silent for {_ANSWER_S:g} seconds.",
                hint="Look whether it runs, and try again.",
            )
        if kind == "certificate":
            return ExecutorError(
                "The Jupyter server's certificate is not accepted.",
                executor="remote",
                why=f"{self.target.shown}: {reason}",
                hint="For a certificate of your own, set REQUESTS_CA_BUNDLE to the file of its authority.",
            )
        return ExecutorError(
            "The Jupyter server cannot be reached.",
            executor="remote",
            why=f"{self.target.shown}: {reason}",
            hint="Look whether it runs, and whether AGENT_REMOTE_URL is right.",
        )

    def _no_server(self, reason: str) -> ExecutorError:
        return ExecutorError(
            "There is no Jupyter server at this address.",
            executor="remote",
            why=f"{self.target.shown}: {reason}.",
            hint=_ADDRESS,
        )


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps a line of ~/.netrc from taking the token's place."""
    return request


def _innermost(error: BaseException) -> str:
    """The reason at the bottom of a chain of errors: the system's own words, where there are some."""
    seen = error
    for _ in range(10):
        inner = getattr(seen, "reason", None) or seen.__cause__ or seen.__context__ or (seen.args[:1] or (None,))[0]
        if not isinstance(inner, BaseException):
            break
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return f"{seen.strerror}."
    return f"{type(seen).__name__}."
