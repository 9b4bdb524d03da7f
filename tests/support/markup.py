"""Reads markup as a browser would and says what in it could run, load, lead elsewhere or leave its place.

Written apart from the sanitiser, and far stricter than it has to be, so that both have to be wrong in the same way.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from sandbox_agent_magic.outputs.words import words

_TAGS = words(
    "abbr b bdi blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure h1 "
    "h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp section small span strong sub summary sup table "
    "tbody td tfoot th thead tr tt u ul var svg g defs symbol clippath lineargradient radialgradient stop path rect "
    "circle ellipse line polyline polygon text tspan use"
)
_HARMFUL_VALUE = re.compile(r"(?i)url\((?!#s)|expression|javascript:|vbscript:|@import|//|\\|position|behavior|binding")
_LEAVES = re.compile(r"(?i)(?:^|;)\s*(?:margin[\w-]*|transform|translate|z-index|inset|top|left|float)\s*:")
_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")


def harm(markup: str) -> list[str]:
    """Everything that is not plainly harmless; empty is good."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return reader.found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            text = value or ""
            if name == "src":
                if not _PICTURE.fullmatch(text):
                    self.found.append(f"src={text}")
            elif name in ("href", "xlink:href"):
                if not re.fullmatch(r"#s[0-9a-f]+-\d+", text):
                    self.found.append(f"href={text}")
            elif name == "id":
                if not re.fullmatch(r"s[0-9a-f]+-\d+", text):
                    self.found.append(f"id={text}")
            elif name == "class":
                if text != "dataframe":
                    self.found.append(f"class={text}")
            elif name == "xmlns":
                if text != "http://www.w3.org/2000/svg":
                    self.found.append(f"xmlns={text}")
            elif name.startswith("on") or ":" in name or name in ("srcdoc", "srcset", "action", "formaction", "ping"):
                self.found.append(name)
            elif name == "style" and _LEAVES.search(text):
                self.found.append(f"style={text}")
            elif name not in ("title", "alt") and _HARMFUL_VALUE.search(text):
                self.found.append(f"{name}={text}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self.found.append(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self.found.append(f"<?{data}>")

    def unknown_decl(self, data: str) -> None:
        self.found.append(f"<![{data}]>")
