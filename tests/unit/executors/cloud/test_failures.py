"""The errors of providers, as a reader sees them: at most three lines, each kind its own, nothing secret."""

from __future__ import annotations

from typing import get_args

import pytest

from sandbox_agent_magic.errors import ExecutorTimeout
from sandbox_agent_magic.executors.cloud import CloudFailure, CloudTarget
from sandbox_agent_magic.executors.cloud.engine import Kind
from sandbox_agent_magic.executors.cloud.failures import error_of

KEY = "sbx_key-1"
TARGET = CloudTarget(
    KEY, key_name="SCALEBOX_API_KEY", key_source="/x/.env", domain="h:1/v1", domain_name="SCALEBOX_DOMAIN", template="t"
)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_words_of_its_own(kind: Kind) -> None:
    error = error_of(CloudFailure(kind, "told", 418), TARGET, name="scalebox", title="Scalebox", sandbox_id="sbx-1")
    assert len(error.lines()) == 3
    assert "{" not in str(error)
    assert "418: told" in error.why
    assert isinstance(error, ExecutorTimeout) == (kind == "late")


def test_no_two_kinds_are_told_alike() -> None:
    said = {error_of(CloudFailure(kind), TARGET, name="s", title="S").message for kind in get_args(Kind)}
    assert len(said) == len(get_args(Kind))


def test_what_may_be_secret_or_move_the_cursor_is_left_out() -> None:
    told = f"bad key {KEY} or eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9 \x1b[31mred\x1b[0m \x1b]0;title\x07\nnext. "
    error = error_of(CloudFailure("server", told + "x" * 1_000), TARGET, name="scalebox", title="Scalebox")
    for bad in (KEY, "eyJ", "\x1b", "\x07", "xxxx"):
        assert bad not in str(error)
    assert "bad key *** or ... red" in error.why
    assert len(error.why) < 400
