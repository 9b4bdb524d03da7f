"""Settings: what they are (`table`) and where their values come from (`load`)."""

from .load import find_env_file, load
from .table import Insert, Secret, Setting, Settings, env_example, rows
from .trust import TIERS, sandbox_tier, trusts_output

__all__ = [
    "TIERS",
    "Insert",
    "Secret",
    "Setting",
    "Settings",
    "env_example",
    "find_env_file",
    "load",
    "rows",
    "sandbox_tier",
    "trusts_output",
]
