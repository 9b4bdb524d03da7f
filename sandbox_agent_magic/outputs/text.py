"""Outputs as a person or a model reads them: text, capped, and pictures."""

from __future__ import annotations

from collections.abc import Iterable

from ..types import ErrorInfo, Image, Output
from .clean import PICTURE_TYPES, strip_colours


def cap_text(text: str, max_bytes: int) -> str:
    """`text` in at most about `max_bytes` UTF-8 bytes: two thirds from its head, the rest from its tail."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return text
    head, tail = max_bytes * 2 // 3, max_bytes // 3
    left = len(raw) - head - tail
    start = raw[:head].decode("utf-8", "ignore")
    end = raw[-tail:].decode("utf-8", "ignore")
    return f"{start}\n[... {left:,} bytes cut ...]\n{end}"


def text_of(outputs: Iterable[Output]) -> str:
    """What a person would read in `outputs`, as plain text: streams, results, tracebacks; pictures by name."""
    parts: list[str] = []
    for output in outputs:
        if output["output_type"] == "stream":
            parts.append(output["text"])
        elif output["output_type"] == "error":
            parts.append("\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}")
        else:
            data = output["data"]
            picture = next((key for key in data if key in PICTURE_TYPES), None)
            plain = data.get("text/plain") or data.get("text/markdown") or data.get("text/html") or ""
            parts.append(f"[picture: {picture}]" if picture else str(plain))
    joined = "\n".join(part.rstrip("\n") for part in parts if part)
    return strip_colours(joined)


def images_of(outputs: Iterable[Output], *, max_bytes: int = 1 << 20) -> tuple[Image, ...]:
    """PNG and JPEG pictures of at most `max_bytes` base64 bytes each, for a model that can see."""
    found: list[Image] = []
    for output in outputs:
        if output["output_type"] in ("display_data", "execute_result"):
            for mimetype in ("image/png", "image/jpeg"):
                data = output["data"].get(mimetype)
                if isinstance(data, str) and len(data) <= max_bytes:
                    found.append(Image(mimetype, "".join(data.split())))
                    break
    return tuple(found)


def error_text(error: ErrorInfo, *, max_bytes: int) -> str:
    """An exception for the model: the end of the traceback, where the cause stands, without colours."""
    text = strip_colours("\n".join(error.traceback)) or f"{error.ename}: {error.evalue}"
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return text
    return "[...]\n" + raw[-max_bytes:].decode("utf-8", "ignore")
