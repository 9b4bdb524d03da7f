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
