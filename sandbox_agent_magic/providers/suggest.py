"""What to say beside "there is no such model": that the name belongs elsewhere, or which ones are near it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

_MAX_NAMES = 3
_FAMILIES = (
    (re.compile(r"claude", re.I), "anthropic", "Anthropic", "-p anthropic with ANTHROPIC_API_KEY"),
    (
        re.compile(r"(chat)?gpt-(?!oss)|o[1-9](-|$)|text-davinci", re.I),
        "openai",
        "OpenAI",
        "-p openai with OPENAI_API_KEY",
    ),
    (re.compile(r"gemini|llama|mistral|mixtral|qwen|deepseek|grok|gemma|phi-?\d", re.I), "", "another vendor", ""),
)
"""How the names of a vendor's models begin, the provider that asks it, and how to choose that. Only what nobody would
mistake; it is used for a hint after the server has said no, never to choose."""
_DIRECT = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
"""Hosts that serve the models of one vendor only."""


def suggestion(model: str, names: Sequence[str], *, provider: str, server: str) -> str:
    """A line on what to set instead of `model`; empty if there is nothing to say.

    Args:
        model: the name that the server does not know.
        names: those that it offers.
        provider: whom we asked.
        server: host, as shown.
    """
    foreign = _belongs_elsewhere(model, server)
    if foreign:
        return foreign
    if not names:
        return ""
    option = "AZURE_DEPLOYMENT_NAME or -m" if provider == "azure" else "MODEL or -m"
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(model.lower(), by_lower, n=_MAX_NAMES, cutoff=0.4)
    if near:
        return f"Nearest there: {', '.join(by_lower[name] for name in near)} (set {option}). `%agent models` lists all."
    some = ", ".join(list(names)[:_MAX_NAMES])
    return f"It offers {len(names)}, such as {some} (set {option}). `%agent models` lists all."


def _belongs_elsewhere(model: str, server: str) -> str:
    here = _DIRECT.get(server)
    if here is None:
        return ""
    vendor, _, rest = model.rpartition("/")
    for pattern, provider, owner, choice in _FAMILIES:
        if provider != here and pattern.match(rest):
            way = f"use {choice}, or" if choice else "use"
            return f"{model} is the name of a model of {owner}: {way} a server that has it (OPENAI_BASE_URL)."
    if vendor:
        return f"LiteLLM and OpenRouter write names like {model}: set OPENAI_BASE_URL to such a server, or use {rest}."
    return ""
