"""What the pages say of providers is what the program does: their settings exist, their messages are real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sandbox_agent_magic.providers import known
from sandbox_agent_magic.providers.failures import TABLE
from sandbox_agent_magic.settings import rows

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
MESSAGES = re.findall(r"^\| \*(.+?)\* \|", SECTIONS["When something is wrong"], re.MULTILINE)


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{4,})\b", PAGE)) - {"SSL_CERT_FILE"}
    exist = {name for row in rows() for name in (row.name, *row.aliases)}
    assert len(named) > 20
    assert named <= exist


def test_every_provider_stands_in_the_table_or_is_for_tests() -> None:
    for name in set(known()) - {"scripted"}:
        assert name in PAGE.lower()


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_that_the_page_explains_is_one_of_ours(message: str) -> None:
    patterns = [re.sub(r"\\\{.*?\\\}", ".+", re.escape(row.message)) for row in TABLE]
    assert any(re.fullmatch(pattern, message) for pattern in patterns)


def test_the_page_explains_what_readers_meet_most() -> None:
    assert len(MESSAGES) > 12
    for words in ("cannot be reached", "has no model", "within", "did not accept"):
        assert any(words in message for message in MESSAGES)
