"""Which provider the settings choose, how it is made, and what an error says where none can be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_agent_magic import providers, settings
from sandbox_agent_magic.errors import MissingDependencyError, ProviderRateLimited, SettingsError, UsageError
from sandbox_agent_magic.providers.anthropic import AnthropicProvider
from sandbox_agent_magic.providers.azure import AzureProvider
from sandbox_agent_magic.providers.openai import OpenAIProvider
from sandbox_agent_magic.providers.suggest import suggestion
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest, Tool, Usage

KEY = "sk-0123456789abcdef"
AZURE = {
    "AZURE_OPENAI_API_KEY": KEY,
    "AZURE_API_BASE": "https://x.openai.azure.com",
    "AZURE_API_VERSION": "2026-01-01",
    "AZURE_DEPLOYMENT_NAME": "d",
}

Load = Callable[..., settings.Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Settings from an environment and a `.env` given as text, on a machine that has nothing else."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(environ: dict[str, str] | None = None, *, env_file: str = "") -> settings.Settings:
        (tmp_path / ".env").write_text(env_file)
        return settings.load(environ=environ or {}, folder=tmp_path)

    return make


@pytest.mark.parametrize(
    ("environ", "chosen"),
    [
        ({"OPENAI_API_KEY": KEY}, "openai"),
        ({"OPENAI_BASE_URL": "http://localhost:11434/v1"}, "openai"),
        ({"ANTHROPIC_API_KEY": KEY}, "anthropic"),
        ({"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}, "openai"),
        ({**AZURE, "OPENAI_API_KEY": KEY}, "azure"),
        ({**AZURE, "AZURE_API_VERSION": "", "OPENAI_API_KEY": KEY}, "openai"),
        ({"AGENT_PROVIDER": "local", "OPENAI_API_KEY": KEY}, "local"),
        ({"ANTHROPIC_BASE_URL": "http://localhost:4000"}, "anthropic"),
        ({"AZURE_OPENAI_API_KEY": KEY}, "azure"),
    ],
    ids=[
        "key",
        "address",
        "anthropic",
        "openai first",
        "azure first",
        "azure incomplete",
        "by name",
        "anthropic's address",
        "azure begun, nothing else",
    ],
)
def test_what_is_configured_is_chosen_in_a_fixed_order(load: Load, environ: dict[str, str], chosen: str) -> None:
    assert providers.select(load(environ)) == chosen


def test_with_nothing_configured_the_error_shows_the_three_ways_to_go_on(load: Load) -> None:
    with pytest.raises(SettingsError) as caught:
        providers.create(load())
    assert len(caught.value.lines()) == 3
    for way in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "sandbox-agent model pull"):
        assert way in caught.value.hint


def test_openai_without_a_key_says_where_it_looked(load: Load) -> None:
    with pytest.raises(SettingsError, match=r"No API key for OpenAI\.") as caught:
        providers.create(load(), "openai")
    assert ".env" in caught.value.why
    assert len(caught.value.lines()) == 3


def test_a_server_without_a_key_gets_a_placeholder(load: Load) -> None:
    made = providers.create(load({"OPENAI_BASE_URL": "http://localhost:11434/v1"}), model="llama")
    assert isinstance(made, OpenAIProvider)
    assert (made.name, made.model, made.base_url) == ("openai", "llama", "http://localhost:11434/v1")


@pytest.mark.parametrize(
    ("model", "environ", "expected"),
    [(None, {}, "gpt-4o"), (None, {"MODEL": "m"}, "m"), ("argument", {"MODEL": "m"}, "argument")],
)
def test_the_model_is_the_argument_or_the_setting_or_the_default(
    load: Load, model: str | None, environ: dict[str, str], expected: str
) -> None:
    assert providers.create(load({"OPENAI_API_KEY": KEY, **environ}), model=model).model == expected


def test_a_key_of_the_environment_is_not_sent_to_an_address_of_a_found_env_file(load: Load) -> None:
    mixed = load({"OPENAI_API_KEY": KEY}, env_file="OPENAI_BASE_URL=http://stranger.example/v1")
    with pytest.raises(SettingsError, match="different places"):
        providers.create(mixed)


def test_litellm_is_openai_that_insists_on_an_address(load: Load) -> None:
    with pytest.raises(SettingsError, match="OPENAI_BASE_URL is not set"):
        providers.create(load({"OPENAI_API_KEY": KEY}), "litellm")
    made = providers.create(load({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://localhost:4000/v1"}), "litellm")
    assert isinstance(made, OpenAIProvider)


def test_azure_is_made_from_its_settings_or_their_other_names(load: Load) -> None:
    theirs = {
        "AZURE_OPENAI_API_KEY": KEY,
        "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com",
        "OPENAI_API_VERSION": "2026-01-01",
        "AZURE_DEPLOYMENT_NAME": "d",
    }
    for environ in (AZURE, theirs):
        made = providers.create(load(environ))
        assert (made.name, made.model) == ("azure", "d")
    # MODEL is for the other providers; -m names another deployment.
    assert providers.create(load({**AZURE, "MODEL": "gpt-4o"}), "azure").model == "d"
    assert providers.create(load(AZURE), "azure", "other").model == "other"


@pytest.mark.parametrize("path", ["", "/", "/openai", "/openai/", "/openai/v1/"])
def test_an_endpoint_of_azure_may_be_given_with_its_path(load: Load, path: str) -> None:
    made = providers.create(load({**AZURE, "AZURE_API_BASE": f"https://x.openai.azure.com{path}"}))
    assert isinstance(made, AzureProvider)
    assert made.base_url == "https://x.openai.azure.com"


def test_azure_without_some_of_its_settings_names_them(load: Load) -> None:
    with pytest.raises(SettingsError, match="not set up completely") as caught:
        providers.create(load({**AZURE, "AZURE_API_VERSION": "", "AZURE_DEPLOYMENT_NAME": ""}), "azure")
    assert "Not set: AZURE_API_VERSION, AZURE_DEPLOYMENT_NAME" in caught.value.why
    assert len(caught.value.lines()) == 3


def test_anthropic_is_made_from_its_key_and_its_address_without_v1(load: Load) -> None:
    made = providers.create(load({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "http://localhost:4000/v1/"}))
    assert (made.name, made.model) == ("anthropic", "claude-sonnet-5-5")
    assert isinstance(made, AnthropicProvider)
    assert made.base_url == "http://localhost:4000"


def test_anthropic_without_a_key_says_where_it_looked(load: Load) -> None:
    with pytest.raises(SettingsError, match=r"No API key for Anthropic\.") as caught:
        providers.create(load(), "anthropic")
    assert ".env" in caught.value.why


@pytest.mark.parametrize(
    ("environ", "env_file", "name"),
    [
        ({"ANTHROPIC_API_KEY": KEY}, "ANTHROPIC_BASE_URL=http://stranger.example", "anthropic"),
        (
            {"AZURE_OPENAI_API_KEY": KEY},
            "AZURE_API_BASE=http://stranger.example\nAZURE_API_VERSION=1\nAZURE_DEPLOYMENT_NAME=d",
            "azure",
        ),
    ],
    ids=["anthropic", "azure"],
)
def test_no_key_of_the_environment_goes_to_an_address_of_a_found_env_file(
    load: Load, environ: dict[str, str], env_file: str, name: str
) -> None:
    with pytest.raises(SettingsError, match="different places"):
        providers.create(load(environ, env_file=env_file), name)


@pytest.mark.parametrize(
    ("model", "server", "words"),
    [
        ("claude-sonnet-5-5", "api.openai.com", "-p anthropic with ANTHROPIC_API_KEY"),
        ("anthropic/claude-sonnet-5-5", "api.openai.com", "-p anthropic"),
        ("gpt-4o", "api.anthropic.com", "-p openai with OPENAI_API_KEY"),
        ("o3-mini", "api.anthropic.com", "-p openai"),
        ("qwen3-32b", "api.openai.com", "OPENAI_BASE_URL"),
        ("vendor/gpt-4o", "api.openai.com", "LiteLLM and OpenRouter write names like vendor/gpt-4o"),
        ("gpt-4oo", "api.openai.com", "Nearest there: gpt-4o (set MODEL or -m)"),
        ("claude-sonnet", "litellm.example", "Nearest there: claude-sonnet-5-5"),
        ("zzz", "litellm.example", "It offers 3, such as"),
    ],
)
def test_a_model_that_is_not_there_is_answered_with_where_to_look(model: str, server: str, words: str) -> None:
    names = ["gpt-4o", "claude-sonnet-5-5", "llama"]
    assert words in suggestion(model, names, provider="openai", server=server)


def test_of_a_server_without_a_list_nothing_is_suggested() -> None:
    assert suggestion("x", [], provider="openai", server="litellm.example") == ""


def test_an_unknown_name_is_answered_with_the_known_ones(load: Load) -> None:
    with pytest.raises(UsageError, match="no provider 'opnai'") as caught:
        providers.create(load(), "opnai")
    assert "openai" in caught.value.hint


def test_a_key_is_in_no_representation(load: Load) -> None:
    made = providers.create(load({"OPENAI_API_KEY": KEY}))
    assert KEY not in repr(made)


# ---- providers of other packages ----------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package, installed as far as Python's metadata goes, with one provider that loads and one that does not."""
    (tmp_path / "their_provider.py").write_text(
        "from sandbox_agent_magic.providers.scripted import ScriptedProvider\n"
        "def make(settings, model):\n"
        "    return ScriptedProvider([], model=model or 'theirs')\n"
    )
    info = tmp_path / "their_provider-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-provider\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[sandbox_agent_magic.providers]\ntheirs = their_provider:make\nbroken = no_such_module:make\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_provider_of_another_package_is_loaded_on_use(load: Load, plugin: None) -> None:
    assert "theirs" in providers.known()
    assert "their_provider" not in sys.modules
    assert providers.create(load(), "theirs").model == "theirs"
    del sys.modules["their_provider"]


