"""What the errors of a Jupyter server mean, and what to do about each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...errors import ExecutorError, ExecutorTimeout
from ...outputs import clean_text
from .target import Target

_REASON_CHARS = 300
_ADDRESS = "AGENT_REMOTE_URL is the server's address up to /api, such as http://host:8888 or https://hub/user/NAME."
_TOKEN = "Set AGENT_REMOTE_TOKEN to this server's token."  # noqa: S105
_RUNNING = "Look whether it runs, and whether AGENT_REMOTE_URL is right."


class KernelGone(ExecutorError):
    """The server knows no kernel of that id (any more)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from a server, whatever it is."""

    status: int
    content: bytes = b""
    location: str = ""
    """Of a redirect."""
    retry_after_s: float | None = None
    """Seconds that the server asks to wait."""
    is_page: bool = False
    """It says that it is HTML."""


_MEANINGS = {
    401: ("The Jupyter server does not accept the token.", _TOKEN),
    403: ("The Jupyter server refuses this.", _TOKEN),
    404: ("There is no Jupyter server at this address.", _ADDRESS),
    405: ("There is no Jupyter server at this address.", _ADDRESS),
    429: ("The Jupyter server takes no more requests now.", "Try again later, or end kernels that are idle."),
    502: ("There is no Jupyter server behind the proxy at this address.", "Look whether it runs; try again later."),
    503: ("The Jupyter server is overloaded or starting.", "Try again later."),
    504: ("The Jupyter server did not answer its proxy in time.", "Try again later."),
}
_FAILED = ("The Jupyter server failed.", "Its log says more.")


def refused(target: Target, reply: Reply) -> ExecutorError:
    """A status that is no success."""
    if 300 <= reply.status < 400:
        return _sent_elsewhere(target, reply)
    message, hint = _MEANINGS.get(reply.status, _FAILED)
    why = f"{target.shown} answered {reply.status}{_said(target, reply)}"
    if reply.status in (401, 403):
        token = f"is the one from {target.token_source or 'your settings'}" if target.token else "is not set"
        why += f"; AGENT_REMOTE_TOKEN {token}"
    if reply.retry_after_s is not None:
        why += f", and asks to wait {reply.retry_after_s:.0f} s"
    return _error(message, f"{why}.", hint)


def not_allowed(target: Target, reply: Reply) -> ExecutorError:
    """A server that knows the token, and yet starts no kernel."""
    return _error(
        "The Jupyter server starts no kernel for you.",
        f"{target.shown} accepts the token, but answered {reply.status}{_said(target, reply)}.",
        "If it allows only so many, end idle ones; a gateway knows you by AGENT_REMOTE_ENV=KERNEL_USERNAME=your-name.",
    )


def no_kernel(target: Target, kernel_id: str) -> KernelGone:
    """404 of a kernel."""
    return KernelGone(
        f"There is no kernel {kernel_id[:60]} on the Jupyter server.",
        executor="remote",
        why=f"{target.shown} answered 404.",
        hint="It was ended, or the server was started anew. Without AGENT_REMOTE_KERNEL_ID one is started.",
    )


def no_specification(target: Target, have: list[str]) -> ExecutorError:
    """A kernel's name that the server does not have."""
    names = clean_text(", ".join(sorted(have)))[:_REASON_CHARS]
    return _error(
        f"The Jupyter server has no kernel {target.kernel_name[:60]!r}.",
        f"{target.shown} has: {names}.",
        "Set AGENT_REMOTE_KERNEL to one of these, or leave it empty for the server's default.",
    )


def no_server(target: Target, reason: str) -> ExecutorError:
    """Something answers, but no Jupyter server."""
    return _error("There is no Jupyter server at this address.", f"{target.shown}: {reason}.", _ADDRESS)


def unreachable(target: Target, reason: str) -> ExecutorError:
    """No connection, or none that holds."""
    return _error("The Jupyter server cannot be reached.", f"{target.shown}: {reason}", _RUNNING)


def bad_certificate(target: Target, reason: str) -> ExecutorError:
    """TLS says no."""
    return _error(
        "The Jupyter server's certificate is not accepted.",
        f"{target.shown}: {reason}",
        "For a certificate of your own, set REQUESTS_CA_BUNDLE to the file of its authority.",
    )


def silent(target: Target, seconds: float) -> ExecutorTimeout:
    """No whole answer in time."""
    return ExecutorTimeout(
        "The Jupyter server does not answer.",
        executor="remote",
        why=f"{target.shown} gave no answer within {seconds:.0f} seconds.",
        hint=f"Look whether it runs and how busy it is; AGENT_REMOTE_START_TIMEOUT={target.start_s:g} bounds a start.",
    )


def _sent_elsewhere(target: Target, reply: Reply) -> ExecutorError:
    try:
        parts = urlsplit(reply.location)
        to = f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path
    except ValueError:
        to = ""
    where = f", to {_fit(target, to)}" if to else ""
    return _error(
        "The Jupyter server sends elsewhere, perhaps to a page where one logs in.",
        f"{target.shown} answered {reply.status}{where}. The token is not sent there.",
        "Set AGENT_REMOTE_URL to an address that takes the token itself (AGENT_REMOTE_TOKEN).",
    )


def _said(target: Target, reply: Reply) -> str:
    """The server's own words, as far as they are fit to be shown; never the token."""
    try:
        answer = json.loads(reply.content)
    except (ValueError, RecursionError):
        return ""
    reason = answer.get("message") or answer.get("reason") if isinstance(answer, dict) else None
    if not isinstance(reason, str) or not reason.strip():
        return ""
    return f" ({_fit(target, reason).rstrip('.')})"


def _fit(target: Target, text: str) -> str:
    """Foreign text as it may be shown."""
    if target.token:
        text = text.replace(target.token, "***")
    return " ".join(clean_text(text).split())[:_REASON_CHARS]


def _error(message: str, why: str, hint: str) -> ExecutorError:
    return ExecutorError(message, executor="remote", why=why, hint=hint)
