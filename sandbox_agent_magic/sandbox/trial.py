"""One launcher's try at a sandbox: the process, what it reports about itself, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import scratch
from . import cgroup, usage
from .canary import Attempt
from .limits import SandboxLimits, counted_tasks
from .plan import Launcher, Plan, environment_folders, open_to_all, pipe

_MAX_SOCKET_PATH = 107
_MAX_REPORT_BYTES = 64 << 10
_CREDENTIALS = struct.Struct("3i")
_END_S = 0.5
_SUPERVISOR_S = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to run, whichever launcher makes it."""

    workspace: Path
    limits: SandboxLimits
    uid: int | None
    """As root: the user to run as."""
    kernel: bool
    """False: only the probes."""
    key: str
    """Signs the kernel's messages."""
    layer: Path | None = None
    """Folder of installed packages."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Big files of the reader, by the names that they have inside."""


class Trial:
    """Starts at once; `receive` and `judge` say whether it holds.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, launcher: Launcher, wish: Wish) -> None:
        self.launcher = launcher
        self.folder, self._mark = scratch.make("sbx", folder=temp_folder(wish.uid))
        self.pidfd = -1
        self._kernel_pidfd = -1
        self._kernel_pid = 0
        self._wish = wish
        self._report = b""
        self.reported = False
        """The report is whole."""
        self._lock = (
            threading.RLock()
        )  # the watchdog signals from its own thread; no descriptor may be closed meanwhile
        self._process: subprocess.Popen[bytes] | None = None
        self._group: cgroup.ControlGroup | None = None
        self._closing = contextlib.ExitStack()  # what only the start needs
        try:
            self.channel = self._launch(wish)
        except BaseException:
            self.discard()
            raise

    def _launch(self, wish: Wish) -> socket.socket:
        """Start the process; returns our end of the channel that it reports on."""
        self.folder.chmod(0o711)
        for name, mode in (("s", 0o700), ("stage", 0o755), ("bait", 0o755), ("tmp", 0o700), ("tmp/home", 0o700)):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(mode)
        bait = self.folder / "bait"
        (bait / "file").touch(0o644)
        if wish.uid is not None:
            for folder in (bait, self.tmp, self.tmp / "home"):
                os.chown(folder, wish.uid, wish.uid)
        ours, theirs = socket.socketpair()
        self._closing.enter_context(ours)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        bait_server = self._closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._closing.enter_context(_listener(bait / "socket"))
        (bait / "socket").chmod(0o777)
        with theirs, contextlib.ExitStack() as closing:
            listeners = [closing.enter_context(_listener(self.folder / "s" / name)) for name in ("shell", "iopub")]
            plan = Plan(
                workspace=wish.workspace,
                limits=wish.limits,
                folders=environment_folders(),
                tmp=self.tmp,
                uid=wish.uid,
                stage=self.folder / "stage",
                layer=wish.layer,
                files=wish.files,
            )
            start = self.launcher.start(plan, [str(theirs.fileno())], closing)
            layer = self.launcher.layer(plan)
            closed = ["/", "/usr", "/etc", "/dev", str(bait), *map(str, plan.folders)]
            if self.launcher.supervised:  # else it is not there, or is in the sandbox's own /tmp
                closed.append(str(Path.home()))
            configuration = {
                "key": wish.key,
                "kernel": wish.kernel,
                "listeners": [listener.fileno() for listener in listeners],
                "limits": wish.limits.rlimits(other_tasks=self._other_tasks(wish)),
                "counts_others": self.launcher.supervised,
                "hints": wish.limits.hints(),
                "text_chars": wish.limits.outputs.text_bytes,
                "probes": self.launcher.probes,
                "bait_port": bait_server.getsockname()[1],
                "bait_file": str(bait / "file"),
                "bait_socket": str(bait / "socket"),
                "bait_pid": os.getpid(),
                "layer": layer,
                "closed_folders": [*closed, layer] if layer else closed,
            }
            ours.sendall(json.dumps(configuration).encode() + b"\n")
            self._group = cgroup.make(wish.limits)
            self._process = subprocess.Popen(
                self._group.joining(start.arguments) if self._group else start.arguments,
                stdin=pipe(closing, (Path(__file__).parent / "boot.py").read_bytes()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[*start.descriptors, theirs.fileno(), *map(socket.socket.fileno, listeners)],
                cwd="/",
                env=start.environment,
                start_new_session=True,  # a terminal's Ctrl-C is for us to pass on, not for the launcher to die of
            )
        self.pidfd = os.pidfd_open(self._process.pid)
        return ours

    def _other_tasks(self, wish: Wish) -> int:
        """Tasks outside of the sandbox that its limit of processes counts too."""
        return 0 if wish.uid is not None or self.launcher.supervised else counted_tasks()

    def receive(self) -> None:
        """Read a piece of the report."""
        try:
            data, ancillary, _, _ = self.channel.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        except ConnectionResetError:  # it ended without reading what we sent
            self.reported = True
            return
        for level, kind, value in ancillary:
            # The machine's kernel says who wrote this, in our numbering: that is whom to interrupt.
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and data and self._kernel_pidfd < 0:
                pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
                with contextlib.suppress(OSError):
                    self._kernel_pidfd = os.pidfd_open(pid)
                    self._kernel_pid = pid
        self._report += data
        self.reported = not data or self._report.endswith(b"\n") or len(self._report) > _MAX_REPORT_BYTES

    def judge(self) -> Attempt:
        """What the report means."""
        name = str(self.launcher)
        try:
            findings = json.loads(self._report)
        except ValueError:
            return Attempt(name, failure=self.last_words())
        if self._kernel_pidfd < 0:
            return Attempt(name, failure="its process cannot be found, so it could not be interrupted")
        found = {str(key): str(value) for key, value in findings.items()}
        return Attempt(name, findings=found, probes=self.launcher.probes)

    def last_words(self) -> str:
        """Kill it and say what it wrote before, at most one line."""
        if self._process is None or self._process.stderr is None:
            return "it did not start"
        self._kill()
        status = self._process.wait()
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            lines = os.read(self._process.stderr.fileno(), 1 << 16).decode(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:300]
        return f"ended with status {status}"

    def settle(self) -> None:
        """It holds: close what only the start needed."""
        self._closing.close()
        shutil.rmtree(self.folder / "bait", ignore_errors=True)

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll() if self._process else -1

    def interrupt(self) -> None:
        """Send SIGINT to the kernel itself: bubblewrap does not pass signals on."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._kernel_pidfd >= 0:
                signal.pidfd_send_signal(self._kernel_pidfd, signal.SIGINT)

    def _kill(self) -> None:
        """Kill the launcher and, with it, a child that has not yet bound its life to the launcher's.

        Bubblewrap's child does that only after its parent has written its user map: killed in between, the parent
        would leave a child behind that waits for ever. Until then both are in one process group.
        """
        if self._process is not None:
            end_process(self._process, supervised=self.launcher.supervised)

    def end(self) -> None:
        """End all of it; `discard` is still to come. For any thread."""
        number = signal.SIGTERM if self.launcher.supervised else signal.SIGKILL
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)

    def end_others(self, *, spared: Collection[int] = ()) -> None:
        """Send SIGKILL to all processes but the kernel, the launcher itself, and those `spared`. For any thread."""
        with self._lock:
            kept = {self.pid, self._kernel_pid, usage.parent(self._kernel_pid), *spared}
            for pid in usage.descendants(self.pid) if self.pid and self._kernel_pid else []:
                if pid not in kept:
                    self._kill_below(pid)

    def _kill_below(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                if pid in usage.descendants(self.pid):  # still: a number may have been given to another process
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    @property
    def memory_kills(self) -> int:
        """How many of its processes the machine's kernel has killed for memory, where that is known."""
        return self._group.kills if self._group is not None else 0

    @property
    def tmp(self) -> Path:
        """The sandbox's temporary folder, if its launcher has none of its own; removed with it."""
        return self.folder / "tmp"

    @property
    def pid(self) -> int:
        """The first process's, for the watchdog; 0 where there is none."""
        alive = self._process is not None and self._process.returncode is None and self.pidfd >= 0
        return self._process.pid if self._process is not None and alive else 0

    def discard(self) -> None:
        """End everything in the sandbox and remove what was made for it. Idempotent."""
        if self._process is not None:
            self._kill()
            self._process.wait()
            if self._kernel_pidfd >= 0:
                select.select([self._kernel_pidfd], [], [], _END_S)
            if self._process.stderr is not None:
                self._process.stderr.close()
        if self._group is not None:
            self._group.remove()
        self._closing.close()
        with self._lock:
            for descriptor in (self.pidfd, self._kernel_pidfd):
                if descriptor >= 0:
                    os.close(descriptor)
            self.pidfd = self._kernel_pidfd = -1
        scratch.remove(self.folder)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


def end_process(process: subprocess.Popen[bytes], *, supervised: bool) -> None:
    """End a launcher, the leader of its process group, and all that it started."""
    if process.returncode is not None:
        return
    if supervised:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SUPERVISOR_S)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def temp_folder(uid: int | None) -> str:
    """A folder for sockets whose paths fit, and that the user `uid` can walk to: the usual one, else /tmp."""
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + len("/sbx-1234567890-xxxxxxxx/s/shell") <= _MAX_SOCKET_PATH
    return usual if fits and (uid is None or open_to_all(Path(usual))) else "/tmp"  # noqa: S108


def _listener(path: Path) -> socket.socket:
    """A listening socket at `path`; the kernel accepts on it, so it needs no folder of ours."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    listener.setblocking(False)
    return listener
