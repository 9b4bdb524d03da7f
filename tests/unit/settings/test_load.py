"""Settings: order of the sources, checks, and the rule about keys and addresses."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import SettingsError
from sandbox_agent_magic.settings import Settings, env_example, load

KEY = "sk-placeholder-4f2a"


def loaded(folder: Path, env_file: str = "", environ: dict[str, str] | None = None, **arguments: object) -> Settings:
    if env_file:
        (folder / ".env").write_text(env_file, encoding="utf-8")
    return load(arguments, environ=environ or {}, folder=folder)


def test_an_argument_wins_over_the_environment_and_that_over_the_env_file(tmp_path: Path) -> None:
    text = "MODEL=from-file\nTEMPERATURE=0.1\nMAX_RETRY=1\n"
    settings = loaded(tmp_path, text, {"MODEL": "from-environment", "TEMPERATURE": "0.2"}, model="from-argument")
    assert (settings.model, settings.temperature, settings.max_retry) == ("from-argument", 0.2, 1)
    assert [settings.source(name) for name in ("MODEL", "TEMPERATURE", "MAX_ITERATIONS")] == [
        "argument",
        "environment",
        "default",
    ]
    assert settings.source("MAX_RETRY").endswith(".env")


def test_the_env_file_is_found_upward(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MODEL=upstairs", encoding="utf-8")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert load(environ={}, folder=deep).model == "upstairs"


def test_empty_means_unset(tmp_path: Path) -> None:
    assert loaded(tmp_path, "MODEL=from-file\n", {"MODEL": " "}).model == "from-file"


def test_nothing_is_written_into_the_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    loaded(tmp_path, f"OPENAI_API_KEY={KEY}\n")
    assert dict(os.environ) == before


def test_an_env_file_cannot_take_a_value_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    settings = loaded(tmp_path, "OPENAI_API_KEY=${ANTHROPIC_API_KEY}\n")
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.reveal() == "${ANTHROPIC_API_KEY}"


def test_aliases_are_read(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "AZURE_OPENAI_ENDPOINT=https://x.openai.azure.com\nOPENAI_API_VERSION=2025-01-01\n")
    assert settings.azure_api_base == "https://x.openai.azure.com"
    assert settings.azure_api_version == "2025-01-01"


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("TEMPERATURE=hot", "a number from 0 to 2"),
        ("TEMPERATURE=nan", "a number from 0 to 2"),
        ("MAX_ITERATIONS=0", "a whole number from 1 to 1,000"),
        ("MAX_RETRY=2.5", "a whole number from 0 to 100"),
        ("DEBUG=maybe", "true or false"),
    ],
)
def test_a_bad_value_names_the_setting_its_source_and_what_is_allowed(tmp_path: Path, line: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, line)
    first, second, third = caught.value.lines()
    assert line.split("=")[0] in first
    assert ".env" in second
    assert line.split("=")[1] in second
    assert allowed in third


def test_an_unknown_name_in_the_env_file_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="AGENT_EXECUTOR"):
        loaded(tmp_path, "AGENT_EXECUTR=local")


def test_a_near_miss_in_the_environment_is_said_and_a_stranger_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="AGENT_PROVIDER"):
        loaded(tmp_path, environ={"AGENT_PROVIDR": "openai"})
    assert loaded(tmp_path, environ={"AGENT_BUILDDIRECTORY": "/x"}).agent_provider == "auto"


def test_an_unreadable_env_file_is_said(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MODEL=\xff\xfe")
    with pytest.raises(SettingsError, match="UTF-8"):
        load(environ={}, folder=tmp_path)


def test_a_secret_never_shows_itself(tmp_path: Path) -> None:
    settings = loaded(tmp_path, environ={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://me:pw@host/v1"})
    shown = repr(settings) + str(settings.openai_api_key) + f"{settings.openai_api_key}"
    assert KEY not in shown
    described = " ".join(value for _, value, _ in settings.describe())
    assert KEY not in described
    assert "4f2a" in described
    assert "me:pw" not in described
    with pytest.raises(TypeError):
        pickle.dumps(settings)  # a mapping proxy among its fields: no settings in a pickle by accident


def test_a_key_is_not_sent_to_an_address_from_another_place(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "OPENAI_BASE_URL=http://stranger/v1", {"OPENAI_API_KEY": KEY})
    with pytest.raises(SettingsError) as caught:
        settings.require_same_source("OPENAI_API_KEY", "OPENAI_BASE_URL")
    assert "environment" in str(caught.value)
    assert ".env" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_and_an_address_from_the_same_place_are_fine(tmp_path: Path) -> None:
    settings = loaded(tmp_path, f"OPENAI_BASE_URL=http://mine/v1\nOPENAI_API_KEY={KEY}\n")
    settings.require_same_source("OPENAI_API_KEY", "OPENAI_BASE_URL")


def test_env_example_sets_every_default_and_can_be_used_as_it_is(tmp_path: Path) -> None:
    assert loaded(tmp_path, env_example()) == loaded(tmp_path)
