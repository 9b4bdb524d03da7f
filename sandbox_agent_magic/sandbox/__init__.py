"""Isolation on this machine: bubblewrap, a system call filter, limits, and the proof that they hold."""

from .canary import Attempt, refusal
from .check import SandboxReport, check
from .limits import SandboxLimits
from .process import SandboxProcess, sandbox_uid
from .watchdog import Breach, Watchdog

__all__ = [
    "Attempt",
    "Breach",
    "SandboxLimits",
    "SandboxProcess",
    "SandboxReport",
    "Watchdog",
    "check",
    "refusal",
    "sandbox_uid",
]
