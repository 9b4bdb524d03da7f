"""Where the executor `remote` runs code, from its settings: no token goes where its owner did not mean it to."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ...errors import SettingsError
from ...settings import Settings
from ..names import variables

_URL, _TOKEN, _ENV = "AGENT_REMOTE_URL", "AGENT_REMOTE_TOKEN", "AGENT_REMOTE_ENV"
_EXAMPLE = "An address looks like http://host:8888 or https://hub/user/NAME."


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and as whom."""

    url: str
    """Up to, and without, `/api`."""
    token: str = field(default="", repr=False)
    kernel_name: str = ""
    """Kernel specification to start; empty leaves it to the server."""
    kernel_id: str = ""
    """A running kernel to use instead of an own one."""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Variables for an own kernel."""
    token_source: str = ""
    """Where the token came from, for messages."""
    start_s: float = 120.0
    """Longest start of a kernel: a gateway may have to find a machine first, or be busy with a class of others."""

    @property
    def shown(self) -> str:
        """The server's address as it stands in messages: without user or query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def target_of(settings: Settings) -> Target:
    """Where code shall run, and as whom.

    Raises:
        SettingsError: a setting is missing or bad, or the parts come from places that do not belong together.
    """
    url = settings.agent_remote_url
    if url is None:
        raise SettingsError(
            "There is no Jupyter server to run code on.",
            name=_URL,
            source="default",
            why=f"{_URL} is not set (looked in the environment and in .env).",
            hint=f"Set it, and {_TOKEN} in the same place. {_EXAMPLE}",
        )
    settings.require_same_source(_TOKEN, _URL)
    settings.require_same_source(_ENV, _URL)
    _check_choice(settings)
    token, given = settings.agent_remote_token, settings.agent_remote_env
    return Target(
        _checked(url, settings.source(_URL)),
        token.reveal() if token is not None else "",
        kernel_name=settings.agent_remote_kernel or "",
        kernel_id=settings.agent_remote_kernel_id or "",
        environment=variables(_ENV, given.reveal(), settings.source(_ENV)) if given is not None else (),
        token_source=settings.source(_TOKEN),
        start_s=settings.agent_remote_start_timeout,
    )


def _check_choice(settings: Settings) -> None:
    """A folder's .env must not send a model's code to a server of the reader's, which may not isolate it at all."""
    chosen, where = settings.source("AGENT_EXECUTOR"), settings.source(_URL)
    if chosen in ("argument", "environment", "default") or chosen == where:
        return
    raise SettingsError(
        f"{chosen} may not choose the server that {_URL} names.",
        name="AGENT_EXECUTOR",
        source=chosen,
        why=f"AGENT_EXECUTOR comes from {chosen}, {_URL} from {where}; a folder's .env must not run code there.",
        hint="If you mean it, write -e remote, or set both in the same place.",
    )


def _checked(url: str, source: str) -> str:
    """The address without a slash at its end."""
    reason = ""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            reason = "it is no http:// or https:// address"
        elif parts.username or parts.password:
            reason = "it has a password in it"
        elif parts.query or parts.fragment:
            reason = f"it has something after a ? or #; a token belongs into {_TOKEN}"
    except ValueError:
        reason = "it is no address"
    if reason:
        raise SettingsError(
            f"{_URL} has a value that is not allowed.",
            name=_URL,
            source=source,
            why=f"From {source}: {reason}.",
            hint=_EXAMPLE,
        )
    return url.rstrip("/").removesuffix("/lab").removesuffix("/tree").removesuffix("/api")
