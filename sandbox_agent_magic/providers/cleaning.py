"""Text of a server made fit to be shown: one short line, and nothing in it that is, or looks like, a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

_MAX_TEXT = 300
_MAX_READ = 4_000
"""Characters of a server's text that are looked at: the patterns below stay fast on a hostile page."""
_KEYLIKE = re.compile(
    r"""(?ix)
    \b bearer \s+ [^\s"',;]+
  | \b (?: sk | pk | rk | gsk | xai | hf | ghp | key | api[_-]?key | pat ) [-_] [\w.*-]{6,}
  | \b AIza [\w-]{10,}
  | \b eyJ [\w-]{10,} (?: \. [\w-]+ )*
  | \b (?= \w{0,80} \d ) (?= \w{0,80} [a-z] ) \w{32,}
  | (?<= // ) [^/\s@]+ (?= @ )
    """
)


def clean(text: str, secrets: Iterable[str]) -> str:
    """`text` as one line that may be shown: short, printable, without secrets and without what looks like a key."""
    text = text[:_MAX_READ]
    for secret in secrets:
        text = _without(text, secret)
    text = _KEYLIKE.sub("***", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _without(text: str, secret: str) -> str:
    """`text` without `secret`, its written forms, and the ends of it that servers like to quote."""
    forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, errors="replace"), *secret.split()}
    for form in sorted(forms, key=len, reverse=True):
        for size in range(len(form), 7, -1):
            text = text.replace(form[:size], "***").replace(form[-size:], "***")
        if 4 <= len(form) < 8:
            text = text.replace(form, "***")
    return text


def plain_text(text: str) -> str:
    """A page's title, or the text without its tags."""
    title = re.search(r"(?i)<title[^<>]{0,100}>([^<]{1,300})<", text[: 5 * _MAX_READ])
    return title[1] if title else re.sub(r"<[^<>]{0,500}>", " ", text[:_MAX_READ])
