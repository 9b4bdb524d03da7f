"""`sandbox-agent doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import COMPLETED, NOT_COMPLETED

if TYPE_CHECKING:
    from ..doctor import Check

Commands = argparse._SubParsersAction


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    parser = commands.add_parser("doctor", help="check settings, provider, sandbox and model", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--call", action="store_true", help="also ask the model for one word; costs a few tokens")
    parser.add_argument(
        "--conformance",
        action="store_true",
        help="hold an executor to everything that one promises (about a minute; runs code in it)",
    )
    parser.add_argument("--executor", metavar="NAME", help="for --conformance: which one; default: AGENT_EXECUTOR")
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Print the settings with their sources, then the checks. 0 if a request could be run, else 1."""
    from ..doctor import checks, config_text
    from ..settings import load

    if options.conformance:
        return _conformance(options)
    if options.executor is not None:
        raise UsageError("--executor is an option of --conformance.", hint="Write both, or neither.")
    settings = load()
    if not options.json:
        print(config_text(settings), end="\n\n")
    found = list(_shown(checks(settings, call=options.call), quiet=options.json))
    if options.json:
        described = [{"name": row.name, "value": value, "source": source} for row, value, source in settings.describe()]
        print(json.dumps({"settings": described, "checks": [asdict(check) for check in found]}, indent=1))
    # With `container` it is that one that has to work.
    needed = {"provider", "call", "container" if settings.agent_executor == "container" else "sandbox"}
    return COMPLETED if all(check.ok for check in found if check.name in needed) else NOT_COMPLETED


def _conformance(options: argparse.Namespace) -> int:
    """Hold one executor to its promises; 0 if it keeps them all, else 1."""
    from ..doctor import conformance
    from ..settings import load

    settings = load()
    name = options.executor or settings.agent_executor
    found = list(_shown(conformance(settings, name), quiet=options.json))
    kept = sum(check.ok for check in found)
    if options.json:
        print(json.dumps({"executor": name, "checks": [asdict(check) for check in found]}, indent=1))
    else:
        print(f"\n{name} keeps {kept} of {len(found)} promises")
    return COMPLETED if kept == len(found) else NOT_COMPLETED


def _shown(checks: Iterable[Check], *, quiet: bool) -> Iterator[Check]:
    """The checks, each printed as it comes unless `quiet`."""
    for check in checks:
        if not quiet:
            said = f"{check.name}: {check.detail}" if check.detail else check.name
            print(f"{'ok  ' if check.ok else 'FAIL'} {said}".replace("\n", "\n       "), flush=True)
        yield check
