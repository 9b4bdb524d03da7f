"""Isolation on this machine: bubblewrap, a system call filter, limits, and the proof that they hold."""

from .canary import Attempt, refusal
from .check import SandboxReport, check
from .limits import SandboxLimits
from .process import SandboxProcess, sandbox_uid

__all__ = ["Attempt", "SandboxLimits", "SandboxProcess", "SandboxReport", "check", "refusal", "sandbox_uid"]
