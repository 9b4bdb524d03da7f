"""Charts that a front end draws from JSON (Vega-Lite, Plotly): data and shapes pass, whatever loads or runs does not.

Both libraries can fetch data, pictures, maps and fonts by address, evaluate expressions and put markup into the page.
What does so is taken out and named; a chart that cannot be drawn without it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..types import JSON
from .words import words

PLOTLY_TYPES = frozenset({"application/vnd.plotly.v1+json"})
VEGALITE_TYPES = frozenset(f"application/vnd.vegalite.v{version}+json" for version in (2, 3, 4, 5, 6))
_MAX_DEPTH = 40


class ChartRefused(ValueError):
    """The chart cannot be shown without what it must not do."""


def clean_chart(kind: str, chart: object, dropped: list[str]) -> JSON:
    """The part of a chart that is data.

    Args:
        kind: its mimetype, of `PLOTLY_TYPES` or `VEGALITE_TYPES`.
        chart: as it came.
        dropped: names of what was taken out are appended.

    Raises:
        ChartRefused: nothing useful is left.
    """
    if not isinstance(chart, dict):
        raise ChartRefused("it is not an object")
    if kind in PLOTLY_TYPES:
        return _plotly(chart, dropped)
    return _vegalite(chart, dropped)


# ---- Vega-Lite ------------------------------------------------------------------------------------------------------

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/vega-lite/v[2-6](?:\.\d{1,3}){0,2}\.json")
_DATA = frozenset({"values", "datasets"})
"""Rows of a table, whatever their columns are called."""
_LOADS = frozenset({"url", "href", "usermeta", "loader", "signal", "element", "expressionFunction", "__proto__"})
_EXPRESSIONS = frozenset({"expr", "calculate", "filter", "test", "labelExpr", "update", "and", "or", "not"})
_EVENTS = frozenset({"on", "clear", "events", "init"})
_FUNCTIONS = words(
    "abs ceil floor round sqrt exp log pow min max sin cos tan year quarter month date day hours minutes seconds "
    "isValid isNaN isFinite isDate isNumber isString if length lower upper trim format timeFormat time toNumber "
    "toString toDate datetime"
)
_EXPRESSION_TOKEN = re.compile(
    r"\s+|datum\.(?P<name>[A-Za-z_]\w*)|datum\[(?P<quoted>'[^'\\]*'|\"[^\"\\]*\")\]|(?P<word>[A-Za-z_]\w*)"
    r"|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|'[^'\\]*'|\"[^\"\\]*\"|===?|!==?|[<>]=?|&&|\|\||[-+*/%!?:(),]"
)
_EVENT = re.compile(r"[a-z]{1,20}")
_WORDS = frozenset({"true", "false", "null", "PI", "E", "NaN"})
_INNARDS = frozenset({"constructor", "prototype", "__proto__", "toString", "valueOf"})


def _vegalite(chart: Mapping[str, object], dropped: list[str]) -> JSON:
    clean = _Walk(_vegalite_part, dropped).take(chart)
    if not isinstance(clean, dict):
        raise ChartRefused("it is not an object")
    schema = chart.get("$schema")
    if isinstance(schema, str) and _SCHEMA.fullmatch(schema):
        clean["$schema"] = schema
    # A tooltip loads what its row calls `image`.
    if _mentions(chart, "image"):
        _remove(clean, "tooltip")
    return clean


def _vegalite_part(key: str, value: object, walk: _Walk) -> JSON:
    if key in _DATA:
        return walk.rows(value)
    if key == "config":
        view = value.get("view") if isinstance(value, dict) else None
        sizes = {k: v for k, v in view.items() if isinstance(v, (int, float))} if isinstance(view, dict) else {}
        return {"view": {k: v for k, v in sizes.items() if k in ("continuousWidth", "continuousHeight", "step")}}
    if key in _LOADS or key == "$schema":
        raise _Drop
    if key in ("mark", "type") and value == "image":
        raise ChartRefused("it draws pictures by address")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and (
            (key in _EXPRESSIONS and not _harmless(text)) or (key in _EVENTS and not _EVENT.fullmatch(text))
        ):
            raise ChartRefused("it holds an expression that is not on the list")
    return walk.take(value)


def _harmless(expression: str) -> bool:
    """Whether an expression only computes with the row's own values."""
    at = 0
    while at < len(expression):
        found = _EXPRESSION_TOKEN.match(expression, at)
        if found is None:
            return False
        at = found.end()
        named = found["name"] or (found["quoted"] or "")[1:-1]
        if named in _INNARDS:
            return False
        word = found["word"]
        if word is not None and word not in _WORDS and not (word in _FUNCTIONS and expression[at:].lstrip()[:1] == "("):
            return False
    return True


