"""Tries every launcher on this machine, for reports such as `sandbox-agent doctor`."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass

from .. import scratch
from ..errors import SandboxUnavailable
from .canary import Attempt, refusal
from .limits import SandboxLimits
from .process import BUBBLEWRAP, launchers, sandbox_uid
from .trial import Trial, Wish


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What a sandbox would be made of here."""

    attempts: tuple[Attempt, ...]
    """One per launcher, best first; each shows the finding of each probe."""
    notes: tuple[str, ...]
    """Launchers that were not tried, and why."""

    tier: str = BUBBLEWRAP

    @property
    def chosen(self) -> Attempt | None:
        """The first that holds: what the executor uses."""
        return next((attempt for attempt in self.attempts if attempt.passed), None)

    @property
    def refusal(self) -> SandboxUnavailable | None:
        """The error that the executor would raise."""
        return None if self.chosen else refusal(self.attempts, self.notes, tier=self.tier)


def check(*, tier: str = BUBBLEWRAP, timeout_s: float = 10.0) -> SandboxReport:
    """Probe a sandbox of every launcher, without a kernel; takes about 0.1 s each.

    Args:
        tier: `bubblewrap` or `landlock`.
        timeout_s: for each launcher, seconds.
    """
    uid = sandbox_uid()
    found, notes = launchers(uid, tier)
    attempts: list[Attempt] = []
    with scratch.temporary("sandbox-check") as folder:
        if uid is not None:
            os.chown(folder, uid, uid)
        wish = Wish(folder, SandboxLimits(), uid, kernel=False, key="")
        for launcher in found:
            try:
                trial = Trial(launcher, wish)
            except OSError as error:
                attempts.append(Attempt(str(launcher), failure=str(error)))
                continue
            try:
                attempts.append(_wait(trial, time.monotonic() + timeout_s))
            finally:
                trial.discard()
    return SandboxReport(tuple(attempts), tuple(notes), tier)


def _wait(trial: Trial, deadline: float) -> Attempt:
    while select.select([trial.channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
        trial.receive()
        if trial.reported:
            return trial.judge()
    return Attempt(str(trial.launcher), failure="no answer in time")
