"""HTML from code that nobody has read: it may look like a table, and nothing else.

Three steps. `_Normaliser` takes the page apart and writes it anew, balanced and bounded, because unbalanced or deeply
nested tags make every HTML parser's time or memory grow with the square of the page. The rules of its style sheets
(pandas' Styler writes its colours there) are then moved into the elements. nh3 has the last word: only listed tags and
attributes, only listed properties with plain values.
"""

from __future__ import annotations

import functools
import re
from html import escape, unescape

from .words import words

MAX_TAGS = 60_000
"""Of one output: a Styler of 100 rows and 100 columns has 20,000."""
_MAX_DEPTH = 60
_MAX_RULES = 500
"""Rules of a style sheet that do not aim at one id; matching them costs rules times elements."""
_MAX_STYLE_CHARS = 2_000

_TAGS = words(
    "abbr b bdi blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure h1 "
    "h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp section small span strong sub summary sup table "
    "tbody td tfoot th thead tr tt u ul var"
)
_VOID = frozenset({"br", "col", "hr", "img"})
_RAW = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript", "template", "svg",
        "math", "select", "object", "plaintext")  # fmt: skip
"""Dropped with everything in them."""

# No part of a tag may hold `<`, so that the search stays linear whatever the quotes do.
_TOKEN = re.compile(r"<!--|<(/?)([A-Za-z][A-Za-z0-9]{0,15})((?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)>|<")
_ATTRIBUTE = re.compile(r"([A-Za-z][\w-]{0,30})(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?")
_COMPOUND = r"(?:[A-Za-z][\w-]*|[#.][\w-]+)(?:[.#][\w-]+)*"
_SELECTOR = re.compile(rf"{_COMPOUND}(?:\s+{_COMPOUND}){{0,3}}")
_ONE_ID = re.compile(r"#[\w-]+")

_NUMBER = re.compile(r"[0-9]{1,4}")
_ALIGN = re.compile(r"left|right|center|justify|char", re.IGNORECASE)
_SCOPE = re.compile(r"row|col|rowgroup|colgroup", re.IGNORECASE)
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")

_LENGTH = r"-?\d{0,4}(?:\.\d{0,6})?(?:px|em|ex|rem|pt|%)?"
_COLOUR = r"(?:#[0-9a-f]{3,8}|[a-z]{3,24}|(?:rgb|hsl)a?\([\d\s.,%/deg]{1,60}\))"
_STOP = rf"{_COLOUR}(?:\s+{_LENGTH}){{0,2}}"
_GRADIENT = rf"linear-gradient\(\s*(?:\d{{1,3}}deg|to\s+[a-z]+)(?:\s*,\s*{_STOP}){{1,6}}\s*\)"
_WORDS = r"[a-z-]{1,20}(?:\s+[a-z-]{1,20}){0,2}"
_BORDER = rf"(?:(?:{_COLOUR}|\d{{1,2}}(?:px|pt|em)?|0)\s*){{1,3}}"
_FEW = r"\d{0,2}(?:\.\d{0,4})?(?:px|em|ex|rem|pt|%)?"
_VALUES = {
    "color": _COLOUR,
    "background-color": _COLOUR,
    "background": rf"(?:{_COLOUR}|{_GRADIENT})(?:\s+no-repeat)?",
    "font-weight": r"[a-z]{1,8}|\d{3}",
    "font-style": r"[a-z]{1,8}",
    "font-size": r"\d{1,2}(?:\.\d{0,4})?(?:px|em|ex|rem|pt)|\d{1,3}%|(?:x{1,2}-)?(?:small|large)|smaller|larger|medium",
    "font-family": r"[\w\s,'-]{1,100}",
    "text-align": r"[a-z]{1,8}",
    "text-decoration": _WORDS,
    "vertical-align": r"[a-z-]{1,12}",
    "white-space": r"[a-z-]{1,12}",
    "width": r"\d{1,4}(?:\.\d{0,4})?(?:px|em|pt)?|\d{1,2}(?:\.\d{0,4})?%|100%|auto",
    "max-width": r"\d{1,4}(?:px|em|pt)|\d{1,2}%|100%",
    "min-width": r"\d{1,3}(?:px|em|pt)|\d{1,2}%|100%",
    "opacity": r"[01]?(?:\.\d{1,4})?",
    "padding": rf"(?:{_FEW}\s*){{1,4}}",
    "border-collapse": r"[a-z]{1,8}",
    "border-spacing": rf"(?:{_FEW}\s*){{1,2}}",
    "border-radius": _FEW,
    "border-color": _COLOUR,
    "border-style": _WORDS,
    "border-width": rf"(?:{_FEW}\s*){{1,4}}",
    **dict.fromkeys(("border", "border-top", "border-right", "border-bottom", "border-left"), _BORDER),
    **{f"padding-{side}": _FEW for side in ("top", "right", "bottom", "left")},
}
_PROPERTIES = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _VALUES.items()}


class TooManyTags(ValueError):
    """The page is larger than anything that a reader would look at."""


