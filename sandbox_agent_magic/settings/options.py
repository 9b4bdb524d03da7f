"""The options that the magic and the command line share, as settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def overrides_of(options: argparse.Namespace) -> dict[str, object]:
    """The settings that the options name, by setting's name in lower case; None where one was not given."""
    return {
        "agent_provider": options.provider,
        "model": options.model,
        "agent_executor": options.executor,
        "temperature": options.temperature,
        "max_iterations": options.max_iterations,
        "max_retry": options.max_retry,
        "agent_cell_timeout": options.timeout,
        "agent_budget_usd": options.budget,
        "agent_session": options.session,
        "agent_keep_sandbox": options.keep_sandbox or None,
    }
