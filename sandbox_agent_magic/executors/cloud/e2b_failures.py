"""What the exceptions of E2B's SDK, and of the libraries under it, mean: one table."""

from __future__ import annotations

from .engine import STATUSES, CloudFailure, Kind
from .statuses import status_of

_TYPES: dict[str, Kind] = {
    "e2b.exceptions.AuthenticationException": "key",
    "e2b.exceptions.RateLimitException": "busy",
    "e2b.exceptions.ServiceBusyException": "server",
    "e2b.exceptions.SandboxNotFoundException": "gone",
    "e2b.exceptions.SandboxNotRunningException": "gone",
    "e2b.exceptions.SandboxUnreachableException": "cut",
    "e2b.exceptions.FileNotFoundException": "file",
    "e2b.exceptions.NotEnoughSpaceException": "file",
    "e2b.exceptions.NotFoundException": "cut",  # a context: the sandbox itself has an exception of its own
    "e2b.exceptions.InvalidArgumentException": "refused",
    "e2b.exceptions.TemplateException": "template",
    "e2b.exceptions.TimeoutException": "late",
    "httpx.ConnectError": "unreachable",
    "httpx.ConnectTimeout": "unreachable",
    "httpx.UnsupportedProtocol": "unreachable",
    "httpx.InvalidURL": "unreachable",
    "httpx.TimeoutException": "late",
    "httpx.TransportError": "cut",
    "connectrpc.errors.ConnectError": "cut",
    "builtins.ConnectionError": "unreachable",
    "builtins.TimeoutError": "late",
    "builtins.OSError": "cut",
}
"""By the full name of a class, or of one of its bases, the nearest first; anything else is `reply`."""
_SILENT = ("late", "cut", "gone", "unreachable")
"""Where the SDK's words are advice to whoever writes a program with it."""


def failure_of(problem: BaseException, *, creating: bool = False, file: bool = False) -> CloudFailure:
    """The failure that an exception of the SDK's means.

    Args:
        problem: the exception.
        creating: a sandbox was to be made: what is not found is its template.
        file: a file was to be copied: what is not found is that file.
    """
    names = [f"{each.__module__.replace('._exceptions', '')}.{each.__qualname__}" for each in type(problem).__mro__]
    kind: Kind = next((_TYPES[name] for name in names if name in _TYPES), "reply")
    said = getattr(problem, "status_code", None)
    status = said if isinstance(said, int) else status_of(problem)
    if names[0] == "e2b.exceptions.TimeoutException":
        kind, status = _timeout(problem, status)
    elif kind == "reply":
        kind = STATUSES.get(status, "server" if status >= 500 else kind)
    if kind == "gone":
        kind = "template" if creating else "file" if file and status == 404 else kind
    detail = str(problem) if names[0].startswith("e2b.") and kind not in _SILENT else ""
    return CloudFailure(kind, detail, status or None)


def _timeout(problem: BaseException, status: int) -> tuple[Kind, int]:
    """The SDK has one exception for code that takes too long, a sandbox that is gone, and a gateway that says so."""
    if _is_httpx(problem.__cause__):  # the connection broke, and then the SDK was told that there is no sandbox
        return "gone", 0
    if _is_httpx(problem.__context__) or status != 502:
        return "late", 0
    from e2b.exceptions import is_sandbox_not_found_message

    return ("gone", 0) if is_sandbox_not_found_message(str(problem)) else ("server", status)


def _is_httpx(problem: BaseException | None) -> bool:
    return problem is not None and type(problem).__module__.partition(".")[0] == "httpx"
