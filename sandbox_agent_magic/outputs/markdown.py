"""Markdown and formulas from a model or a sandbox: they are shown, they load nothing and lead nowhere unseen.

Every front end reads markdown in a dialect of its own, so what is code to one parser may be a tag to another. Hence no
parser here: what could become a tag, a link or a picture is broken up by a space wherever it stands. That reads well in
text and in code, and no dialect can put it together again.
"""

from __future__ import annotations

import re
from html import unescape

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_LINK = re.compile(r"\](?=[(:])")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|wss?|file)(?=://)|\b(www)(?=\.)")
_FENCE = re.compile(r"(`{3,}|~{3,})([^\n`]*)")
_MACRO = re.compile(
    r"\\(?=(?:href|url|unicode|require|class|style|cssId|data|bbox|html[A-Za-z]*|includegraphics|def|gdef|edef|xdef|let"
    r"|futurelet|(?:re)?newcommand|providecommand|(?:re)?newenvironment|DeclareMathOperator|csname|mmlToken|texttip|Tip"
    r"|toggle|mathtip|tooltip|action)(?![A-Za-z]))"
)


def clean_markdown(text: str) -> str:
    """Markdown without raw HTML, links and pictures; their targets stay readable."""
    text = _FENCE.sub(_plain_fence, clean_formula(text))
    text = _LINK.sub("] ", text.replace("![", "["))
    code = False
    lines = []
    for line in text.split("\n"):
        if line.lstrip(" >*-").startswith(("```", "~~~")):
            code = not code
        # Where this is wrong about what is code, an address becomes a link that shows where it leads.
        lines.append(line if code or "`" in line else _ADDRESS.sub(_no_link, line))
    return "\n".join(lines)


def clean_formula(text: str) -> str:
    """LaTeX without macros that link, load, restyle the page or make new names for these; and without tags."""
    return _TAG.sub("< ", _MACRO.sub(r"\\ ", text))


def _no_link(found: re.Match[str]) -> str:
    # A backslash before punctuation is not shown, and no dialect makes a link across it.
    return f"{found.group()}\\"


def _plain_fence(found: re.Match[str]) -> str:
    """A code block; never a diagram, which could load pictures."""
    said = unescape(found[2]).replace("\\", "").lower()
    return f"{found[1]}text" if "mermaid" in said else found.group()
