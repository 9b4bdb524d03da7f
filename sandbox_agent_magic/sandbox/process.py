"""A kernel in the first sandbox that holds, as a process: start, interrupt, kill."""

from __future__ import annotations

import itertools
import os
import secrets
import select
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import ExecutorTimeout
from . import bubblewrap, landlock, seccomp
from .canary import Attempt, refusal
from .limits import SandboxLimits, users
from .plan import Launcher
from .trial import Trial, Wish

BUBBLEWRAP, LANDLOCK = "bubblewrap", "landlock"
"""Tiers: a sandbox of namespaces, and the weaker one without."""
_SPARE = ((210_000, 50_000), (60_000, 5_000))
"""First id and number of ranges that no distribution uses; a container may lack the first."""
_STEP, _TRIES = 4_999, 16
_numbers = itertools.count()
_chosen: Launcher | None = None
"""The launcher that held first in this process; later starts try it first (and probe again)."""


def sandbox_uid() -> int | None:
    """As root, a user id that nobody has, another one at each call; else None: the sandbox runs as the user who asks.

    Two sandboxes must not be one user: before Linux 6.12, without namespaces, they could end each other's processes.
    Also None for the root of a rootless container that has no id to spare: that is an ordinary user outside.
    """
    if os.name != "posix" or os.getuid() != 0:
        return None
    used = users()
    for first, count in _SPARE:
        for _ in range(_TRIES):
            uid = first + (os.getpid() + _STEP * next(_numbers)) % count
            if uid not in used and not _has_name(uid) and _mapped(uid):
                return uid
    return None


def _mapped(number: int) -> bool:
    """Whether `number` is a user and a group id in this user namespace; a container may have a few only."""
    for name in ("uid_map", "gid_map"):
        try:
            lines = Path("/proc/self", name).read_text().splitlines()
        except OSError:
            return True  # not Linux, where nothing is started anyway
        ranges = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
        if not any(first <= number < first + count for first, count in ranges):
            return False
    return True


def _has_name(uid: int) -> bool:
    import pwd  # there is none on Windows, where this module is only imported to refuse

    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


class SandboxProcess:
    """Starts a kernel in the first sandbox that holds.

    The constructor returns as soon as the first process is started; `wait_started` does the rest. The sandbox dies
    with the *thread* that constructs this (or that calls `wait_started`, if another launcher had to be tried).

    Args:
        workspace: the only folder that it may write to.
        limits: what it may use.
        uid: as root, who it runs as; the workspace must belong to that user.
        kernel: False runs the probes alone, for reports.
        layer: folder of installed packages, seen read-only.
        files: big files of the reader, seen read-only under these names.
        tier: `bubblewrap` or `landlock`.

    Raises:
        SandboxUnavailable: nothing could be started.
    """

    def __init__(
        self,
        workspace: Path,
        limits: SandboxLimits,
        *,
        uid: int | None = None,
        kernel: bool = True,
        layer: Path | None = None,
        files: Mapping[str, Path] | None = None,
        tier: str = BUBBLEWRAP,
    ) -> None:
        key = secrets.token_hex(32)
        self.key = key.encode()
        self.attempts: list[Attempt] = []
        """One per launcher that was tried, the last one being the one that holds."""
        self._wish = Wish(workspace, limits, uid, kernel, key, layer, dict(files or {}))
        self._tier = tier
        self._launchers, self._notes = launchers(uid, tier)
        self._started = False
        self._attempt: Attempt | None = None
        """What the report of the current try means, once it is known."""
        self._trial = self._next()

    @property
    def shell(self) -> str:
        """Endpoint of the shell channel."""
        return f"ipc://{self._trial.folder}/s/shell"

    @property
    def iopub(self) -> str:
        """Endpoint of the iopub channel."""
        return f"ipc://{self._trial.folder}/s/iopub"

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended."""
        return self._trial.pidfd

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._trial.poll()

    def last_words(self) -> str:
        """Of one that ended while it started: what it said, one line."""
        return self._trial.last_words()

    def wait_started(self, deadline: float) -> None:
        """Wait until a sandbox holds and its kernel is being loaded.

        Args:
            deadline: of `time.monotonic`.

        Raises:
            SandboxUnavailable: no launcher made one that holds.
            ExecutorTimeout: the deadline passed.
        """
        global _chosen
        while not self._started:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ExecutorTimeout("The sandbox did not start in time.", executor="sandbox")
            if not self._trial.reported:
                if select.select([self._trial.channel], [], [], left_s)[0]:
                    self._trial.receive()
                continue
            if self._attempt is None:
                self._attempt = self._trial.judge()
                self.attempts.append(self._attempt)
            # A Ctrl-C can come in each of these steps; the next call takes it again.
            if self._attempt.passed:
                _chosen = self._trial.launcher
                self._trial.settle()
                self._started = True
            else:
                self._trial.discard()
                self._trial, self._attempt = self._next(), None

    def interrupt(self) -> None:
        """Send SIGINT to the kernel."""
        self._trial.interrupt()

    def end(self) -> None:
        """Send SIGKILL to all of it, from any thread; `kill` is still to come."""
        self._trial.end()

    def end_others(self, *, spared: Collection[int] = ()) -> None:
        """Send SIGKILL to all processes but the kernel, the launcher, and those `spared`; from any thread."""
        self._trial.end_others(spared=spared)

    @property
    def memory_kills(self) -> int:
        """How many of its processes the machine's kernel has killed for memory, where that is known."""
        return self._trial.memory_kills

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the host's disk, beside the workspace, that it writes to."""
        return (self._trial.tmp,)

    @property
    def pid(self) -> int:
        """The id of the process whose descendants are the sandbox; 0 where there is none."""
        return self._trial.pid

    def kill(self) -> None:
        """End everything in the sandbox and remove what was made for it. Idempotent."""
        self._trial.discard()

    def _next(self) -> Trial:
        """The next launcher's try."""
        for launcher in self._launchers:
            try:
                return Trial(launcher, self._wish)
            except OSError as error:
                self.attempts.append(Attempt(str(launcher), failure=str(error)))
        raise refusal(self.attempts, self._notes, tier=self._tier)


def launchers(uid: int | None, tier: str = BUBBLEWRAP) -> tuple[Iterator[Launcher], list[str]]:
    """What can be tried here, best first; and why other things cannot."""
    if sys.platform != "linux":
        return iter([]), []
    if os.uname().machine not in seccomp.machines():
        return iter([]), [f"there is no system call filter for {os.uname().machine}"]
    needed = ("unshare", "mount") if tier == LANDLOCK else ("setpriv", "unshare", "mount")
    missing = [name for name in needed if uid is not None and shutil.which(name) is None]
    if missing:
        return iter([]), [f"as root it needs {', '.join(missing)} (package util-linux)"]
    found: Sequence[Launcher]
    if tier == LANDLOCK:
        found, notes = landlock.find(landlock.abi(), own_user=uid is not None)
    else:
        found, notes = bubblewrap.find()
    return iter(sorted(found, key=lambda launcher: launcher != _chosen)), notes


def shown_at(tier: str, name: str, path: Path) -> str:
    """Where a big file of the reader at `path`, named `name`, is seen inside."""
    return str(path) if tier == LANDLOCK else f"{bubblewrap.DATA}/{name}"
