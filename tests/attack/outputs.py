"""Attacks on the reader's page by rich output, displayed in a real sandbox."""

from __future__ import annotations

from collections.abc import Callable

from sandbox_agent_magic.types import DisplayOutput
from tests.support import payloads
from tests.support.markup import harm
from tests.support.sandbox import text

from .room import Attack, Escaped, Room

_LEAK = payloads.ADDRESS


def shown(room: Room, mimetype: str, value: object) -> list[DisplayOutput]:
    """What comes through of an output that has a plain text beside it, which has to."""
    result = room.show(repr({mimetype: value, "text/plain": "plain"}))
    displays: list[DisplayOutput] = [o for o in result.outputs if o["output_type"] == "display_data"]
    if not displays or displays[0]["data"].get("text/plain") != "plain":
        raise Escaped(f"the plain text is lost: {text(result)[:200]}")
    if mimetype not in displays[0]["data"] and "not shown" not in text(result):
        raise Escaped("it was dropped without a word")
    return displays


def _markup(kind: str, name: str, mimetype: str, value: str) -> Attack:
    def attempt(room: Room) -> str:
        markup = str(shown(room, mimetype, value)[0]["data"].get(mimetype, ""))
        if found := harm(markup):
            raise Escaped(f"{found} in {markup[:300]}")
        return "disarmed" if markup else "dropped"

    return Attack(kind, name, attempt)


def _dropped(kind: str, name: str, mimetype: str, value: object) -> Attack:
    def attempt(room: Room) -> str:
        if mimetype in shown(room, mimetype, value)[0]["data"]:
            raise Escaped("it came through")
        return "dropped and named"

    return Attack(kind, name, attempt)


def _without(kind: str, name: str, mimetype: str, value: object, *bad: str) -> Attack:
    def attempt(room: Room) -> str:
        data = shown(room, mimetype, value)[0]["data"].get(mimetype)
        for word in bad:
            if word in str(data):
                raise Escaped(f"{word!r} in {str(data)[:300]}")
        return "disarmed" if data is not None else "dropped and named"

    return Attack(kind, name, attempt)


_VEGALITE, _PLOTLY = "application/vnd.vegalite.v5+json", "application/vnd.plotly.v1+json"
_ROWS = {"values": [{"a": 1}]}


def _vega(name: str, chart: dict[str, object], *bad: str) -> Attack:
    return _without("charts", f"Vega-Lite: {name}", _VEGALITE, {"mark": "bar", "data": _ROWS, **chart}, *bad)


def _plotly(name: str, layout: dict[str, object], *bad: str) -> Attack:
    return _without("charts", f"Plotly: {name}", _PLOTLY, {"data": [{"type": "bar", "y": [1]}], "layout": layout}, *bad)


CHARTS = [
    _vega("data by address", {"data": {"url": _LEAK}}, _LEAK),
    _vega("a link", {"encoding": {"href": {"value": "javascript:alert(1)"}}}, "javascript"),
    _vega("pictures by address", {"mark": "image", "encoding": {"url": {"value": _LEAK}}}, _LEAK),
    _vega("another loader", {"usermeta": {"embedOptions": {"loader": {"baseURL": _LEAK}}}}, _LEAK),
    _vega(
        "an expression that leaves its language",
        {"transform": [{"calculate": "a.constructor('x')()", "as": "b"}]},
        "constructor",
    ),
    _vega("another schema", {"$schema": _LEAK}, _LEAK),
    _vega(
        "a tooltip with a picture",
        {"mark": {"type": "bar", "tooltip": {"content": "data"}}, "data": {"values": [{"image": _LEAK}]}},
        "tooltip",
    ),
    _dropped("charts", "Vega, which can load anything", "application/vnd.vega.v5+json", {"data": [{"url": _LEAK}]}),
    _plotly("pictures by address", {"images": [{"source": _LEAK}]}, _LEAK),
    _plotly("pictures in a template", {"template": {"layout": {"images": [{"source": _LEAK}]}}}, _LEAK),
    _plotly("pictures by a button", {"updatemenus": [{"buttons": [{"args": ["images[0].source", _LEAK]}]}]}, _LEAK),
    _plotly(
        "markup in a title", {"title": {"text": f'<a href="{_LEAK}">x</a><span style="x">y</span>'}}, "<a", "<span"
    ),
    _without("charts", "Plotly: a map by address", _PLOTLY, {"data": [{"type": "scattermapbox"}]}, "mapbox"),
]

TYPES = [
    _dropped("mimetypes", f"{mimetype}", mimetype, value)
    for mimetype, value in {
        "application/javascript": "alert(1)",
        "text/javascript": "alert(1)",
        "application/vnd.jupyter.widget-view+json": {"model_id": "a", "version_major": 2, "version_minor": 0},
        "application/vnd.jupyter.widget-state+json": {"state": {}},
        "application/vnd.bokehjs_exec.v0+json": "x",
        "application/vnd.bokehjs_load.v0+json": "x",
        "application/vnd.holoviews_exec.v0+json": "x",
        "application/pdf": "JVBERi0=",
        "application/geo+json": {"type": "Point", "coordinates": [1, 2]},
        "application/x-python-pickle": "gASVAA==",
        "text/html+x": "<script>",
        "TEXT/HTML": "<script>alert(1)</script>",
        "video/mp4": "AAAA",
        "image/png": '"><script>alert(1)</script>',
        "image/bmp": "AAAA",
    }.items()
]


def _large(room: Room) -> str:
    found = room.show("{'image/png': 'A' * ((11 << 20) * 4 // 3), 'text/plain': 'plain'}")  # base64: four for three
    if any("image/png" in o["data"] for o in found.outputs if o["output_type"] == "display_data"):
        raise Escaped("it came through")
    return text(found).splitlines()[-1]


def _slow(code: str) -> Callable[[Room], str]:
    def attempt(room: Room) -> str:
        import time

        started = time.monotonic()
        room.show(f"{{'text/html': {code}, 'text/plain': 'plain'}}")
        took = time.monotonic() - started
        if took > 10:
            raise Escaped(f"it took {took:.0f} s")
        return f"{took:.1f} s"

    return attempt


ATTACKS = [
    *(_markup("HTML", name, "text/html", f"<p>shown</p>{html}") for name, html in payloads.HTML.items()),
    Attack("HTML", "tags nested without end", _slow("'<div>' * 1_000_000")),
    Attack("HTML", "tags that multiply", _slow("''.join(f'<b id={n}>' for n in range(20000)) + '<p>' * 20000")),
    *(_markup("SVG", name, "image/svg+xml", payloads.svg(inner)) for name, inner in payloads.SVG.items()),
    *(_markup("SVG", name, "image/svg+xml", document) for name, document in payloads.SVG_DOCUMENTS.items()),
    *(
        _without(
            "markdown", name, "text/markdown", source, "<img", "<script", "](", "]:", "\\href", "\\style", "mermaid"
        )
        for name, source in payloads.MARKDOWN.items()
    ),
    _without("markdown", "LaTeX that links", "text/latex", "$\\href{javascript:x}{y}$", "\\href"),
    *CHARTS,
    *TYPES,
    Attack("mimetypes", "a picture of 11 MiB", _large),
]
