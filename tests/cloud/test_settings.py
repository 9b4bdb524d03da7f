"""Keys, accounts and money: what a folder's .env may and may not choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_agent_magic import settings
from sandbox_agent_magic.errors import SettingsError
from sandbox_agent_magic.executors.cloud import target_of

KEY = "key-0123456789abcdefghij"
OWN = {"SCALEBOX_API_KEY": KEY}


@pytest.mark.parametrize(
    ("environ", "env_file", "said"),
    [
        ({}, "", "SCALEBOX_API_KEY is not set"),
        (OWN, "SCALEBOX_DOMAIN=evil.example", "must not send your key elsewhere"),
        (OWN, "AGENT_EXECUTOR=scalebox", "must not use your account"),
        (OWN, "SCALEBOX_TEMPLATE=strange", "must not use your account"),
        (OWN, "AGENT_KEEP_SANDBOX=true", "must not use your account"),
        (OWN, "AGENT_SANDBOX_LIFE=86400", "must not use your account"),
        ({"AGENT_SANDBOX_ENV": f"PASSWORD={KEY}"}, "SCALEBOX_API_KEY=strangers", "Set both in the same place"),
        ({**OWN, "SCALEBOX_DOMAIN": "https://x"}, "", "it is no domain"),
        ({**OWN, "SCALEBOX_DOMAIN": f"me:{KEY}@x"}, "", "it is no domain"),
        ({**OWN, "AGENT_SANDBOX_ENV": f"{KEY}"}, "", "no NAME=VALUE"),
        ({**OWN, "AGENT_SESSION": "../other"}, "", "is not the id of a sandbox"),
        ({"SCALEBOX_API_KEY": f"{KEY}\n{KEY}"}, "", "a line's end"),
        ({"SCALEBOX_API_KEY": f"{KEY}\N{CYRILLIC SMALL LETTER KA}"}, "", "letters in it that no key has"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    environ: dict[str, str], env_file: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(env_file)
    with pytest.raises(SettingsError) as caught:
        target_of(settings.load(environ=environ, folder=tmp_path), "scalebox", "Scalebox")
    assert said in str(caught.value)
    assert len(caught.value.lines()) == 3
    assert KEY not in str(caught.value)


def test_what_the_reader_says_himself_is_meant(tmp_path: Path) -> None:
    given = {"agent_executor": "scalebox", "agent_session": "sbx-1", "agent_keep_sandbox": True}
    (tmp_path / ".env").write_text(f"SCALEBOX_API_KEY={KEY}\nAGENT_SANDBOX_ENV=A=1\nSCALEBOX_TEMPLATE=own\n")
    target = target_of(settings.load(given, environ={}, folder=tmp_path), "scalebox", "Scalebox")
    assert (target.session, target.keep, target.environment, target.template) == ("sbx-1", True, (("A", "1"),), "own")
    assert KEY not in repr(target)


@pytest.mark.parametrize("name", ["E2B_API_URL", "E2B_SANDBOX_URL"])
@pytest.mark.parametrize(
    ("environ", "env_file", "said"),
    [
        ({}, "{name}=https://evil.example", "must not send your key elsewhere"),
        ({"{name}": "own.example"}, "", "it is no http:// or https:// address"),
        ({"{name}": f"https://me:{KEY}@own.example"}, "", "it is no http:// or https:// address"),
        ({"{name}": f"https://own.example/?key={KEY}"}, "", "it is no http:// or https:// address"),
        ({"{name}": "https://[own"}, "", "it is no http:// or https:// address"),
    ],
)
def test_addresses_that_cannot_be_meant_are_refused(
    name: str, environ: dict[str, str], env_file: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(env_file.format(name=name))
    given = {key.format(name=name): value for key, value in environ.items()}
    with pytest.raises(SettingsError) as caught:
        target_of(settings.load(environ={"E2B_API_KEY": KEY, **given}, folder=tmp_path), "e2b", "E2B")
    assert said in str(caught.value)
    assert len(caught.value.lines()) == 3
    assert KEY not in str(caught.value)


def test_an_address_of_ones_own_is_named_in_errors(tmp_path: Path) -> None:
    given = {"E2B_API_KEY": KEY, "E2B_API_URL": "http://127.0.0.1:3000/", "E2B_SANDBOX_URL": "http://127.0.0.1:3002"}
    target = target_of(settings.load(environ=given, folder=tmp_path), "e2b", "E2B")
    assert (target.api_url, target.sandbox_url) == ("http://127.0.0.1:3000", "http://127.0.0.1:3002")
    assert target.domain_name == "E2B_API_URL"
