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


def sandbox_options(line: str) -> tuple[str, list[str]]:
    """Of a `%%sandbox` line: the executor after `-e`, the sandbox unless given, and the names after each `-o`."""
    from ..bridge import check_name

    words = line.split()
    if any(word not in ("-o", "-e") for word in words[::2]) or len(words) % 2:
        hint = "Its options are -e EXECUTOR and -o NAME."
        raise UsageError(f"%%sandbox does not understand {line.strip()!r}.", hint=hint)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    executor = next((value for option, value in reversed(pairs) if option == "-e"), "sandbox")
    if executor == "local":
        raise UsageError("%%sandbox does not run code in your own kernel.", hint="Delete the line to do that.")
    return executor, [check_name(value) for option, value in pairs if option == "-o"]