def clean_html(html: str) -> str:
    """HTML that cannot run, load or send anything, nor leave its place: see the module.

    Raises:
        TooManyTags: it has more than `MAX_TAGS`, or as many escaped characters.
    """
    import nh3  # lazily: most cells have no HTML

    if html.count("<") > MAX_TAGS:
        raise TooManyTags
    normaliser = _Normaliser(html)
    if normaliser.page.count("&") > MAX_TAGS:  # each is slow to parse
        raise TooManyTags
    page = _inline(normaliser.page, normaliser.css) if normaliser.css else normaliser.page
    return nh3.clean(
        page,
        tags=set(_TAGS),
        attributes={
            "*": {"style", "title", "align"},
            "table": {"class", "border"},
            "td": {"colspan", "rowspan"},
            "th": {"colspan", "rowspan", "scope"},
            "col": {"span"},
            "colgroup": {"span"},
            "ol": {"start"},
            "details": {"open"},
            "img": {"src", "alt", "width", "height"},
        },
        attribute_filter=_attribute,
        url_schemes={"data"},
        link_rel=None,
    )


def clean_style(style: str) -> str:
    """The declarations of a style attribute that may stay: listed properties with plain values."""
    return _clean_style(style[:_MAX_STYLE_CHARS])


class _Normaliser:
    """Writes a page anew: known tags only, each closed where it was opened, none deeper than `_MAX_DEPTH`."""

    def __init__(self, html: str) -> None:
        self.css = ""
        self._parts: list[str] = []
        self._open: list[str] = []
        at = 0
        while (found := _TOKEN.search(html, at)) is not None:
            self._text(html[at : found.start()])
            at = found.end()
            if found.group() == "<!--":
                at = _after(html, "-->", at)
            elif found[2] is None:
                self._parts.append("&lt;")
            elif found[2].lower() in _RAW:
                at = self._drop(html, found[2].lower(), at) if not found[1] else at
            elif found[1]:
                self._close(found[2].lower())
            else:
                self._start(found[2].lower(), found[3])
        self._text(html[at:])
        for name in reversed(self._open):
            self._parts.append(f"</{name}>")
        self.page = "".join(self._parts)

    def _text(self, text: str) -> None:
        self._parts.append(escape(unescape(text), quote=False))

    def _drop(self, html: str, name: str, at: int) -> int:
        end = re.compile(f"</{name}", re.IGNORECASE).search(html, at)
        stop = end.start() if end else len(html)
        if name == "style":
            self.css += html[at:stop] + "\n"
        return _after(html, ">", stop)

    def _start(self, name: str, attributes: str) -> None:
        if name not in _TAGS or len(self._open) >= _MAX_DEPTH:
            return
        written = ""
        seen: dict[str, str] = {}
        for found in _ATTRIBUTE.finditer(attributes if name == "img" else attributes[:10_000]):
            value = next((group for group in found.groups()[1:] if group is not None), "")
            seen.setdefault(found[1].lower(), unescape(value))
        if name == "img" and not _PICTURE.fullmatch(seen.get("src", "")):
            return
        for key, value in seen.items():
            written += f' {key}="{escape(value)}"'
        self._parts.append(f"<{name}{written}>")
        if name not in _VOID:
            self._open.append(name)

    def _close(self, name: str) -> None:
        if name in self._open:
            while (last := self._open.pop()) != name:
                self._parts.append(f"</{last}>")
            self._parts.append(f"</{name}>")


def _after(text: str, end: str, at: int) -> int:
    """The place behind the next `end`; the text's end where there is none."""
    found = text.find(end, at)
    return len(text) if found < 0 else found + len(end)


def _inline(page: str, css: str) -> str:
    """Move the rules that one could want in a table into the elements that they are for."""
    kept: list[str] = []
    wide = 0
    for rule in css.split("}"):
        selectors, _, body = rule.partition("{")
        style = clean_style(body)
        wanted = [each.strip() for each in selectors.split(",") if _SELECTOR.fullmatch(each.strip())]
        if len(wanted) != 1 or not _ONE_ID.fullmatch(wanted[0]):
            wide += sum(not _ONE_ID.fullmatch(each) for each in wanted)
        if style and wanted and wide <= _MAX_RULES and not any(".dataframe" in each for each in wanted):
            kept.append(f"{', '.join(wanted)} {{{style}}}")
    if not kept:
        return page
    import css_inline  # lazily: only a Styler has colours

    try:
        return css_inline.inline_fragment(page, "\n".join(kept))
    except css_inline.InlineError:
        return page


def _attribute(tag: str, name: str, value: str) -> str | None:  # noqa: ARG001
    """nh3's question: what may stay of this attribute?"""
    match name:
        case "style":
            return clean_style(value) or None
        case "class":
            return "dataframe" if "dataframe" in value.split() else None
        case "src":
            return value if _PICTURE.fullmatch(value) else None
        case "align":
            return value if _ALIGN.fullmatch(value) else None
        case "scope":
            return value if _SCOPE.fullmatch(value) else None
        case "colspan" | "rowspan" | "span" | "start" | "width" | "height":
            return value if _NUMBER.fullmatch(value) else None
        case "border":
            return value if value in ("0", "1") else None
        case "title" | "alt":
            return value[:500]
        case "open":
            return ""
    return None


@functools.lru_cache(maxsize=4096)
def _clean_style(style: str) -> str:
    kept = []
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip().lower(), value.replace("!important", "").strip()
        pattern = _PROPERTIES.get(name)
        if pattern is not None and pattern.fullmatch(value):
            kept.append(f"{name}: {value}")
    return "; ".join(kept)