# ---- Plotly ---------------------------------------------------------------------------------------------------------

_TRACES = words(
    "scatter scattergl bar histogram histogram2d histogram2dcontour box violin heatmap contour pie funnel "
    "funnelarea waterfall scatter3d surface mesh3d isosurface volume cone streamtube scatterpolar scatterpolargl "
    "barpolar scatterternary sunburst treemap icicle sankey parcoords parcats splom table indicator candlestick "
    "ohlc carpet scattercarpet contourcarpet"
)
_NO_LAYOUT = words(
    "images updatemenus sliders mapbox map geo source url href sourceattribution link plotlyServerURL topojsonURL "
    "annotationdefaults __proto__"
)
# Plotly reads a little HTML in any text, with `href` and `style`; without attributes it is harmless.
_MARKUP = re.compile(r"<(?!/?(?:b|i|br|sub|sup|em|strong|u)\s?/?>)(?=[A-Za-z/!])", re.IGNORECASE)


def _plotly(chart: Mapping[str, object], dropped: list[str]) -> JSON:
    data = chart.get("data")
    if not isinstance(data, list):
        raise ChartRefused("it has no data")
    for trace in data:
        kind = trace.get("type", "scatter") if isinstance(trace, dict) else None
        if kind not in _TRACES:
            raise ChartRefused(f"it has a trace of type {str(kind)[:30]!r}")
    walk = _Walk(_plotly_part, dropped)
    layout = chart.get("layout")
    if "frames" in chart:
        dropped.append("frames of a chart")
    clean: dict[str, JSON] = {"data": walk.take(data)}
    clean["layout"] = walk.take(layout) if isinstance(layout, dict) else {}
    return clean


def _plotly_part(key: str, value: object, walk: _Walk) -> JSON:
    if key in _NO_LAYOUT or "." in key or "[" in key:
        raise _Drop
    return walk.take(value)


# ---- both -----------------------------------------------------------------------------------------------------------


class _Drop(Exception):
    """The entry at hand does not pass."""


class _Walk:
    """Copies JSON, asking about each entry of an object."""

    def __init__(self, part: Callable[[str, object, _Walk], JSON], dropped: list[str]) -> None:
        self._part = part
        self._dropped = dropped
        self._depth = 0

    def take(self, value: object) -> JSON:
        """A copy without what must not pass."""
        if isinstance(value, (dict, list)):
            if self._depth > _MAX_DEPTH:
                raise ChartRefused("it is nested too deeply")
            self._depth += 1
            try:
                return self._object(value) if isinstance(value, dict) else [self.take(each) for each in value]
            finally:
                self._depth -= 1
        return self._scalar(value)

    def rows(self, value: object) -> JSON:
        """Data, whose keys mean nothing; only its texts are looked at."""
        if isinstance(value, list):
            return [self.rows(each) for each in value]
        if isinstance(value, dict):
            return {str(key): self.rows(each) for key, each in value.items() if key != "__proto__"}
        return self._scalar(value)

    def _object(self, value: Mapping[object, object]) -> JSON:
        clean: dict[str, JSON] = {}
        for key, each in value.items():
            try:
                clean[str(key)] = self._part(str(key), each, self)
            except _Drop:
                if key != "$schema":
                    self._dropped.append(f"{str(key)[:30]!r} of a chart")
        return clean

    def _scalar(self, value: object) -> JSON:
        if isinstance(value, str):
            from .markdown import clean_formula  # titles may be formulas

            return _MARKUP.sub("&lt;", clean_formula(value)) if "<" in value or "\\" in value else value
        return value if isinstance(value, (int, float)) or value is None else str(value)


def _mentions(value: object, word: str) -> bool:
    """Whether `word` stands anywhere as a key or a text."""
    todo = [value]
    while todo:
        each = todo.pop()
        if each == word:
            return True
        if isinstance(each, dict):
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            todo += each
    return False


def _remove(value: JSON, key: str) -> None:
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            each.pop(key, None)
            todo += each.values()
        elif isinstance(each, list):
            todo += each
