"""Watches what a sandbox uses as a whole, in and between cells, and stops it at its limits.

The machine's kernel bounds each process on its own; nothing an ordinary user may ask of it bounds them together, or the
size of a folder. So a thread looks, ten times a second while code runs. Code over a limit is interrupted, and processes
that it started are killed, which keeps its variables; if that does not help within a moment, the sandbox is killed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from . import usage
from .limits import MIB, SandboxLimits

_BUSY_S, _IDLE_S = 0.1, 0.5
_GRACE_S, _FAR_GRACE_S = 0.7, 0.4
"""After an interrupt, before the kill; and where the limit is passed by far."""
_MAX_AGAIN = 2
_MAX_ROUNDS = 20
_RESCAN_S = 0.5
_QUICK_S = 0.1
_FAR_BYTES = 128 * MIB
_SLACK_BYTES = MIB


class Watched(Protocol):
    """The process that is watched; its methods may be called from any thread."""

    @property
    def pid(self) -> int:
        """Of the first process of the sandbox; 0 where there is none."""

    @property
    def memory_kills(self) -> int:
        """How many of its processes the machine's kernel has killed for memory, where that is known."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the host's disk, beside the workspace, that it writes to."""

    def interrupt(self) -> None:
        """Send SIGINT to the kernel."""

    def end_others(self, *, spared: Collection[int] = ()) -> None:
        """Send SIGKILL to all processes but the kernel and those `spared`."""

    def end(self) -> None:
        """Send SIGKILL to all of it."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit was passed."""

    kind: Literal["memory", "disk"]
    used: int
    """Bytes."""
    in_cell: bool
    """Whether code of a cell was running; otherwise processes that it had left behind."""


