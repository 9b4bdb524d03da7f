"""Who may switch the cleaning of the sandbox's output off."""

from __future__ import annotations

from ..errors import SettingsError, UsageError
from .table import Settings

_NAME = "AGENT_TRUST_OUTPUT"


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
    if source not in ("argument", "environment"):
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