def test_a_provider_whose_package_is_incomplete_names_what_is_missing(load: Load, plugin: None) -> None:
    with pytest.raises(MissingDependencyError, match="no_such_module"):
        providers.create(load(), "broken")


# ---- the scripted provider, chosen by name --------------------------------------------------------------------------

SCRIPT = [
    {"text": "I compute it.", "code": "print(1)", "usage": {"input_tokens": 5, "cost_usd": 0.5}},
    {"error": "ProviderRateLimited", "retry_after": 3},
    {"text": "Done.", "finish_reason": "length"},
]


def test_a_script_file_is_played_reply_by_reply(load: Load, tmp_path: Path) -> None:
    script = tmp_path / "replies.json"
    script.write_text(json.dumps(SCRIPT))
    made = providers.create(load(), "scripted", str(script))
    request = ModelRequest((Message("user", "go"),), (Tool("python", "", {}),))
    pieces: list[str] = []
    first = made.complete(request, on_text=pieces.append)
    assert pieces == ["I compute it."]
    assert json.loads(first.tool_calls[0].arguments) == {"code": "print(1)"}
    assert first.usage == Usage(5, cost_usd=0.5)
    with pytest.raises(ProviderRateLimited) as caught:
        made.complete(request, on_text=pieces.append)
    assert caught.value.retry_after == 3
    assert made.complete(request, on_text=pieces.append) == ModelReply("Done.", finish_reason="length")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[5]", '[{"txt": "a"}]', '[{"text": 5}]', '[{"usage": {"input": 1}}]', '[{"error": "ValueError"}]'],
)
def test_a_bad_script_is_one_clear_error(load: Load, tmp_path: Path, text: str) -> None:
    script = tmp_path / "replies.json"
    script.write_text(text)
    with pytest.raises(UsageError, match=r"replies\.json"):
        providers.create(load(), "scripted", str(script))


def test_a_script_that_is_not_there_or_not_named_is_one_clear_error(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        providers.create(load(), "scripted", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="-m"):
        providers.create(load(), "scripted")
