"""Parameters that a server refuses: learned once for each address and model in this process, by no table of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .failure import Failure

_refused: dict[tuple[str, str], frozenset[str]] = {}

RENAMED = {"max_tokens": "max_completion_tokens"}
"""A refused parameter to the name to try instead; others are dropped."""

_MENTIONS = {
    "tools": r"\btools?\b|tool[ _-]?(choice|call|use)|function[ _-]?call",
    "image_url": r"image|multimodal|vision",
}
"""How a refusal speaks of a parameter, where that is not its name."""

_REFUSAL = re.compile(
    r"unsupported|(not|n't) support|deprecated|unknown|unrecognized|unexpected|not (allowed|permitted)"
    r"|extra (inputs|fields)|only supported|requires|no endpoints found",
    re.IGNORECASE,
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
