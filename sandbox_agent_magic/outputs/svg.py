"""SVG from code that nobody has read: parsed, and drawn anew from a list of shapes.

It will stand in the reader's page as markup, so only what is listed is copied into a new document: no scripts, links,
animations, style sheets, filters or foreign markup. Names are replaced by our own, for they share the page with others.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from .words import words

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_SVG_BYTES = 4 << 20
_MAX_ELEMENTS = 50_000
_MAX_DEPTH = 60
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"

_SHAPES = frozenset({"path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "use"})
_GROUPS = frozenset({"svg", "g", "defs", "symbol", "clipPath", "linearGradient", "radialGradient", "stop"})
_GEOMETRY = words(
    "x y x1 y1 x2 y2 cx cy r rx ry fx fy dx dy d points width height viewBox transform gradientTransform offset "
    "preserveAspectRatio gradientUnits clipPathUnits spreadMethod textLength lengthAdjust rotate version"
)
_PAINT = words(
    "fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-linecap stroke-linejoin stroke- "
    "miterlimit stroke-dasharray stroke-dashoffset opacity color stop-color stop-opacity clip-path clip-rule "
    "display visibility font font-family font-size font-weight font-style text-anchor dominant-baseline alignment- "
    "baseline letter-spacing"
)
_PLAIN = re.compile(r"[\w\s.,%#()+'\"-]*")
_CALL = re.compile(r"([\w-]*)\s*\(")
_CALLS = frozenset({"rgb", "rgba", "hsl", "hsla", "matrix", "translate", "scale", "rotate", "skewX", "skewY"})
_REFERENCE = re.compile(r"\s*url\(\s*['\"]?#([^'\"()\s]{1,200})['\"]?\s*\)\s*")


def clean_svg(text: str) -> str | None:
    """The drawing, or None where it is not one that can be shown."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    if len(text) > MAX_SVG_BYTES:
        return None
    try:
        root = fromstring(text)  # entities are refused, external ones are never looked up
    except (DefusedXmlException, SyntaxError, ValueError, LookupError):  # ParseError is a SyntaxError
        return None
    if root.tag != f"{_NAMESPACE}svg":
        return None
    from xml.etree import ElementTree

    try:
        drawn = _Drawing(root, text).root
        drawn.set("xmlns", _NAMESPACE[1:-1])
        return ElementTree.tostring(drawn, encoding="unicode")
    except (_TooLarge, RecursionError):
        return None


class _TooLarge(Exception):
    pass


class _Drawing:
    """Copies what is listed."""

    def __init__(self, root: Element, text: str) -> None:
        self._names: dict[str, str] = {}
        self._simple: set[str] = set()
        """Names that `use` may repeat: what they stand for holds no `use`, so that repeating does not multiply."""
        self._left = _MAX_ELEMENTS
        self._prefix = "s" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:10]
        self._collect(root, 0)
        self.root = self._copy(root)

    def _collect(self, element: Element, depth: int) -> bool:
        """Find names; returns whether `use` stands in the element."""
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise _TooLarge
        # Not any(): every child has to be visited.
        uses = [self._collect(child, depth + 1) for child in element]
        uses.append(_local(element) == "use")
        name = element.get("id")
        if name and name not in self._names:
            self._names[name] = f"{self._prefix}-{len(self._names)}"
            if not any(uses):
                self._simple.add(name)
        return any(uses)

    def _copy(self, element: Element) -> Element:
        from xml.etree.ElementTree import Element as NewElement

        local = _local(element)
        new = NewElement(local)
        for key, value in element.attrib.items():
            self._attribute(new, local, key, value)
        if local in ("text", "tspan"):
            new.text = element.text
        for child in element:
            if _local(child) in _SHAPES or _local(child) in _GROUPS:
                copy = self._copy(child)
                if local in ("text", "tspan"):
                    copy.tail = child.tail
                new.append(copy)
        return new

    def _attribute(self, new: Element, local: str, key: str, value: str) -> None:
        if key == "id" and value in self._names:
            new.set("id", self._names[value])
        elif key in ("href", _XLINK):
            target = value.strip()[1:]
            allowed = target in self._simple if local == "use" else local.endswith("Gradient") and target in self._names
            if value.strip().startswith("#") and allowed:
                new.set("href", f"#{self._names[target]}")
        elif key == "style":
            kept = []
            for declaration in value.split(";"):
                name, _, setting = declaration.partition(":")
                plain = self._value(setting.strip()) if name.strip() in _PAINT else None
                if plain is not None:
                    kept.append(f"{name.strip()}: {plain}")
            if kept:
                new.set("style", "; ".join(kept))
        elif key in _GEOMETRY or key in _PAINT:
            plain = self._value(value)
            if plain is not None:
                new.set(key, plain)

    def _value(self, value: str) -> str | None:
        """A value that names nothing outside of the drawing."""
        reference = _REFERENCE.fullmatch(value)
        if reference is not None:
            name = self._names.get(reference[1])
            return f"url(#{name})" if name else None
        if _PLAIN.fullmatch(value) and all(call in _CALLS for call in _CALL.findall(value)):
            return value
        return None


def _local(element: Element) -> str:
    """The element's name, if it is SVG's; comments and processing instructions have none."""
    tag = element.tag
    return tag.removeprefix(_NAMESPACE) if isinstance(tag, str) and tag.startswith(_NAMESPACE) else ""
