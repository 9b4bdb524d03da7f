"""Outputs as plain dicts in nbformat's schema: cleaned, coalesced, capped; and as text for the model.

Everything that enters here may be hostile: it comes from code that nobody has read. What leaves has passed the
allow-list of mimetypes, HTML has passed nh3, and text carries no terminal escapes but colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from .types import (
    JSON,
    DisplayOutput,
    ErrorInfo,
    ErrorOutput,
    Image,
    MimeBundle,
    Output,
    OutputHook,
    ResultOutput,
    StreamOutput,
)

CELLS_MIMETYPE = "application/vnd.sandbox-agent.cells.v1+json"
"""Carries finished cells to the front end. Never accepted from a sandbox."""

MAX_TEXT_BYTES = 1 << 20
"""Text that one cell keeps, half from its head and half from its tail."""
MAX_BUNDLE_BYTES = 10 << 20
"""One picture or other rich output."""
MAX_OUTPUTS = 1_000
"""Outputs of one cell."""

_TEXT_TYPES = {"text/plain", "text/markdown", "text/latex"}
_PICTURE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
_JSON_TYPES = {"application/json"}
ALLOWED_TYPES = frozenset({*_TEXT_TYPES, *_PICTURE_TYPES, *_JSON_TYPES, "text/html"})
"""Everything else (scripts, widgets, SVG, other vendors' types) is dropped and named in `OutputCollector.dropped`."""

# CSI sequences end in one byte of @-~; only SGR (ending in m) is colour. OSC runs to BEL or ST.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\x80-\x9f]")
_LONE_ESCAPE = re.compile(r"\x1b(?!\[[0-9;]*m)")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")

_HTML_ATTRIBUTES: dict[str, set[str]] = {
    "*": {"class", "title", "align", "scope", "colspan", "rowspan", "border"},
    "details": {"open"},
}


def clean_text(text: str) -> str:
    """`text` without terminal escapes other than colours, and without control characters."""
    if "\x1b" in text:
        text = _ESCAPES.sub(lambda m: m.group() if _COLOUR.fullmatch(m.group()) else "", text)
        text = _LONE_ESCAPE.sub("", text)
    return _CONTROL.sub("", text)


def strip_colours(text: str) -> str:
    """`text` without any terminal escape, for the model and for plain files."""
    return _ESCAPES.sub("", text)


def clean_html(html: str) -> str:
    """HTML that cannot run, load or send anything: nh3's allow-list without links, images and styles."""
    import nh3  # lazily: most cells have no HTML

    tags = nh3.ALLOWED_TAGS - {"a", "img", "map", "area", "form", "input", "button"}
    return nh3.clean(html, tags=tags, attributes=_HTML_ATTRIBUTES, url_schemes=set(), link_rel=None)


def clean_bundle(data: object, dropped: list[str]) -> MimeBundle:
    """The allowed part of a mime bundle; names of what was left out are appended to `dropped`."""
    clean: MimeBundle = {}
    if not isinstance(data, dict):
        return clean
    for key, value in data.items():
        if not isinstance(key, str) or key not in ALLOWED_TYPES:
            dropped.append(clean_text(str(key))[:100])
            continue
        text = "".join(map(str, value)) if isinstance(value, list) and key not in _JSON_TYPES else value
        if len(text if isinstance(text, str) else repr(text)) > MAX_BUNDLE_BYTES:
            dropped.append(f"{key} over {MAX_BUNDLE_BYTES >> 20} MiB")
        elif key in _JSON_TYPES:
            clean[key] = text
        elif not isinstance(text, str):
            dropped.append(key)
        elif key in _PICTURE_TYPES:
            if _BASE64.fullmatch(text):
                clean[key] = text
            else:
                dropped.append(key)
        else:
            clean[key] = clean_html(text) if key == "text/html" else clean_text(text)
    return clean


def clean_metadata(metadata: object) -> dict[str, JSON]:
    """Only a picture's width and height survive, as small positive integers."""
    clean: dict[str, JSON] = {}
    if isinstance(metadata, dict):
        for key in _PICTURE_TYPES:
            size = metadata.get(key)
            if isinstance(size, dict):
                clean[key] = {
                    name: size[name]
                    for name in ("width", "height")
                    if isinstance(size.get(name), int) and 0 < size[name] < 10_000
                }
    return clean


class OutputCollector:
    """Takes the outputs of one execution as they arrive and keeps what may be kept.

    Args:
        on_output: called with each cleaned output as it arrives.
        max_text_bytes: text kept of this execution; the head is passed on, the tail follows at `finish`.
        trusted: the outputs come from the reader's own kernel: rich types pass as they are.
    """

    def __init__(self, on_output: OutputHook, *, max_text_bytes: int = MAX_TEXT_BYTES, trusted: bool = False) -> None:
        self._on_output = on_output
        self._head_left = max_text_bytes // 2
        self._tail_bytes = max_text_bytes - self._head_left
        self._tail = ""
        self._tail_name: Literal["stdout", "stderr"] = "stdout"
        self._trusted = trusted
        self._outputs: list[Output] = []
        self._clear_at_next = False
        self._told_bytes = 0
        self._told_dropped = False
        self.truncated_bytes = 0
        """Text that was left out between head and tail."""
        self.dropped: list[str] = []
        """Mimetypes and other things that were refused."""

    def add(self, output: Output) -> None:
        """Clean `output`, keep it and pass it on. Malformed ones are dropped, never raised."""
        if self._clear_at_next:
            self._clear_at_next = False
            self.clear()
        try:
            kind = output["output_type"]
            if output["output_type"] == "stream":
                self._add_stream(output)
                return
            clean = _clean(output, self.dropped, trusted=self._trusted)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.dropped.append("malformed output")
            return
        if clean is None:
            return
        if kind != "error" and len(self._outputs) >= MAX_OUTPUTS:
            self.dropped.append("outputs over the limit")
            return
        self._flush_tail()
        self._outputs.append(clean)
        self._on_output(clean)

    def clear(self, *, wait: bool = False) -> None:
        """What `clear_output` asks for; with `wait`, only when the next output comes."""
        if wait:
            self._clear_at_next = True
            return
        self._outputs.clear()
        self._tail = ""

    def finish(self) -> tuple[Output, ...]:
        """Everything that was kept, in order, with notes on what was not. May be called again."""
        self._flush_tail()
        if self.dropped and not self._told_dropped:
            self._told_dropped = True
            names = ", ".join(dict.fromkeys(self.dropped))[:300]
            self._append_text("stderr", f"[not shown: {names}]\n")
        return tuple(self._outputs)

    def _add_stream(self, output: StreamOutput) -> None:
        name: Literal["stdout", "stderr"] = "stderr" if output["name"] == "stderr" else "stdout"
        text = clean_text(str(output["text"]))
        head, rest = text[: self._head_left], text[self._head_left :]
        self._head_left -= len(head)
        if head:
            self._append_text(name, head)
        if rest:
            self._add_tail(name, rest)

    def _add_tail(self, name: Literal["stdout", "stderr"], text: str) -> None:
        self._tail_name = name
        kept = self._tail + text[len(text) - min(len(text), self._tail_bytes) :]
        over = max(0, len(kept) - self._tail_bytes)
        self.truncated_bytes += max(0, len(text) - self._tail_bytes) + over
        self._tail = kept[over:]

    def _flush_tail(self) -> None:
        if self.truncated_bytes > self._told_bytes:
            cut = self.truncated_bytes - self._told_bytes
            self._told_bytes = self.truncated_bytes
            self._append_text("stdout", f"\n[... {cut:,} characters cut here ...]\n")
        if not self._tail:
            return
        tail, self._tail = self._tail, ""
        self._tail_bytes -= len(tail)  # many pictures between long prints must not each keep a tail
        self._append_text(self._tail_name, tail)

    def _append_text(self, name: Literal["stdout", "stderr"], text: str) -> None:
        last = self._outputs[-1] if self._outputs else None
        if last is not None and last["output_type"] == "stream" and last["name"] == name:
            last["text"] += text
        else:
            self._outputs.append({"output_type": "stream", "name": name, "text": text})
        self._on_output({"output_type": "stream", "name": name, "text": text})


def _clean(
    output: DisplayOutput | ResultOutput | ErrorOutput, dropped: list[str], *, trusted: bool
) -> DisplayOutput | ResultOutput | ErrorOutput | None:
    """One rich output or error, cleaned; None where nothing is left of it."""
    if output["output_type"] == "error":
        return {
            "output_type": "error",
            "ename": clean_text(str(output["ename"]))[:200],
            "evalue": clean_text(str(output["evalue"]))[:10_000],
            "traceback": [clean_text(str(line))[:20_000] for line in output["traceback"][:200]],
        }
    if trusted:
        data = {key: value for key, value in output["data"].items() if key != CELLS_MIMETYPE}
        metadata = output["metadata"]
    else:
        data = clean_bundle(output["data"], dropped)
        metadata = clean_metadata(output["metadata"])
    if not data:
        return None
    if output["output_type"] == "execute_result":
        count = output["execution_count"]
        count = count if isinstance(count, int) else None
        return {"output_type": "execute_result", "data": data, "metadata": metadata, "execution_count": count}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


# ---- for the model ----------------------------------------------------------------------------------------------


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
            picture = next((key for key in data if key in _PICTURE_TYPES), None)
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
