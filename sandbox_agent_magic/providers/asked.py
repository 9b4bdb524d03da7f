"""Whom a request goes to, and which settings decided it: what the last line of an error needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

PLACEHOLDER_KEY = "no-key"
"""For a server that needs none; the SDKs insist on one."""

_SOURCES = {"argument": "given as an option"}


@dataclass(frozen=True, slots=True)
class SettingNames:
    """The settings of a provider's key, address and model; empty where it has none."""

    key: str = "OPENAI_API_KEY"
    url: str = "OPENAI_BASE_URL"
    model: str = "MODEL"
    url_example: str = "http://localhost:4000/v1"


@dataclass(frozen=True, slots=True)
class Server:
    """A model server, and how to reach it."""

    base_url: str = field(repr=False)
    api_key: str = field(repr=False)
    names: SettingNames = SettingNames()
    sources: Mapping[str, str] = field(default_factory=dict)
    """Setting's name to where its value came from, such as `environment` or the path of a `.env`."""
    trust_env: bool = True
    """Whether the environment's proxies and certificates count; never for a server on loopback."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown: the key, and a password in the address."""
        try:
            password = urlsplit(self.base_url).password or ""
        except ValueError:
            password = ""
        found = (self.api_key, password, unquote(password))
        return tuple(dict.fromkeys(secret for secret in found if secret and secret != PLACEHOLDER_KEY))


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom we asked, as an error shows it."""

    provider: str
    model: str
    server: str
    """Host, as shown."""
    key: str = "OPENAI_API_KEY"
    """Setting of the key, with where it came from, as shown. Empty for a server of our own."""
    url_setting: str = "OPENAI_BASE_URL"
    """Empty for a server of our own."""
    model_setting: str = "MODEL"
    url_example: str = "http://localhost:4000/v1"
    sources: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0
    idle_s: float = 0.0

    @classmethod
    def of(cls, provider: str, model: str, server: Server) -> Asked:
        """For a provider's name, its model and its server."""
        names = server.names
        return cls(
            provider=provider,
            model=model,
            server=shown_server(server.base_url) if names.url else "The model's own server",
            key=_shown_key(names.key, server.api_key, server.sources.get(names.key, "")) if names.key else "",
            url_setting=names.url,
            model_setting=names.model,
            url_example=names.url_example,
            sources=server.sources,
        )

    def setting(self, name: str) -> str:
        """A setting's name, with where its value came from."""
        source = self.sources.get(name)
        return f"{name} ({_SOURCES.get(source) or f'from {source}'})" if source else name


def shown_server(base_url: str) -> str:
    """Host and port of an address; never the name and password that may stand in it."""
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        return f"{host}:{parts.port}" if parts.port else host or "The model server"
    except ValueError:
        return "The model server"


def _shown_key(setting: str, key: str, source: str) -> str:
    if key == PLACEHOLDER_KEY or not key:
        return f"{setting} is not set"
    ending = f", ends in ...{key[-4:]}" if len(key) >= 12 and key.isprintable() else ""
    return f"{setting} from {source}{ending}" if source else f"{setting}{ending}"
