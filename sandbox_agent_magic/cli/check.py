"""`sandbox-agent doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import argparse
import json

from . import COMPLETED, NOT_COMPLETED

Commands = argparse._SubParsersAction


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    parser = commands.add_parser("doctor", help="check settings, provider, sandbox and model", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--call", action="store_true", help="also ask the model for one word; costs a few tokens")
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Print the settings with their sources, then the checks. 0 if a request could be run, else 1."""
    from ..doctor import checks, config_text
    from ..settings import load

    settings = load()
    if not options.json:
        print(config_text(settings), end="\n\n")
    found = []
    for check in checks(settings, call=options.call):
        found.append(check)
        if not options.json:
            print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}".replace("\n", "\n       "))
    if options.json:
        described = [{"name": row.name, "value": value, "source": source} for row, value, source in settings.describe()]
        rows = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in found]
        print(json.dumps({"settings": described, "checks": rows}, indent=1))
    needed = {"provider", "call", "sandbox"}
    return COMPLETED if all(check.ok for check in found if check.name in needed) else NOT_COMPLETED
