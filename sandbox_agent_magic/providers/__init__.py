"""Which providers there are, which one is chosen, and how each is made. SDKs are imported by the chosen one, on use."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from ..errors import MissingDependencyError, SandboxAgentError, SettingsError, UsageError
from ..settings import Settings
from ..types import Provider

GROUP = "sandbox_agent_magic.providers"
"""Entry-point group of providers that other packages bring: each a `Factory`, loaded on use."""

Factory: TypeAlias = Callable[[Settings, str | None], Provider]
"""Makes a provider from the settings and the model's name, if one was asked for."""

DEFAULT_MODELS = {
    "openai": "gpt-4o",
    "anthropic": "claude-sonnet-5-5",
}
"""Provider to the model that is asked unless MODEL names one. The embedded model's is AGENT_LOCAL_MODEL."""

_AZURE = ("AZURE_OPENAI_API_KEY", "AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_DEPLOYMENT_NAME")


def create(settings: Settings, name: str | None = None, model: str | None = None) -> Provider:
    """Make the provider that asks the model.

    Args:
        settings: resolved settings.
        name: a provider's name; `select` chooses unless given.
        model: the model's name; MODEL, or else the provider's own default, unless given.

    Raises:
        SettingsError: a setting that the provider needs is missing or must not be used.
        UsageError: there is no provider of this name.
        MissingDependencyError: a package that the provider needs is not installed.
    """
    name = name or select(settings)
    if name == "auto":
        name = select(settings)
    factory = _BUILT_IN.get(name)
    if factory is not None:
        return factory(settings, model)
    return _load(name)(settings, model)


def select(settings: Settings) -> str:
    """The name of the provider that the settings choose.

    AGENT_PROVIDER if it is not `auto`; else what is configured, in this order: Azure, OpenAI, Anthropic, the embedded
    model if its file is there.

    Raises:
        SettingsError: nothing is configured.
    """
    if settings.agent_provider != "auto":
        return settings.agent_provider
    if all(getattr(settings, setting.lower()) for setting in _AZURE):
        return "azure"
    if settings.openai_api_key or settings.openai_base_url:
        return "openai"
    if settings.anthropic_api_key:
        return "anthropic"
    if _embedded_model_is_there(settings):
        return "local"
    raise SettingsError(
        "No model provider is configured.",
        name="AGENT_PROVIDER",
        source=settings.source("AGENT_PROVIDER"),
        why=f"There is no API key, no server's address and no embedded model ({_looked(settings)}).",
        hint="Set OPENAI_API_KEY in .env, or OPENAI_BASE_URL to a server such as http://localhost:11434/v1, "
        "or run `sandbox-agent model pull` to use the embedded model without a key.",
    )


def known() -> list[str]:
    """Names of all providers: our own and those of installed packages."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def _load(name: str) -> Factory:
    found: list[EntryPoint] = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        raise UsageError(
            f"There is no provider {name!r}.",
            why="It is neither built in nor brought by an installed package.",
            hint=f"Known: {', '.join(known())}.",
        )
    reason = ""
    try:
        factory: Factory = found[0].load()
        return factory
    except ImportError as exc:
        reason = str(exc)
    raise MissingDependencyError(f"The provider {name!r} cannot be loaded.", extra=name, why=reason)


# ---- how each is made -------------------------------------------------------------------------------------------


def _openai(settings: Settings, model: str | None) -> Provider:
    from .openai import PLACEHOLDER_KEY, OpenAIProvider

    settings.require_same_source("OPENAI_API_KEY", "OPENAI_BASE_URL")
    if not settings.openai_api_key and not settings.openai_base_url:
        raise SettingsError(
            "No API key for OpenAI.",
            name="OPENAI_API_KEY",
            source=settings.source("OPENAI_API_KEY"),
            why=f"OPENAI_API_KEY is not set ({_looked(settings)}).",
            hint="Set it in .env, or set OPENAI_BASE_URL to a server that needs none, "
            "or run `sandbox-agent model pull` to use the embedded model without a key.",
        )
    key = settings.openai_api_key
    return OpenAIProvider(
        name="openai",
        model=model or settings.model or DEFAULT_MODELS["openai"],
        base_url=settings.openai_base_url,
        api_key=key.reveal() if key else PLACEHOLDER_KEY,
        key_source=settings.source("OPENAI_API_KEY"),
        trust_env=not _is_loopback(settings.openai_base_url),
    )


def _litellm(settings: Settings, model: str | None) -> Provider:
    if not settings.openai_base_url:
        raise SettingsError(
            "No address of a LiteLLM proxy.",
            name="OPENAI_BASE_URL",
            source=settings.source("OPENAI_BASE_URL"),
            why=f"OPENAI_BASE_URL is not set ({_looked(settings)}).",
            hint="Set it to the proxy's address, such as http://localhost:4000/v1, and OPENAI_API_KEY to its key.",
        )
    return _openai(settings, model)


def _local(settings: Settings, model: str | None) -> Provider:
    from .local import LocalProvider

    # MODEL of the environment or a .env is for the remote providers; -m beside -p local means this one.
    asked = settings.model if settings.source("MODEL") == "argument" else None
    return LocalProvider(
        model=model or asked or settings.agent_local_model,
        threads=settings.agent_local_threads,
        idle_s=settings.agent_local_idle,
        seed=settings.agent_local_seed,
    )


def _scripted(settings: Settings, model: str | None) -> Provider:
    from .scripted import ScriptedProvider

    path = model or settings.model
    if not path:
        raise UsageError(
            "The provider 'scripted' needs a script.",
            why="Its model is the path of a JSON file with the replies.",
            hint="Name it with -m, such as: -p scripted -m replies.json",
        )
    return ScriptedProvider.load(Path(path))


def _not_yet(name: str) -> Factory:
    def refuse(_settings: Settings, _model: str | None) -> Provider:
        raise UsageError(
            f"The provider {name!r} is not available in this version.",
            why="It was chosen by name (-p, AGENT_PROVIDER), or because its key is set.",
            hint="Choose another with -p or AGENT_PROVIDER, such as openai (any OpenAI-compatible server) or local.",
        )

    return refuse


_BUILT_IN: dict[str, Factory] = {
    "openai": _openai,
    "litellm": _litellm,
    "azure": _not_yet("azure"),
    "anthropic": _not_yet("anthropic"),
    "local": _local,
    "scripted": _scripted,
}


def _embedded_model_is_there(settings: Settings) -> bool:
    from .. import model_store

    try:
        model_store.resolve(settings.agent_local_model)
    except SandboxAgentError:
        return False
    return True


def _looked(settings: Settings) -> str:
    return f"looked in the environment and in {settings.env_file or '.env, this folder and above'}"


def _is_loopback(url: str | None) -> bool:
    """Whether `url` leads to this machine: then no proxy of the environment may come between."""
    try:
        host = urlsplit(url or "").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
