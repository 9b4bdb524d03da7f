"""What a failure between here and a provider means, in three lines: one table for all providers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ...errors import ExecutorError, ExecutorTimeout
from ...outputs import clean_text, strip_colours
from .engine import CloudFailure, CloudTarget, Kind

_REASON_CHARS = 300
_LONG_WORD = re.compile(r"[A-Za-z0-9_\-]{20,}")
"""May be a key or a token, of whomever."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    message: str
    hint: str
    why: str = ""


_AGAIN = "Try again later."
_ADDRESS = "Look whether this machine is online{and_the_address}."
_MEANINGS: dict[Kind, _Meaning] = {
    "key": _Meaning("{title} does not accept the key.", "Set {key} to a key of your account."),
    "forbidden": _Meaning("{title} refuses this.", "Look at what this key may do, or set {key} to another one."),
    "gone": _Meaning(
        "There is no sandbox {id} at {title} (any more).", "%agent sandboxes -e {executor} lists those that run."
    ),
    "template": _Meaning(
        "{title} does not know the template{template}.", "Set {name}_TEMPLATE to one of your account's."
    ),
    "refused": _Meaning("{title} refuses this request.", "Look at {name}_TEMPLATE and AGENT_SANDBOX_LIFE."),
    "funds": _Meaning(
        "The account at {title} is used up.",
        "Look at its plan and credit; %agent sandboxes -e {executor} lists what runs.",
    ),
    "busy": _Meaning(
        "{title} takes no more requests now.", f"{_AGAIN} %agent sandboxes -e {{executor}} lists what runs."
    ),
    "server": _Meaning("{title} has a failure of its own.", _AGAIN),
    "unreachable": _Meaning("{title} cannot be reached.", _ADDRESS),
    "cut": _Meaning("The connection to {title} was cut.", "Try again."),
    "late": _Meaning("{title} does not answer.", _ADDRESS, "No answer in time."),
    "file": _Meaning("A file cannot be copied from or to {title}.", "%agent files lists what is there."),
    "reply": _Meaning(
        "{title} gave an answer that is not understood.", "Look whether {domain} is an address of {title}."
    ),
}


class FailureOf(Protocol):
    """What an adapter knows of its SDK: the failure that an exception means."""

    def __call__(self, problem: BaseException, *, creating: bool = False, file: bool = False) -> CloudFailure:
        """The failure; `creating` a sandbox or copying a `file`, what is not found is its template or that file."""


@contextlib.contextmanager
def translated(failure_of: FailureOf, api_key: str, *, creating: bool = False, file: bool = False) -> Iterator[None]:
    """Whatever the SDK raises leaves as a CloudFailure, without the key and without the SDK's exception behind it."""
    failure: CloudFailure | None = None
    try:
        yield
    except CloudFailure:
        raise
    except Exception as problem:
        failure = failure_of(problem, creating=creating, file=file)
        failure.detail = failure.detail.replace(api_key, "***")
    if failure is not None:
        raise failure


def error_of(
    failure: CloudFailure, target: CloudTarget, *, name: str, title: str, sandbox_id: str = ""
) -> ExecutorError:
    """The error that the reader sees.

    Args:
        failure: what the adapter raised.
        target: for what the settings are called, and where they came from.
        name: the executor's.
        title: the provider's.
        sandbox_id: of the sandbox that was meant.
    """
    meaning = _MEANINGS[failure.kind]
    address = target.api_url or target.domain
    words = {
        "title": title,
        "key": target.key_name,
        "domain": target.domain_name,
        "executor": name,
        "name": name.upper(),
        "template": f" {target.template!r}" if target.template else "",
        "and_the_address": f", and whether {target.domain_name} is right: {address}" if address else "",
        "id": sandbox_id or target.session,
    }
    words_of = shortened(failure.detail.replace(target.api_key, "***"))
    status = f"{failure.status}: " if failure.status and not words_of.startswith(str(failure.status)) else ""
    why = (
        f"It says {status}{words_of}."
        if words_of
        else f"It answers {failure.status}."
        if failure.status
        else meaning.why
    )
    if failure.kind == "key":
        why = f"{target.key_name} comes from {target.key_source}. {why}"
    kind = ExecutorTimeout if failure.kind == "late" else ExecutorError
    return kind(
        " ".join(meaning.message.format_map(words).split()),
        executor=name,
        why=why,
        hint=meaning.hint.format_map(words),
    )


def shortened(text: str) -> str:
    """The provider's words as they may stand in a message: one line, nothing in it that may be a secret."""
    return _LONG_WORD.sub("...", said(text))


def said(text: object) -> str:
    """What somebody over there said, as one line of plain text without a full stop."""
    return " ".join(strip_colours(clean_text(str(text))).split())[:_REASON_CHARS].rstrip(".")
