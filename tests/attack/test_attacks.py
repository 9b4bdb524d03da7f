"""Every attack as a test of its own, as the user who runs the suite and as an ordinary one."""

from __future__ import annotations

import os

import pytest

from .room import Row
from .suite import ATTACKS, as_ordinary_user, as_this_user

pytestmark = pytest.mark.integration
NAMES = [f"{attack.kind}: {attack.name}" for attack in ATTACKS]


def _by_name(rows: list[Row]) -> dict[str, Row]:
    return {f"{row.kind}: {row.name}": row for row in rows}


@pytest.fixture(scope="module")
def here() -> dict[str, Row]:
    return _by_name(as_this_user(tell=lambda row: None))


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, Row]:
    return _by_name(as_ordinary_user(tell=lambda row: None))


def _contained(rows: dict[str, Row], name: str) -> None:
    row = rows.get(name)
    assert row is not None, rows.get("suite: run all attacks")
    if row.result == "pending":
        pytest.xfail(row.how)
    assert row.result == "contained", row.how


def test_no_two_attacks_have_one_name_and_there_are_many() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 70


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_contained_for_this_user(here: dict[str, Row], name: str) -> None:
    _contained(here, name)


@pytest.mark.timeout(400)
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user; the other tests cover ordinary ones")
@pytest.mark.may_skip
@pytest.mark.parametrize("name", NAMES)
def test_it_is_contained_for_an_ordinary_user(elsewhere: dict[str, Row], name: str) -> None:
    _contained(elsewhere, name)
