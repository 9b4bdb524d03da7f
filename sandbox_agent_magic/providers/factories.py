"""How each built-in provider is made from the settings. Its SDK is imported when it is first asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from ..errors import SettingsError, UsageError
from ..folders import data_dir
from ..settings import Secret, Settings
from ..types import Provider
from .asked import PLACEHOLDER_KEY, Server, SettingNames
from .wirelog import WireLog

Factory: TypeAlias = Callable[[Settings, str | None], Provider]
"""Makes a provider from the settings and the model's name, if one was asked for."""

DEFAULT_MODELS = {
    "openai": "gpt-4o",
    "anthropic": "claude-sonnet-5-5",
}
"""Provider to the model that is asked unless MODEL names one. The embedded model's is AGENT_LOCAL_MODEL."""

AZURE_SETTINGS = ("AZURE_OPENAI_API_KEY", "AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_DEPLOYMENT_NAME")


def looked(settings: Settings) -> str:
    """Where a setting was looked for, for an error's second line."""
    return f"looked in the environment and in {settings.env_file or '.env, this folder and above'}"


def openai(settings: Settings, model: str | None, *, name: str = "openai") -> Provider:
    """OpenAI, or the server at OPENAI_BASE_URL."""
    from .openai import OPENAI_URL, OpenAIProvider

    settings.require_same_source("OPENAI_API_KEY", "OPENAI_BASE_URL")
    if not settings.openai_api_key and not settings.openai_base_url:
        raise _no_key(settings, "OpenAI", "OPENAI_API_KEY", "set OPENAI_BASE_URL to a server that needs none")
    return OpenAIProvider(
        name=name,
        model=model or settings.model or DEFAULT_MODELS["openai"],
        server=_server(settings, settings.openai_api_key, settings.openai_base_url or OPENAI_URL, SettingNames()),
        log=_log(settings),
    )


def litellm(settings: Settings, model: str | None) -> Provider:
    """The same, but never OpenAI itself."""
    if not settings.openai_base_url:
        raise SettingsError(
            "No address of a LiteLLM proxy.",
            name="OPENAI_BASE_URL",
            source=settings.source("OPENAI_BASE_URL"),
            why=f"OPENAI_BASE_URL is not set ({looked(settings)}).",
            hint="Set it to the proxy's address, such as http://localhost:4000/v1, and OPENAI_API_KEY to its key.",
        )
    return openai(settings, model, name="litellm")


def azure(settings: Settings, model: str | None) -> Provider:
    """A deployment of Azure OpenAI; `-m` names another one than AZURE_DEPLOYMENT_NAME."""
    from .azure import AzureProvider

    deployment = model or _asked_here(settings) or settings.azure_deployment_name
    given = (settings.azure_openai_api_key, settings.azure_api_base, settings.azure_api_version, deployment)
    missing = [name for name, value in zip(AZURE_SETTINGS, given, strict=True) if not value]
    if missing:
        raise SettingsError(
            "Azure OpenAI is not set up completely.",
            name=missing[0],
            source=settings.source(missing[0]),
            why=f"Not set: {', '.join(missing)} ({looked(settings)}).",
            hint=f"It needs all of {', '.join(AZURE_SETTINGS)}.",
        )
    settings.require_same_source("AZURE_OPENAI_API_KEY", "AZURE_API_BASE")
    # The portal shows addresses with and without the path, which the SDK puts there itself.
    endpoint = (settings.azure_api_base or "").rstrip("/").removesuffix("/v1").removesuffix("/openai")
    names = SettingNames(
        "AZURE_OPENAI_API_KEY",
        "AZURE_API_BASE",
        "MODEL" if _asked_here(settings) else "AZURE_DEPLOYMENT_NAME",
        "https://NAME.openai.azure.com",
    )
    return AzureProvider(
        deployment=deployment or "",
        server=_server(settings, settings.azure_openai_api_key, endpoint, names),
        api_version=settings.azure_api_version or "",
        log=_log(settings),
    )


def anthropic(settings: Settings, model: str | None) -> Provider:
    """Anthropic, or the server at ANTHROPIC_BASE_URL."""
    from .anthropic import ANTHROPIC_URL, AnthropicProvider

    settings.require_same_source("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
    if not settings.anthropic_api_key and not settings.anthropic_base_url:
        raise _no_key(settings, "Anthropic", "ANTHROPIC_API_KEY", "set ANTHROPIC_BASE_URL to a server that needs none")
    base_url = (settings.anthropic_base_url or ANTHROPIC_URL).rstrip("/").removesuffix("/v1")
    names = SettingNames("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", url_example=ANTHROPIC_URL)
    return AnthropicProvider(
        model=model or settings.model or DEFAULT_MODELS["anthropic"],
        server=_server(settings, settings.anthropic_api_key, base_url, names),
        log=_log(settings),
    )


def local(settings: Settings, model: str | None) -> Provider:
    """The embedded model."""
    from .local import LocalProvider

    # MODEL of the environment or a .env is for the remote providers; -m beside -p local means this one.
    return LocalProvider(
        model=model or _asked_here(settings) or settings.agent_local_model,
        threads=settings.agent_local_threads,
        idle_s=settings.agent_local_idle,
        seed=settings.agent_local_seed,
    )


def scripted(settings: Settings, model: str | None) -> Provider:
    """A file of replies."""
    from .scripted import ScriptedProvider

    path = model or settings.model
    if not path:
        raise UsageError(
            "The provider 'scripted' needs a script.",
            why="Its model is the path of a JSON file with the replies.",
            hint="Name it with -m, such as: -p scripted -m replies.json",
        )
    return ScriptedProvider.load(Path(path))


BUILT_IN: dict[str, Factory] = {
    "openai": openai,
    "litellm": litellm,
    "azure": azure,
    "anthropic": anthropic,
    "local": local,
    "scripted": scripted,
}


def _asked_here(settings: Settings) -> str | None:
    """The model that this call itself names."""
    return settings.model if settings.source("MODEL") == "argument" else None


def _server(settings: Settings, key: Secret | None, base_url: str, names: SettingNames) -> Server:
    return Server(
        base_url,
        key.reveal() if key else PLACEHOLDER_KEY,
        names,
        settings.sources,
        trust_env=not _is_loopback(base_url),
    )


def _log(settings: Settings) -> WireLog | None:
    return WireLog(data_dir() / "requests.log", _secrets(settings)) if settings.debug else None


def _secrets(settings: Settings) -> tuple[str, ...]:
    """Every secret of the settings, and the passwords in their addresses."""
    values = [getattr(settings, row.name.lower()) for row, _, _ in settings.describe()]
    keys = [value.reveal() for value in values if isinstance(value, Secret)]
    urls = [value for value in values if isinstance(value, str) and "://" in value]
    return (*keys, *(secret for url in urls for secret in Server(url, "").secrets))


def _no_key(settings: Settings, owner: str, setting: str, other: str) -> SettingsError:
    return SettingsError(
        f"No API key for {owner}.",
        name=setting,
        source=settings.source(setting),
        why=f"{setting} is not set ({looked(settings)}).",
        hint=f"Set it in .env, or {other}, or run `sandbox-agent model pull` to use the embedded model without a key.",
    )


def _is_loopback(url: str | None) -> bool:
    """Whether `url` leads to this machine: then no proxy of the environment may come between."""
    try:
        host = urlsplit(url or "").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
