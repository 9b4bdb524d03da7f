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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import scratch
from . import bubblewrap, seccomp, usage
from .canary import Attempt
from .limits import SandboxLimits, counted_tasks

_MAX_SOCKET_PATH = 107
_MAX_REPORT_BYTES = 64 << 10
_CREDENTIALS = struct.Struct("3i")
_END_S = 0.5


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

    def __init__(self, launcher: bubblewrap.Launcher, wish: Wish) -> None:
        self.launcher = launcher
        self.folder, self._mark = scratch.make("sbx", folder=temp_folder(wish.uid))
        self.pidfd = -1
        self._kernel_pidfd = -1
        self._kernel_pid = 0
        self._wish = wish
        self._report = b""
        self._lock = (
            threading.RLock()
        )  # the watchdog signals from its own thread; no descriptor may be closed meanwhile
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = contextlib.ExitStack()  # what only the start needs
        try:
            self.channel = self._launch(wish)
        except BaseException:
            self.discard()
            raise

    def _launch(self, wish: Wish) -> socket.socket:
        """Start the process; returns our end of the channel that it reports on."""
        self.folder.chmod(0o711)
        for name, mode in (("s", 0o700), ("stage", 0o755), ("bait", 0o755)):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(mode)
        bait = self.folder / "bait"
        (bait / "file").touch(0o644)
        if wish.uid is not None:
            os.chown(bait, wish.uid, wish.uid)
        ours, theirs = socket.socketpair()
        self._closing.enter_context(ours)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        bait_server = self._closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        with theirs, contextlib.ExitStack() as closing:
            listeners = [closing.enter_context(_listener(self.folder / "s" / name)) for name in ("shell", "iopub")]
            plan = bubblewrap.Plan(
                workspace=wish.workspace,
                limits=wish.limits,
                folders=bubblewrap.environment_folders(),
                seccomp_fd=pipe(closing, seccomp.program(os.uname().machine)),
                passwd_fd=pipe(closing, bubblewrap.PASSWD),
                channel_fd=theirs.fileno(),
                uid=wish.uid,
                stage=self.folder / "stage",
                layer=wish.layer,
                files=wish.files,
            )
            configuration = {
                "key": wish.key,
                "kernel": wish.kernel,
                "listeners": [listener.fileno() for listener in listeners],
                "limits": wish.limits.rlimits(other_tasks=counted_tasks() if wish.uid is None else 0),
                "hints": wish.limits.hints(),
                "text_chars": wish.limits.outputs.text_bytes,
                "bait_port": bait_server.getsockname()[1],
                "bait_file": str(bait / "file"),
                "layer": bubblewrap.LAYER if plan.layer else "",
                "closed_folders": ["/", "/usr", "/etc", "/dev", bubblewrap.LAYER, str(bait), *map(str, plan.folders)],
            }
            ours.sendall(json.dumps(configuration).encode() + b"\n")
            self._process = subprocess.Popen(
                bubblewrap.command(self.launcher, plan),
                stdin=pipe(closing, (Path(__file__).parent / "boot.py").read_bytes()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[plan.seccomp_fd, plan.passwd_fd, plan.channel_fd, *map(socket.socket.fileno, listeners)],
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,  # a terminal's Ctrl-C is for us to pass on, not for bubblewrap to die of
            )
        self.pidfd = os.pidfd_open(self._process.pid)
        return ours

    def receive(self) -> bool:
        """Read a piece of the report; True when there is no more."""
        try:
            data, ancillary, _, _ = self.channel.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        except ConnectionResetError:  # it ended without reading what we sent
            return True
        for level, kind, value in ancillary:
            # The machine's kernel says who wrote this, in our numbering: that is whom to interrupt.
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and data and self._kernel_pidfd < 0:
                pid = _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[0]
                with contextlib.suppress(OSError):
                    self._kernel_pidfd = os.pidfd_open(pid)
                    self._kernel_pid = pid
        self._report += data
        return not data or self._report.endswith(b"\n") or len(self._report) > _MAX_REPORT_BYTES

    def judge(self) -> Attempt:
        """What the report means."""
        name = str(self.launcher)
        try:
            findings = json.loads(self._report)
        except ValueError:
            return Attempt(name, failure=self.last_words())
        if self._kernel_pidfd < 0:
            return Attempt(name, failure="its process cannot be found, so it could not be interrupted")
        return Attempt(name, findings={str(key): str(value) for key, value in findings.items()})

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
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Send SIGKILL to all of it; `discard` is still to come. For any thread."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end_others(self) -> None:
        """Send SIGKILL to all processes but the kernel and bubblewrap itself. For any thread."""
        with self._lock:
            kept = {self.pid, self._kernel_pid, usage.parent(self._kernel_pid)}
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
        self._closing.close()
        with self._lock:
            for descriptor in (self.pidfd, self._kernel_pidfd):
                if descriptor >= 0:
                    os.close(descriptor)
            self.pidfd = self._kernel_pidfd = -1
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


def temp_folder(uid: int | None) -> str:
    """A folder for sockets whose paths fit, and that the user `uid` can walk to: the usual one, else /tmp."""
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + len("/sbx-1234567890-xxxxxxxx/s/shell") <= _MAX_SOCKET_PATH
    return usual if fits and (uid is None or bubblewrap.open_to_all(Path(usual))) else "/tmp"  # noqa: S108


def _listener(path: Path) -> socket.socket:
    """A listening socket at `path`; the kernel accepts on it, so it needs no folder of ours."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    listener.setblocking(False)
    return listener


def pipe(closing: contextlib.ExitStack, content: bytes) -> int:
    """A descriptor to read `content` from, closed by `closing`. The content must fit into a pipe (64 KiB)."""
    reader, writer = os.pipe()
    closing.callback(os.close, reader)
    os.write(writer, content)
    os.close(writer)
    return reader
