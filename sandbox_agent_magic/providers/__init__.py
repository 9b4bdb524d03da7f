"""Which providers there are, which one is chosen, and how each is made. SDKs are imported by the chosen one, on use."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

from ..errors import MissingDependencyError, SandboxAgentError, SettingsError, UsageError
from ..settings import Settings
from ..types import Provider, Usage
from .factories import AZURE_SETTINGS, BUILT_IN, Factory, looked

GROUP = "sandbox_agent_magic.providers"
"""Entry-point group of providers that other packages bring: each a `Factory`, loaded on use."""


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
    factory = BUILT_IN.get(name)
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
    if all(getattr(settings, setting.lower()) for setting in AZURE_SETTINGS):
        return "azure"
    if settings.openai_api_key or settings.openai_base_url:
        return "openai"
    if settings.anthropic_api_key or settings.anthropic_base_url:
        return "anthropic"
    if _embedded_model_is_there(settings):
        return "local"
    if any(getattr(settings, setting.lower()) for setting in AZURE_SETTINGS):
        return "azure"  # which says what of it is missing
    raise SettingsError(
        "No model provider is configured.",
        name="AGENT_PROVIDER",
        source=settings.source("AGENT_PROVIDER"),
        why=f"There is no API key, no server's address and no embedded model ({looked(settings)}).",
        hint="Set OPENAI_API_KEY in .env, or OPENAI_BASE_URL to a server such as http://localhost:11434/v1, "
        "or run `sandbox-agent model pull` to use the embedded model without a key.",
    )


@runtime_checkable
class _Priced(Protocol):
    """A provider that knows what its tokens cost."""

    def cost_of(self, usage: Usage) -> float | None: ...


def cost_of(provider: Provider, usage: Usage) -> float | None:
    """US dollars for `usage` at this provider; None where nobody knows."""
    return provider.cost_of(usage) if isinstance(provider, _Priced) else None


def known() -> list[str]:
    """Names of all providers: our own and those of installed packages."""
    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


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


def _embedded_model_is_there(settings: Settings) -> bool:
    from .. import model_store

    try:
        model_store.resolve(settings.agent_local_model)
    except SandboxAgentError:
        return False
    return True
