"""Read the lines of the magics; a mistake in one is one clear line."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from IPython.core.error import UsageError as IPythonUsageError

from ..errors import UsageError

if TYPE_CHECKING:
    import argparse


def parse(parser: argparse.ArgumentParser, line: str) -> argparse.Namespace:
    """The line's options; a mistake in it is one clear line."""
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"The %%agent line cannot be read: {exc}.", hint="Close the quotation marks.") from None
    try:
        options, rest = parser.parse_known_args(words)
    except IPythonUsageError as exc:
        raise UsageError(f"%%agent: {exc}", hint="%%agent? shows the options.") from None
    if rest:
        import difflib

        known = [text for action in parser._actions for text in action.option_strings]
        near = difflib.get_close_matches(rest[0], known, n=1)
        if rest[0].startswith("-"):
            hint = f"Did you mean {near[0]}?" if near else "%%agent? shows the options."
            raise UsageError(f"%%agent has no option {rest[0]}.", hint=hint)
        raise UsageError(f"%%agent does not understand {rest[0]!r}.", hint="The request goes below the %%agent line.")
    return options


def words_of(line: str) -> list[str]:
    """The words of a `%agent` line."""
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"The %agent line cannot be read: {exc}.", hint="Close the quotation marks.") from None


def outputs_of(line: str) -> list[str]:
    """The names after each `-o` of a `%%sandbox` line."""
    from ..bridge import check_name

    words = line.split()
    if any(word != "-o" for word in words[::2]) or len(words) % 2:
        raise UsageError(f"%%sandbox does not understand {line.strip()!r}.", hint="Its only option is -o NAME.")
    return [check_name(name) for name in words[1::2]]