class Watchdog:
    """One sandbox's. `watch` starts it, `close` ends it.

    Args:
        workspace: the folder; what lies there now does not count.
        limits: what the sandbox may use.
        granted: bytes of the workspace that do not count; what lies there now unless given.
    """

    def __init__(self, workspace: Path, limits: SandboxLimits, *, granted: int | None = None) -> None:
        self.limits = limits
        self._workspace = workspace
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: Watched | None = None
        self._kills = 0
        self._there: frozenset[int] = frozenset()
        """Processes that were there before the cell began."""
        self._running = False
        self._over = False
        """The cell's code is gone; only `finish` is still to come."""
        self._breach: Breach | None = None
        self._stopped_at = 0.0
        self._again = 0
        """Further interrupts since then."""
        self._disk_seen = 0
        """Bytes at the last look since then."""
        self._used = usage.disk([workspace], ())
        self.granted = self._used if granted is None else granted
        """Bytes of the workspace that do not count."""
        self._allowed = self.granted + limits.disk_bytes
        self._scanned_at, self._scan_s = time.monotonic(), 0.0
        self._filled = self._filesystem()

    def watch(self, process: Watched) -> None:
        """From now on `process` is the sandbox; no code runs in it yet."""
        with self._lock:
            self._look_for_kills()  # of the one before
            self._process, self._kills = process, 0
            self._over = self._running and self._breach is not None
            self._scanned_at = self._scan_s = 0.0  # what the one before held open is free now
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sandbox-watchdog", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread. Idempotent."""
        with self._lock:
            thread, self._thread, self._process = self._thread, None, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1)

    def grant(self, size: int) -> None:
        """The reader put `size` bytes into the workspace: they do not count."""
        with self._lock:
            self.granted += size
            self._used += size

    def begin(self) -> Breach | None:
        """A cell begins; returns what left-over processes did since the last."""
        with self._lock:
            breach, self._breach = self._breach, None
            self._set_allowed()
            self._running, self._over = True, False
            self._there = frozenset(self._pids())
        self._wake.set()
        return breach

    def end_started(self) -> None:
        """Kill what the last cell has started: it was stopped, and what it forked off must not go on without it."""
        for _ in range(_MAX_ROUNDS):  # they may start others meanwhile
            with self._lock:
                if self._process is None or not set(self._pids()) - self._there:
                    return
                self._process.end_others(spared=self._there)
            time.sleep(0.005)

    def _pids(self) -> list[int]:
        """All processes of the sandbox."""
        pid = self._process.pid if self._process is not None else 0
        return usage.descendants(pid) if pid else []

    def finish(self) -> Breach | None:
        """The cell has ended; returns the limit that it passed, if any."""
        with self._lock:
            self._look_for_kills()
            if self._breach is None and self._scan_s < _QUICK_S:
                self._scan(nameless=False)
                if self._used > self._allowed:
                    self._breach = Breach("disk", self._used, in_cell=True)
            if self._breach is not None and self._process is not None and not self._over:
                self._process.end_others()
                self._wait_for_memory(self._process)
            self._running = self._over = False
            breach, self._breach = self._breach, None
            return breach

    def _look_for_kills(self) -> None:
        """Between two looks, a burst can come as far as the control group lets it: then the machine's kernel kills."""
        kills = self._process.memory_kills if self._process is not None else 0
        if kills > self._kills and self._breach is None and self._running:
            self._breach = Breach("memory", self.limits.memory_bytes, in_cell=True)
        self._kills = kills

    def _wait_for_memory(self, process: Watched) -> None:
        """Killed processes take a moment to give their memory back; the next cell must not be blamed for it."""
        deadline = time.monotonic() + _GRACE_S
        while self._memory(process) > self.limits.memory_bytes and time.monotonic() < deadline:
            time.sleep(0.02)

    def _memory(self, process: Watched) -> int:
        return usage.memory(usage.descendants(process.pid), self.limits.memory_bytes)

    def holds_too_much(self) -> bool:
        """Whether what the kernel keeps in its variables is over the limit by itself: no code could run any more."""
        with self._lock:
            process = self._process
            return process is not None and process.pid != 0 and self._memory(process) > self.limits.memory_bytes

    def excess(self) -> int:
        """Bytes that the workspace holds too much; none or less if it is within its limit."""
        with self._lock:
            self._scan()
            return self._used - self.granted - self.limits.disk_bytes

    def make_room(self, remove: Callable[[int], None]) -> bool:
        """Let `remove` free some bytes of the workspace, where it is over its limit; nothing is stopped meanwhile.

        Returns:
            Whether code can go on; if not, files that it holds open take too much.
        """
        with self._lock:
            excess = self.excess()
            if excess > 0:
                remove(excess)
                self._scan()
            self._set_allowed()
            return self._used <= self._allowed

    def _set_allowed(self) -> None:
        """A workspace that is full already must let code run that makes room."""
        base = self.granted + self.limits.disk_bytes
        self._allowed = min(max(base, self._used + _SLACK_BYTES), base + self.limits.disk_bytes // 2)

    # ---- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        mine = threading.current_thread()
        while True:
            self._wake.wait(_BUSY_S if self._running else _IDLE_S)
            self._wake.clear()
            with self._lock:
                if self._thread is not mine:
                    return
                # A file that vanished under us is no reason to stop watching.
                with contextlib.suppress(OSError):
                    self._look()

    def _look(self) -> None:
        process = self._process
        if process is None or not process.pid or self._over:
            return
        used = self._memory(process)
        if process.memory_kills > self._kills:
            self._kills = process.memory_kills
            self._stop(process, Breach("memory", max(used, self.limits.memory_bytes), self._running), far=True)
        if used > self.limits.memory_bytes:
            self._stop(process, Breach("memory", used, self._running), far=used > self.limits.memory_bytes * 5 // 4)
        self._look_at_disk(process)
        self._insist(process)

    def _insist(self, process: Watched) -> None:
        """Code that was interrupted for its memory and goes on is interrupted again, then ended.

        An interrupt can be lost: Python drops an exception that is raised in a hook of `fork`, such as logging's.
        """
        breach = self._breach
        waited = time.monotonic() - self._stopped_at
        if breach is None or breach.kind != "memory" or not self._running or waited < (self._again + 1) * _GRACE_S:
            return
        self._again += 1
        if self._again > _MAX_AGAIN:
            process.end()
        else:
            process.interrupt()
            process.end_others()

    def _look_at_disk(self, process: Watched) -> None:
        grown = self._filesystem() - self._filled
        age = time.monotonic() - self._scanned_at
        # Never busy with looking for more than a fifth of the time, however many files there are.
        if age > 4 * self._scan_s and (grown > self._allowed - self._used or age > _RESCAN_S):
            self._scan()
            if self._used > self._allowed:
                far = self._used > self._allowed + _FAR_BYTES
                self._stop(process, Breach("disk", self._used, self._running), far=far)

    def _scan(self, *, nameless: bool = True) -> None:
        """Look at all files; at those without a name only if asked, since that takes some milliseconds."""
        began = time.monotonic()
        pid = self._process.pid if nameless and self._process is not None else 0
        self._filled = self._filesystem()
        more = self._process.folders if self._process is not None else ()
        self._used = usage.disk([self._workspace, *more], usage.descendants(pid) if pid else ())
        self._scanned_at = time.monotonic()
        self._scan_s = self._scanned_at - began

    def _filesystem(self) -> int:
        """Bytes in use on the workspace's file system: what it grows by bounds what the workspace can grow by."""
        info = os.statvfs(self._workspace)
        return (info.f_blocks - info.f_bfree) * info.f_frsize

    def _stop(self, process: Watched, breach: Breach, *, far: bool) -> None:
        """The mildest means first: each next one only if that before did not help."""
        now = time.monotonic()
        if self._breach is None:
            self._breach, self._stopped_at, self._again, self._disk_seen = breach, now, 0, breach.used
            if self._running:
                process.interrupt()
            if far or not self._running:
                process.end_others()
        elif breach.kind == "disk" and breach.used <= self._disk_seen:
            return  # what was written is still there, but it does not grow any more
        elif now - self._stopped_at > (_FAR_GRACE_S if far else _GRACE_S):
            process.end()
        else:
            self._disk_seen = max(self._disk_seen, breach.used if breach.kind == "disk" else 0)
            process.end_others()
