"""All attacks, and the users who try them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.ordinary_user import ordinary_user, own

from . import container, isolation, landlock, limits, messages, outputs, syscalls, workspace
from .room import Attack, Row, attack_all

_ON_BOTH = [
    *isolation.ATTACKS,
    *syscalls.ATTACKS,
    *messages.ATTACKS,
    *outputs.ATTACKS,
    *workspace.ATTACKS,
    *limits.ATTACKS,
]
ATTACKS: dict[str, list[Attack]] = {
    "bubblewrap": [*_ON_BOTH, *isolation.BY_NAMESPACES],
    "landlock": [*_ON_BOTH, *landlock.ATTACKS],
    "container": [
        *(attack for attack in _ON_BOTH if f"{attack.kind}: {attack.name}" not in container.EXCLUDED),
        *isolation.BY_NAMESPACES,
        *container.ATTACKS,
    ],
}
"""By the kind of sandbox."""
FOR_ORDINARY_USERS = ("bubblewrap", "landlock")
"""Kinds that can be had by a user who is made for this: podman would need subordinate ids for him."""
ORDINARY = "ordinary user"


def _label(user: str, tier: str) -> str:
    return user if tier == "bubblewrap" else f"{user}, {tier}"


def chosen(only: str, tier: str) -> list[Attack]:
    """The attacks on a kind of sandbox whose class or name holds the word."""
    return [attack for attack in ATTACKS[tier] if only.lower() in f"{attack.kind} {attack.name}".lower()]


def as_this_user(only: str = "", *, tier: str, tell: Callable[[Row], None]) -> list[Row]:
    """Try them as the user who asks."""
    user = "root" if os.getuid() == 0 else ORDINARY
    return attack_all(chosen(only, tier), user=_label(user, tier), tier=tier, tell=tell)


def as_ordinary_user(only: str = "", *, tier: str, tell: Callable[[Row], None]) -> list[Row]:
    """Try them as a user who is made for this; only root can."""
    rows: list[Row] = []
    with ordinary_user() as user:
        here = Path(__file__).parents[1]
        for name in ("attack", "support"):
            shutil.copytree(
                here / name, user.home / "ours" / "tests" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        own(user.home / "ours")
        options = ["--json", "--tier", tier, *(["--only", only] if only else [])]
        done = user.python("-m", "tests.attack", *options, timeout_s=300)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                rows.append(Row(**json.loads(line)))
                tell(rows[-1])
        missing = len(chosen(only, tier)) - len(rows)
        if missing:
            how = f"{missing} attacks did not run: {done.stderr.strip()[-500:]}"
            rows.append(Row("suite", "run all attacks", _label(ORDINARY, tier), "ESCAPED", how, 0.0))
            tell(rows[-1])
    return rows
