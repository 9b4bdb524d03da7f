"""Attack all kinds of sandbox, as this user and, as root, as an ordinary user too; print a table.

    python -m tests.attack [--only WORD] [--tier KIND] [--output FILE]

Ends with status 1 if an attack was not contained.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.support.podman import podman_is_missing

from .room import Row
from .suite import ATTACKS, FOR_ORDINARY_USERS, as_ordinary_user, as_this_user


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="attacks whose class or name holds WORD")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there, as markdown")
    parser.add_argument("--json", action="store_true", help="one row a line, and this user only")
    parser.add_argument("--tier", choices=[*ATTACKS, "all"], default="all", help="kind of sandbox; default: all")
    options = parser.parse_args()
    tiers = [*ATTACKS] if options.tier == "all" else [options.tier]
    rows: list[Row] = []
    for tier in tiers:
        if options.json:
            as_this_user(
                options.only, tier=tier, tell=lambda row: print(json.dumps(dataclasses.asdict(row)), flush=True)
            )
            continue
        if tier == "container" and (why := podman_is_missing()):
            print(f"The container was not attacked: {why}.", file=sys.stderr)
            continue
        rows += as_this_user(options.only, tier=tier, tell=_show)
        if os.getuid() == 0 and tier in FOR_ORDINARY_USERS:
            rows += as_ordinary_user(options.only, tier=tier, tell=_show)
    if options.json:
        return 0
    if os.getuid() != 0:
        print("Not root: the attacks ran as this user only.", file=sys.stderr)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(_markdown(rows), encoding="utf-8")
        print(f"The table: {options.output}")
    print(summary(rows))
    return 1 if any(row.result == "ESCAPED" for row in rows) or not rows else 0


def summary(rows: Iterable[Row]) -> str:
    """One line for each user."""
    rows = list(rows)
    lines = []
    for user in dict.fromkeys(row.user for row in rows):
        count = Counter(row.result for row in rows if row.user == user)
        seconds = sum(row.seconds for row in rows if row.user == user)
        lines.append(
            f"{user}: " + ", ".join(f"{number} {result}" for result, number in count.items()) + f"; {seconds:.0f} s"
        )
    return "\n".join(lines)


def _show(row: Row) -> None:
    print(
        f"{row.result:9}  {row.user:23} {row.kind:13} {row.name:55.55}  {row.seconds:5.1f} s  {row.how[:90]}",
        flush=True,
    )


def _markdown(rows: list[Row]) -> str:
    def cell(value: str) -> str:
        return value.replace("|", "\\|").replace("<", "&lt;")

    lines = ["# Attacks on the sandbox", "", summary(rows).replace("\n", "  \n"), ""]
    lines += ["| attack | class | user | result | how |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {cell(row.name)} | {row.kind} | {row.user} | {row.result} | {cell(row.how[:200])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
