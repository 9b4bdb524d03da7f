"""Every attack as a test of its own: on all kinds of sandbox, as the user who runs the suite and as another."""

from __future__ import annotations

import functools
import os

import pytest

from sandbox_agent_magic.sandbox import landlock
from tests.support.podman import podman_is_missing

from .room import Row
from .suite import ATTACKS, FOR_ORDINARY_USERS, as_ordinary_user, as_this_user

pytestmark = pytest.mark.integration
_OLD_KERNEL = pytest.mark.skipif(landlock.abi() < 3, reason="the machine's kernel has no Landlock of version 3")
_NO_PODMAN = pytest.mark.skipif(bool(podman_is_missing()), reason=podman_is_missing())
_MARKS = {"bubblewrap": [], "landlock": [_OLD_KERNEL, pytest.mark.may_skip], "container": [_NO_PODMAN]}
NAMES = {tier: [f"{attack.kind}: {attack.name}" for attack in attacks] for tier, attacks in ATTACKS.items()}
CASES = [
    pytest.param(tier, name, marks=_MARKS[tier], id=f"{tier}-{name}") for tier, names in NAMES.items() for name in names
]


@functools.cache
def here(tier: str) -> dict[str, Row]:
    """What became of the attacks, by name, tried as this user."""
    return _by_name(as_this_user(tier=tier, tell=lambda row: None))


@functools.cache
def elsewhere(tier: str) -> dict[str, Row]:
    """The same, as an ordinary user."""
    return _by_name(as_ordinary_user(tier=tier, tell=lambda row: None))


def _by_name(rows: list[Row]) -> dict[str, Row]:
    return {f"{row.kind}: {row.name}": row for row in rows}


def _contained(rows: dict[str, Row], name: str) -> None:
    row = rows.get(name)
    assert row is not None, rows.get("suite: run all attacks")
    assert row.result == "contained", row.how


def test_no_two_attacks_have_one_name_and_there_are_many() -> None:
    for names in NAMES.values():
        assert len(set(names)) == len(names) >= 70


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("tier", "name"), CASES)
def test_it_is_contained_for_this_user(tier: str, name: str) -> None:
    _contained(here(tier), name)


@pytest.mark.timeout(400)
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user; the other tests cover ordinary ones")
@pytest.mark.may_skip
@pytest.mark.parametrize(("tier", "name"), [case for case in CASES if case.values[0] in FOR_ORDINARY_USERS])
def test_it_is_contained_for_an_ordinary_user(tier: str, name: str) -> None:
    _contained(elsewhere(tier), name)
