"""Isolation on this machine: bubblewrap, a system call filter, limits, and the proof that they hold."""

from .canary import PROBES, Attempt, refusal
from .cgroup import described as memory_bound
from .check import SandboxReport, check
from .distributions import distribution_of, missing_module, requirements
from .layers import KeptLayer
from .layers import kept as kept_layers
from .limits import SandboxLimits
from .packages import PackageLayer
from .plan import variables
from .process import BUBBLEWRAP, LANDLOCK, SandboxProcess, sandbox_uid, shown_at
from .seccomp import filters as system_call_filters
from .usage import disk as disk_usage
from .watchdog import Breach, Watchdog

__all__ = [
    "BUBBLEWRAP",
    "LANDLOCK",
    "check",
    "distribution_of",
    "kept_layers",
    "memory_bound",
    "missing_module",
    "refusal",
    "requirements",
    "PROBES",
    "Attempt",
    "Breach",
    "KeptLayer",
    "PackageLayer",
    "SandboxLimits",
    "SandboxProcess",
    "SandboxReport",
    "Watchdog",
    "sandbox_uid",
    "shown_at",
    "disk_usage",
    "system_call_filters",
    "variables",
]
