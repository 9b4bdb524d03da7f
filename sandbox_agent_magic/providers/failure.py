"""One failed request reduced to plain values, in the server's words and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .cleaning import clean, plain_text

Kind: TypeAlias = Literal["server", "timeout", "idle", "connect", "address", "cut", "reply", "key", "other"]
"""Who failed: the server said so, or what became of the connection, the address, the reply, the key."""

_WAIT = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d+)\s*m(?!s)[a-z]*)?\s*(?:([\d.]+)\s*(ms|s))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request in the server's words. Nothing in it is secret any more."""

    kind: Kind
    message: str
    status: int | None = None
    """HTTP status, or the status-like code of an error inside a stream."""
    type: str = ""
    code: str = ""
    param: str = ""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""

    @classmethod
    def of_body(
        cls, body: object, *, status: int | None, secrets: Iterable[str], headers: Mapping[str, str] | None = None
    ) -> Failure:
        """From the body of an error reply, or of an error event: JSON as parsed, or any text such as a page."""
        error = body.get("error", body) if isinstance(body, Mapping) else body
        fields: Mapping[object, object] = error if isinstance(error, Mapping) else {}
        code = _word(fields.get("code"))
        raw = next((v for k in ("message", "detail", "error") if isinstance(v := fields.get(k), str)), None)
        if raw is None:
            raw = error if isinstance(error, str) else "" if error is None else json.dumps(error, default=str)
        # In a stream the status line said 200 (or nothing): the event's own code is the better witness.
        if status in (None, 200) and re.fullmatch(r"[45]\d\d", code):
            status = int(code)
        message = clean(plain_text(raw), secrets)
        return cls(
            kind="server",
            message=message,
            status=status,
            type=clean(_word(fields.get("type")), secrets),
            code=clean(code, secrets),
            param=clean(_word(fields.get("param")), secrets),
            retry_after=_retry_after(headers or {}, message),
        )


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _retry_after(headers: Mapping[str, str], message: str) -> float | None:
    """Seconds to wait, from the headers or else from the text."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        if "retry-after" in headers:
            return _bounded(float(headers["retry-after"]))
    except ValueError:
        return _until(headers.get("retry-after", ""))
    found = _WAIT.search(message)
    if found is None or not (found[1] or found[2]):
        return None
    try:
        seconds = float(found[2] or 0) / (1000 if (found[3] or "").lower() == "ms" else 1)
    except ValueError:
        return None
    return _bounded(60 * int(found[1] or 0) + seconds)


def _until(date: str) -> float | None:
    import email.utils
    import time

    try:
        return _bounded(email.utils.parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _bounded(seconds: float) -> float | None:
    return max(0.0, seconds) if seconds < 1e7 else None
