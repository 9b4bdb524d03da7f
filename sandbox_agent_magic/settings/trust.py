"""Who may weaken the sandbox: switch the cleaning of its output off, or choose its weaker kind."""

from __future__ import annotations

from typing import get_args

from ..errors import SettingsError, UsageError
from .table import Settings, Tier

_NAME = "AGENT_TRUST_OUTPUT"
_TIER = "AGENT_SANDBOX"
TIERS: tuple[Tier, ...] = get_args(Tier)
_TRUSTED_SOURCES = ("argument", "environment")


def trusts_output(settings: Settings, *, headless: bool) -> bool:
    """Whether the sandbox's rich output is shown uncleaned.

    Args:
        settings: as they are for this cell.
        headless: nobody is watching; then the answer is no.

    Raises:
        SettingsError: a `.env` asks for it.
        UsageError: a cell asks for it in a headless run.
    """
    if not settings.agent_trust_output:
        return False
    source = settings.source(_NAME)
    if source not in _TRUSTED_SOURCES:
        raise SettingsError(
            f"{_NAME} is not taken from a .env.",
            name=_NAME,
            source=source,
            why=f"It is set in {source}; a downloaded folder must not switch the cleaning of output off.",
            hint="Remove it there. If you mean it, write %%agent --trust-output, or set it in the environment.",
        )
    if headless and source == "argument":
        raise UsageError(
            "Output cannot be trusted in a headless run.",
            why="Nobody is watching, and whoever opens the notebook later would run the output's scripts.",
            hint="Leave --trust-output out.",
        )
    return not headless


def sandbox_tier(settings: Settings) -> Tier:
    """Which kind of sandbox code runs in: one of `TIERS`.

    Raises:
        SettingsError: a `.env` asks for the weaker one.
    """
    tier, source = settings.agent_sandbox, settings.source(_TIER)
    if tier != TIERS[0] and source not in _TRUSTED_SOURCES:
        raise SettingsError(
            f"{_TIER}={tier} is not taken from a .env.",
            name=_TIER,
            source=source,
            why=f"It is set in {source}; a downloaded folder must not choose a weaker sandbox.",
            hint=f"Remove it there. If you mean it, set {_TIER} in the environment.",
        )
    return tier
