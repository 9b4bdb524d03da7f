"""A kernel in a sandbox, as a process: starts it, hears whether it holds, interrupts and kills it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExecutorTimeout
from . import bubblewrap, seccomp
from .canary import Attempt, refusal

if TYPE_CHECKING:
    from .limits import SandboxLimits

_MAX_SOCKET_PATH = 107
_MAX_REPORT_BYTES = 64 << 10
_chosen: bubblewrap.Launcher | None = None
"""The launcher that held first in this process; later starts go to it at once (and are probed again)."""


def sandbox_uid() -> int | None:
    """As root, a user id that nobody has; else None: the sandbox runs as the user who asks."""
    if os.getuid() != 0:
        return None
    uid = 210_000 + os.getpid() % 50_000
    while True:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
        uid += 1


class SandboxProcess:
    """Starts a kernel in the first sandbox that holds.

    The constructor returns as soon as the first process is started; `wait_started` does the rest. The sandbox dies
    with the *thread* that constructs this (or that calls `wait_started`, if another launcher had to be tried).

    Args:
        workspace: the only folder that it may write to.
        limits: what it may use.
        uid: as root, who it runs as; the workspace must belong to that user.
        kernel: False runs the probes alone, for reports.
    """

    def __init__(self, workspace: Path, limits: SandboxLimits, *, uid: int | None = None, kernel: bool = True) -> None:
        self.key = secrets.token_hex(32).encode()
        self.attempts: list[Attempt] = []
        self._workspace = workspace
        self._limits = limits
        self._uid = uid
        self._kernel = kernel
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._kernel_pidfd = -1
        self._channel: socket.socket | None = None
        self._bait: socket.socket | None = None
        self._report = b""
        self._folder: Path | None = None
        self._current: bubblewrap.Launcher | None = None
        if sys.platform != "linux":
            raise refusal([])
        launchers, self._notes = bubblewrap.find()
        self._launchers = sorted(launchers, key=lambda launcher: launcher != _chosen)
        if os.uname().machine not in seccomp.machines():
            raise refusal([], [f"there is no system call filter for {os.uname().machine}"])
        self._start_next()

    # ---- what the channel needs ----------------------------------------------------------------------------------

    @property
    def shell(self) -> str:
        """Endpoint of the shell channel."""
        return f"ipc://{self._folder}/s/shell"

    @property
    def iopub(self) -> str:
        """Endpoint of the iopub channel."""
        return f"ipc://{self._folder}/s/iopub"

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended."""
        return self._pidfd

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll() if self._process else -1

    # ---- start ---------------------------------------------------------------------------------------------------

    def _start_next(self) -> None:
        self._discard()
        if not self._launchers:
            raise refusal(self.attempts, self._notes)
        self._current = self._launchers.pop(0)
        self._folder = Path(tempfile.mkdtemp(prefix="sbx-", dir=_short_temp()))
        try:
            self._launch(self._current, self._folder)
        except OSError as error:
            self.attempts.append(Attempt(str(self._current), failure=str(error)))
            self._start_next()

    def _launch(self, launcher: bubblewrap.Launcher, folder: Path) -> None:
        """Start `launcher`, with everything it needs in `folder`."""
        folder.chmod(0o711)
        for name, mode in (("s", 0o700), ("stage", 0o755), ("bait", 0o755)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        bait = folder / "bait"
        (bait / "file").touch(0o644)
        if self._uid is not None:
            os.chown(bait, self._uid, self._uid)
        with contextlib.ExitStack() as closing:
            ours, theirs = socket.socketpair()
            closing.enter_context(theirs)
            self._channel = ours
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            listeners = [closing.enter_context(_listener(folder / "s" / name)) for name in ("shell", "iopub")]
            self._bait = socket.create_server(("127.0.0.1", 0))
            plan = bubblewrap.Plan(
                workspace=self._workspace,
                limits=self._limits,
                folders=bubblewrap.environment_folders(),
                seccomp_fd=_pipe(closing, seccomp.program(os.uname().machine)),
                passwd_fd=_pipe(closing, b"user:x:1000:1000::/tmp/home:/bin/sh\n"),
                channel_fd=theirs.fileno(),
                uid=self._uid,
                stage=folder / "stage",
            )
            missing = bubblewrap.missing_tools(plan)
            if missing:
                raise FileNotFoundError(f"as root it needs {', '.join(missing)} (package util-linux)")
            configuration = {
                "key": self.key.decode(),
                "kernel": self._kernel,
                "listeners": [listener.fileno() for listener in listeners],
                "limits": self._limits.rlimits(),
                "bait_port": self._bait.getsockname()[1],
                "bait_file": str(bait / "file"),
                "closed_folders": ["/", "/usr", "/etc", "/dev", str(bait), *map(str, plan.folders)],
            }
            ours.sendall(json.dumps(configuration).encode() + b"\n")
            boot = (Path(__file__).parent / "boot.py").read_bytes()
            self._process = subprocess.Popen(
                bubblewrap.command(launcher, plan),
                stdin=_pipe(closing, boot),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[plan.seccomp_fd, plan.passwd_fd, plan.channel_fd, *(s.fileno() for s in listeners)],
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,  # a terminal's Ctrl-C is for us to pass on, not for bubblewrap to die of
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    def wait_started(self, deadline: float) -> None:
        """Wait until a sandbox holds and its kernel is being loaded.

        Args:
            deadline: of `time.monotonic`.

        Raises:
            SandboxUnavailable: no launcher made one that holds.
            ExecutorTimeout: the deadline passed.
        """
        global _chosen
        while self._channel is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ExecutorTimeout("The sandbox did not start in time.", executor="sandbox")
            if select.select([self._channel], [], [], left_s)[0] and self._receive():
                attempt = self._judge()
                self.attempts.append(attempt)
                if attempt.passed:
                    _chosen = self._current
                    self._close_start()
                else:
                    self._start_next()

    def _receive(self) -> bool:
        """Read a piece of the report; True when there is no more."""
        assert self._channel is not None
        room = socket.CMSG_SPACE(struct.calcsize("3i"))
        data, ancillary, _, _ = self._channel.recvmsg(4096, room)
        for level, kind, value in ancillary:
            # The kernel of the machine says who wrote this, in our numbering: that is whom to interrupt.
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and self._kernel_pidfd < 0:
                pid = struct.unpack("3i", value[:12])[0]
                if pid > 0 and data:
                    with contextlib.suppress(OSError):
                        self._kernel_pidfd = os.pidfd_open(pid)
        self._report += data
        return not data or self._report.endswith(b"\n") or len(self._report) > _MAX_REPORT_BYTES

    def _judge(self) -> Attempt:
        name = str(self._current)
        try:
            findings = json.loads(self._report)
        except ValueError:
            return Attempt(name, failure=self._last_words())
        if self._kernel and self._kernel_pidfd < 0:
            return Attempt(name, failure="its process cannot be found, so it could not be interrupted")
        return Attempt(name, findings={str(key): str(value) for key, value in findings.items()})

    def _last_words(self) -> str:
        """What the launcher wrote before it gave up; bounded."""
        assert self._process is not None
        self._process.kill()
        status = self._process.wait()
        words = b""
        if self._process.stderr is not None:
            words = os.read(self._process.stderr.fileno(), 4096)
        lines = words.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ended with status {status}"

    # ---- signals and the end -------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Send SIGINT to the kernel itself; bubblewrap does not pass signals on."""
        if self._kernel_pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._kernel_pidfd, signal.SIGINT)

    def kill(self) -> None:
        """End everything in the sandbox and remove what was made for it. Idempotent; bounded by a few seconds."""
        self._discard()

    def _close_start(self) -> None:
        """Close what only the start needed."""
        for end in (self._channel, self._bait):
            if end is not None:
                end.close()
        self._channel = self._bait = None
        if self._process is not None and self._process.stderr is not None:
            self._process.stderr.close()
        if self._folder is not None:
            shutil.rmtree(self._folder / "bait", ignore_errors=True)

    def _discard(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._kernel_pidfd >= 0:
                select.select([self._kernel_pidfd], [], [], 2)
        self._close_start()
        for descriptor in (self._pidfd, self._kernel_pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self._process, self._pidfd, self._kernel_pidfd, self._report = None, -1, -1, b""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _short_temp() -> str | None:
    """A folder for sockets whose paths fit; None: the usual one."""
    longest = len(os.fsencode(tempfile.gettempdir())) + len("/sbx-xxxxxxxx/s/shell")
    return "/tmp" if longest > _MAX_SOCKET_PATH else None  # noqa: S108


def _listener(path: Path) -> socket.socket:
    """A listening socket at `path`; the kernel accepts on it, so it needs no folder of ours."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    listener.setblocking(False)
    return listener


def _pipe(closing: contextlib.ExitStack, content: bytes) -> int:
    """A descriptor to read `content` from, closed by `closing`. The content must fit into a pipe (64 KiB)."""
    reader, writer = os.pipe()
    closing.callback(os.close, reader)
    os.write(writer, content)
    os.close(writer)
    return reader
