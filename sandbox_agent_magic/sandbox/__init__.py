"""Isolation on this machine: bubblewrap, a system call filter, limits, and the proof that they hold."""

from .bubblewrap import DATA
from .canary import Attempt, refusal
from .check import SandboxReport, check
from .distributions import distribution_of, missing_module, requirements
from .limits import SandboxLimits
from .packages import PackageLayer
from .process import SandboxProcess, sandbox_uid
from .watchdog import Breach, Watchdog

__all__ = [
    "DATA",
    "check",
    "distribution_of",
    "missing_module",
    "refusal",
    "requirements",
    "Attempt",
    "Breach",
    "PackageLayer",
    "SandboxLimits",
    "SandboxProcess",
    "SandboxReport",
    "Watchdog",
    "sandbox_uid",
]
