"""What the exceptions of Scalebox's SDK, and of the three libraries under it, mean: one table.

The SDK loses statuses: an error body without `error` gives `KeyError: 'error'`, one of another content type gives
`UnexpectedContentType`.
"""

from __future__ import annotations

from .engine import STATUSES, CloudFailure, Kind
from .statuses import status_of

_STATUSES: dict[int, Kind] = {**STATUSES, 504: "late"}
_TYPES: dict[str, Kind] = {
    "scalebox.exceptions.AuthenticationException": "key",
    "scalebox.exceptions.RateLimitException": "busy",
    "scalebox.exceptions.NotFoundException": "gone",
    "scalebox.exceptions.TimeoutException": "late",
    "scalebox.exceptions.InvalidArgumentException": "refused",
    "scalebox.exceptions.NotEnoughSpaceException": "file",
    "scalebox.exceptions.TemplateException": "template",
    "httpx.TimeoutException": "late",
    "httpx.ConnectError": "unreachable",
    "httpx.UnsupportedProtocol": "unreachable",
    "httpx.InvalidURL": "unreachable",
    "httpx.TransportError": "cut",
    "urllib3.exceptions.NewConnectionError": "unreachable",
    "urllib3.exceptions.NameResolutionError": "unreachable",
    "urllib3.exceptions.MaxRetryError": "unreachable",
    "urllib3.exceptions.SSLError": "unreachable",
    "urllib3.exceptions.TimeoutError": "late",
    "urllib3.exceptions.HTTPError": "cut",
    "builtins.EOFError": "cut",
    "builtins.TimeoutError": "late",
    "builtins.OSError": "cut",
}
"""By the full name of a class, or of one of its bases, the nearest first; anything else is `reply`."""


def failure_of(problem: BaseException, *, creating: bool = False, file: bool = False) -> CloudFailure:
    """The failure that an exception of the SDK's means.

    Args:
        problem: the exception.
        creating: a sandbox was to be made: what is not found is its template.
        file: a file was to be copied: what is not found is that file.
    """
    status = status_of(problem)
    names = [f"{each.__module__.replace('._exceptions', '')}.{each.__qualname__}" for each in type(problem).__mro__]
    by_type: Kind = next((_TYPES[name] for name in names if name in _TYPES), "reply")
    kind: Kind = _STATUSES.get(status, "server" if status >= 500 else by_type)
    if kind == "gone":
        kind = "template" if creating else "file" if file else kind
    detail = str(problem) if kind not in ("late", "cut") and not isinstance(problem, KeyError) else ""
    return CloudFailure(kind, detail, status or None)
