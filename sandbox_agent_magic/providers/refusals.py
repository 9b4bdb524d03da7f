"""What a server refuses: learned once for each address and model in this process, by no table of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .failure import Failure

_refused: dict[tuple[str, str], frozenset[str]] = {}
_output_limits: dict[tuple[str, str], int] = {}

RENAMED = {"max_tokens": "max_completion_tokens"}
"""A refused parameter to the name to try instead; others are dropped."""

_MENTIONS = {
    "tools": r"\btools?\b|tool[ _-]?(choice|call|use)|function[ _-]?call",
    "image_url": r"image|multimodal|vision",
    "cache_control_blocks": r"cache_control",
}
"""How a refusal speaks of a parameter, where that is not its name."""

_REFUSAL = re.compile(
    r"unsupported|(not|n't) support|deprecated|unknown|unrecognized|unexpected|not (allowed|permitted)"
    r"|extra (inputs|fields)|only supported|requires|no endpoints found",
    re.IGNORECASE,
)
_OUTPUT_LIMIT = re.compile(
    r"max_\w*tokens\b.{0,60}?(?:\d+ > (\d+)|at most (\d+)|less than or equal to (\d+))", re.IGNORECASE
)
_REFUSAL_STATUSES = (None, 400, 404, 422, 500, 501)


def refused_parameter(failure: Failure, sent: Sequence[str], model: str) -> str | None:
    """Which of the parameters in `sent` the server refuses as such; None when the failure is about something else."""
    # The model's own name is no mention: there may be one called "tool-writer".
    words = re.sub(rf"(?<!\w){re.escape(model)}(?!\w)", "", f"{failure.message} {failure.code} {failure.type}")
    if failure.kind != "server" or failure.status not in _REFUSAL_STATUSES or not _REFUSAL.search(words):
        return None
    if failure.param in sent:
        return failure.param
    mentioned = (n for n in sent if re.search(_MENTIONS.get(n, rf"\b{re.escape(n)}\b"), words, re.IGNORECASE))
    return next(mentioned, None)


def refused(base_url: str, model: str) -> frozenset[str]:
    """What the model at this address is known to refuse."""
    return _refused.get((base_url, model), frozenset())


def learn(base_url: str, model: str, parameter: str) -> None:
    """Leave `parameter` out from now on."""
    _refused[base_url, model] = refused(base_url, model) | {parameter}


def output_limit(failure: Failure) -> int | None:
    """The most tokens of a reply that the server says the model can write, if that is what it objects to."""
    found = _OUTPUT_LIMIT.search(failure.message) if failure.status in _REFUSAL_STATUSES else None
    return next((int(number) for number in found.groups() if number), None) if found else None


def learned_output_limit(base_url: str, model: str) -> int | None:
    """The most tokens that may be asked of the model at this address, if it has said so."""
    return _output_limits.get((base_url, model))


def learn_output_limit(base_url: str, model: str, tokens: int) -> None:
    """Ask for no more than `tokens` from now on."""
    _output_limits[base_url, model] = tokens
