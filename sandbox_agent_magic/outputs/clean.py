"""What may come out of code that nobody has read: an allow-list of mimetypes, each cleaned.

Text carries no terminal escapes but colours; `html`, `svg`, `markdown` and `charts` clean the rest. This cleaning is
the boundary: a front end trusts every output of a cell that the reader ran.
"""

from __future__ import annotations

import json
import re

from ..types import JSON, DisplayOutput, ErrorOutput, MimeBundle, ResultOutput
from .charts import PLOTLY_TYPES, VEGALITE_TYPES, ChartRefused, clean_chart
from .html import TooManyTags, clean_html
from .markdown import clean_formula, clean_markdown
from .svg import clean_svg

CELLS_MIMETYPE = "application/vnd.sandbox-agent.cells.v1+json"
"""Carries finished cells to the front end. Never accepted from a sandbox."""

MAX_BUNDLE_BYTES = 10 << 20
"""One picture or other rich output."""

_TEXT_TYPES = {"text/plain", "text/markdown", "text/latex"}
PICTURE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
_CHART_TYPES = PLOTLY_TYPES | VEGALITE_TYPES
_JSON_TYPES = {"application/json", *_CHART_TYPES}
ALLOWED_TYPES = frozenset({*_TEXT_TYPES, *PICTURE_TYPES, *_JSON_TYPES, "text/html", "image/svg+xml"})
"""Everything else (scripts, widgets, other vendors' types) is dropped and named in `OutputCollector.dropped`."""

# CSI sequences end in one byte of @-~; only SGR (ending in m) is colour. OSC runs to BEL or ST.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\x80-\x9f]")
_LONE_ESCAPE = re.compile(r"\x1b(?!\[[0-9;]*m)")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def clean_text(text: str) -> str:
    """`text` without terminal escapes other than colours, without control characters, and valid as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates: no notebook with them could be saved
        text = text.encode("utf-8", "replace").decode("utf-8")
    if "\x1b" in text:
        text = _ESCAPES.sub(lambda m: m.group() if _COLOUR.fullmatch(m.group()) else "", text)
        text = _LONE_ESCAPE.sub("", text)
    return _CONTROL.sub("", text)


def strip_colours(text: str) -> str:
    """`text` without any terminal escape, for the model and for plain files."""
    return _ESCAPES.sub("", text)


def clean_bundle(data: object, dropped: list[str], *, max_bytes: int = MAX_BUNDLE_BYTES) -> MimeBundle:
    """The allowed part of a mime bundle; names of what was left out are appended to `dropped`."""
    clean: MimeBundle = {}
    if not isinstance(data, dict):
        return clean
    for key, value in data.items():
        if not isinstance(key, str) or key not in ALLOWED_TYPES:
            dropped.append(clean_text(str(key))[:100])
            continue
        text = "".join(map(str, value)) if isinstance(value, list) and key not in _JSON_TYPES else value
        size = len(text) if isinstance(text, str) else _json_size(text)
        if size is None:
            dropped.append(f"{key} that is not JSON")
        elif size > (max_bytes * 4 / 3 if key in PICTURE_TYPES else max_bytes):  # pictures come in base64
            dropped.append(f"{key} over {max_bytes >> 20} MiB")
        elif not isinstance(text, str) and key not in _JSON_TYPES:
            dropped.append(key)
        else:
            part = _clean_part(key, text, dropped)
            if part is not None:
                clean[key] = part
    return clean


def _clean_part(key: str, value: JSON, dropped: list[str]) -> JSON:
    """One entry of a bundle, of an allowed type and size; None where nothing can be shown."""
    if key in _CHART_TYPES:
        try:
            return clean_chart(key, value, dropped)
        except ChartRefused as refused:
            dropped.append(f"{key}: {refused}")
            return None
    if not isinstance(value, str):
        return value
    if key in PICTURE_TYPES:
        if not _BASE64.fullmatch(value):
            dropped.append(key)
            return None
        return value
    text = clean_text(value)
    match key:
        case "text/html":
            try:
                return clean_html(text)
            except TooManyTags:
                dropped.append(f"{key} with too many tags")
                return None
        case "image/svg+xml":
            drawing = clean_svg(text)
            if drawing is None:
                dropped.append(f"{key} that cannot be shown safely")
            return drawing
        case "text/markdown":
            return clean_markdown(text)
        case "text/latex":
            return clean_formula(text)
    return text


def _json_size(value: object) -> int | None:
    """Bytes of `value` as JSON; None where it cannot be written: nested too deeply, not a number, broken text."""
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except (ValueError, TypeError, RecursionError):
        return None


def _can_be_saved(value: object) -> bool:
    return isinstance(value, bytes) or _json_size(value) is not None


def clean_metadata(metadata: object) -> dict[str, JSON]:
    """Only a picture's width and height survive, as small positive integers."""
    clean: dict[str, JSON] = {}
    if isinstance(metadata, dict):
        for key in PICTURE_TYPES:
            size = metadata.get(key)
            if isinstance(size, dict):
                clean[key] = {
                    name: size[name]
                    for name in ("width", "height")
                    if isinstance(size.get(name), int) and 0 < size[name] < 10_000
                }
    return clean


def clean_output(
    output: DisplayOutput | ResultOutput | ErrorOutput,
    dropped: list[str],
    *,
    trusted: bool,
    max_bytes: int = MAX_BUNDLE_BYTES,
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
        if CELLS_MIMETYPE in output["data"]:
            dropped.append(CELLS_MIMETYPE)
        data = {key: value for key, value in output["data"].items() if key != CELLS_MIMETYPE and _can_be_saved(value)}
        # The mark of what we publish ourselves must not be forged.
        metadata = {key: value for key, value in output["metadata"].items() if key != "sandbox_agent"}
        metadata = metadata if _can_be_saved(metadata) else {}
    else:
        data = clean_bundle(output["data"], dropped, max_bytes=max_bytes)
        metadata = clean_metadata(output["metadata"])
    if not data:
        return None
    if output["output_type"] == "execute_result":
        count = output["execution_count"]
        count = count if isinstance(count, int) else None
        return {"output_type": "execute_result", "data": data, "metadata": metadata, "execution_count": count}
    return {"output_type": "display_data", "data": data, "metadata": metadata}
