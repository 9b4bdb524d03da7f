"""Text of a server made fit to be shown: one short line, and nothing in it that is, or looks like, a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from ..types import JSON

_MAX_TEXT = 300
_MAX_READ = 4_000
"""Characters of a server's text that are looked at: the patterns below stay fast on a hostile page."""
_SHORTEST = 8
"""A shorter secret is a common word sooner than a key, and would be cut out of ordinary text."""
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
    for form in _forms(secret):
        for size in range(len(form), 7, -1):
            text = text.replace(form[:size], "***").replace(form[-size:], "***")
        if 4 <= len(form) < 8:
            text = text.replace(form, "***")
    return text


def _forms(secret: str) -> list[str]:
    """The ways in which `secret` may stand in a text, longest first; its lines and words too."""
    forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, errors="replace"), *secret.split()}
    return sorted(forms, key=len, reverse=True)


def plain_text(text: str) -> str:
    """A page's title, or the text without its tags."""
    title = re.search(r"(?i)<title[^<>]{0,100}>([^<]{1,300})<", text[: 5 * _MAX_READ])
    return title[1] if title else re.sub(r"<[^<>]{0,500}>", " ", text[:_MAX_READ])


class Redactor:
    """Takes secrets out of text that comes in pieces, holding back only what may be the beginning of one.

    A server knows the key that it was sent; in what it says, and so in the notebook, the key must not come back.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST]
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text so far can be passed on now."""
        text = self.whole(self._held + piece)
        self._held = ""
        keep = max((_overlap(text, secret) for secret in self._secrets), default=0)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text

    def rest(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held

    def arguments(self, text: str) -> str:
        """The arguments of a call without the secrets: looked for in what the JSON says, not in how it is written."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.whole(text)
        clean = self.value(value)
        return text if clean == value else json.dumps(clean, ensure_ascii=False)

    def value(self, value: JSON) -> JSON:
        """A JSON value without the secrets."""
        if isinstance(value, str):
            return self.whole(value)
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {self.whole(key): self.value(each) for key, each in value.items()}
        return value

    def whole(self, text: str) -> str:
        """A complete text without the secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text


def _overlap(text: str, secret: str) -> int:
    """How many characters at the end of `text` are a beginning of `secret`."""
    first, start = secret[0], max(0, len(text) - len(secret) + 1)
    while (at := text.find(first, start)) >= 0:
        if secret.startswith(text[at:]):
            return len(text) - at
        start = at + 1
    return 0
