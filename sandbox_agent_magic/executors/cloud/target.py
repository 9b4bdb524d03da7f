"""The settings of cloud sandboxes, checked: no key goes, and no money is spent, where its owner did not mean it to."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ...errors import SettingsError
from ...settings import Secret, Settings
from ..names import variables
from .engine import CloudTarget

_SESSION, _ENV = "AGENT_SESSION", "AGENT_SANDBOX_ENV"
_ID = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
_OWN = ("argument", "environment", "default")


def target_of(settings: Settings, name: str, title: str) -> CloudTarget:
    """The account that a cloud executor uses, and what it wants there.

    Args:
        settings: the current ones.
        name: the executor's, `scalebox` or `e2b`; its settings begin with it.
        title: the provider's, for messages.

    Raises:
        SettingsError: a setting is missing or bad, or the parts come from places that do not belong together.
    """
    key_name, domain_name, template_name = (f"{name.upper()}_{part}" for part in ("API_KEY", "DOMAIN", "TEMPLATE"))
    key = getattr(settings, key_name.lower())
    if not isinstance(key, Secret):
        raise SettingsError(
            f"No API key for {title}.",
            name=key_name,
            source="default",
            why=f"{key_name} is not set (looked in the environment and in .env).",
            hint="Set it in .env, or leave -e out to use the sandbox on this machine.",
        )
    settings.require_same_source(key_name, domain_name)
    for other in ("AGENT_EXECUTOR", template_name, "AGENT_KEEP_SANDBOX", "AGENT_SANDBOX_LIFE"):
        _check_choice(settings, other, key_name)
    _check_variables(settings, key_name)
    api_name = f"{name.upper()}_API_URL"
    api_url = _address(settings, api_name, key_name)
    environment = settings.agent_sandbox_env
    return CloudTarget(
        key.reveal(),
        domain=_checked(getattr(settings, domain_name.lower()), domain_name, settings.source(domain_name)),
        api_url=api_url,
        sandbox_url=_address(settings, f"{name.upper()}_SANDBOX_URL", key_name),
        template=getattr(settings, template_name.lower()) or "",
        session=_id(settings.agent_session, settings.source(_SESSION)),
        keep=settings.agent_keep_sandbox,
        life_s=settings.agent_sandbox_life,
        environment=variables(_ENV, environment.reveal(), settings.source(_ENV)) if environment is not None else (),
        key_name=key_name,
        key_source=settings.source(key_name),
        domain_name=api_name if api_url else domain_name,
    )


def _check_choice(settings: Settings, name: str, key_name: str) -> None:
    """A folder's .env must not spend the money of a key that it did not bring, nor choose a stranger's template."""
    chosen, where = settings.source(name), settings.source(key_name)
    if chosen in _OWN or chosen == where:
        return
    raise SettingsError(
        f"{chosen} may not choose what {key_name} pays for.",
        name=name,
        source=chosen,
        why=f"{name} comes from {chosen}, {key_name} from {where}; a folder's .env must not use your account.",
        hint="If you mean it, write it on the magic's line, such as -e NAME, or set both in the same place.",
    )


def _check_variables(settings: Settings, key_name: str) -> None:
    """Variables, which may be secrets, go only to the account that whoever set them has chosen."""
    chosen, where = settings.source(_ENV), settings.source(key_name)
    if chosen in ("default", "argument", where):
        return
    raise SettingsError(
        f"{_ENV} is not sent to the account of {key_name}: they come from different places.",
        name=_ENV,
        source=chosen,
        why=f"{_ENV} comes from {chosen}, {key_name} from {where}.",
        hint="Set both in the same place.",
    )


def _checked(domain: str | None, name: str, source: str) -> str:
    """The domain: a host, perhaps with a port and a path; no address, no user."""
    if domain is None:
        return ""
    host = domain.partition("/")[0]
    if "://" in domain or "@" in domain or not host or not domain.isprintable() or set(domain) & set(" ?#\\"):
        raise SettingsError(
            f"{name} has a value that is not allowed.",
            name=name,
            source=source,
            why=f"From {source}: it is no domain.",
            hint="Write the host alone, without https://.",
        )
    return domain.rstrip("/")


def _address(settings: Settings, name: str, key_name: str) -> str:
    """A whole address, of a provider that has such a setting; the key, or what it opens, is sent to it."""
    url: str | None = getattr(settings, name.lower(), None)
    if url is None:
        return ""
    settings.require_same_source(key_name, name)
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        fits = False
    if not fits:
        raise SettingsError(
            f"{name} has a value that is not allowed.",
            name=name,
            source=settings.source(name),
            why=f"From {settings.source(name)}: it is no http:// or https:// address, or has more than that in it.",
            hint="Write https://HOST, without a user, a ? or a #.",
        )
    return url.rstrip("/")


def is_id(text: str) -> bool:
    """Whether that may be the id of a sandbox."""
    return _ID.fullmatch(text) is not None


def _id(text: str | None, source: str) -> str:
    """The id of a sandbox; it becomes a part of addresses."""
    if text is None:
        return ""
    if not is_id(text):
        raise SettingsError(
            f"{text[:60]!r} is not the id of a sandbox.",
            name=_SESSION,
            source=source,
            why=f"From {source}.",
            hint="%agent sandbox id prints one; %agent sandboxes lists those that run.",
        )
    return text
