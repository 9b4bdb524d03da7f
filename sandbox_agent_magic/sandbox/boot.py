"""Runs inside the sandbox: sets limits, tries to get out, and only if that fails becomes the kernel.

The package is not visible in there, so the host reads this file and gives it to `python -P - FD` on stdin. It uses the
standard library and ipykernel, nothing else. FD is a socket: one line of JSON comes in (what `process.py` calls the
configuration), one line goes out (each probe's finding, empty where the sandbox held).

Limits are set here, not by a wrapper such as prlimit(1): that saves a program start, does not bind bubblewrap
itself, and is as safe, since no foreign code has run yet and lowered hard limits cannot be raised again.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import TextIO, TypedDict

CLONE_NEWUSER = 0x10000000
_MOST_TASKS = 1 << 22
"""The machine's kernel has no more."""
RUNAWAY = 256
"""Times the text that is kept: code that prints more is stopped."""


class Configuration(TypedDict):
    """What the host says."""

    key: str
    kernel: bool
    """False: only the probes."""
    listeners: list[int]
    """Descriptors of listening sockets: shell, iopub."""
    limits: dict[str, int]
    counts_others: bool
    """Whether the limit of processes counts what this user runs elsewhere, other containers' processes among it."""
    hints: dict[str, str]
    """To the errors that a limit raises: `memory`, `processes`, `file`, `tmp`, `text`."""
    text_chars: int
    """What a cell may print: half from its head and nearly as much from its tail are passed on."""
    probes: list[str]
    """Those of `PROBES` that have to fail."""
    bait_port: int
    bait_file: str
    bait_socket: str
    bait_pid: int
    closed_folders: list[str]
    layer: str
    """Where installed packages appear; empty where there are none."""


def set_limits(limits: dict[str, int]) -> None:
    """Set soft and hard limits, never above what is already there."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def tasks_before() -> int:
    """Processes and threads that count against this user's limit besides this one.

    Nobody tells: /proc shows one container's only, and the machine's kernel counts all with the same user id. So find
    the smallest limit under which it lets this process fork.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    too_low, enough = 0, _MOST_TASKS if hard == resource.RLIM_INFINITY else min(hard, _MOST_TASKS)
    while enough - too_low > 1:
        middle = (too_low + enough) // 2
        resource.setrlimit(resource.RLIMIT_NPROC, (middle, hard))
        try:
            child = os.fork()
        except BlockingIOError:
            too_low = middle
            continue
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        enough = middle
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return enough - 2  # at that limit: this process, and the child


# ---- probes: each returns what it could do, or nothing -----------------------------------------------------------


def probe_network(config: Configuration) -> str:
    try:
        socket.create_connection(("127.0.0.1", config["bait_port"]), timeout=1).close()
        return "connected to a port of the host"
    except OSError:
        pass
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect(("192.0.2.1", 9))  # sends nothing; only asks for a route
            return "there is a route to other machines"
    except OSError:
        return ""


def probe_read(config: Configuration) -> str:
    try:
        with open(config["bait_file"], "rb"):
            return "read a file of the host"
    except OSError:
        return ""


def probe_write(config: Configuration) -> str:
    for folder in config["closed_folders"]:
        path = os.path.join(folder, ".sandbox-agent-probe")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError:
            continue
        os.unlink(path)
        return "wrote to " + folder
    return ""


def probe_user_namespace(_: Configuration) -> str:
    return "made a user namespace" if ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0 else ""


def probe_host_process(config: Configuration) -> str:
    try:
        os.kill(config["bait_pid"], 0)
        return "could send a signal to a process of the host"
    except OSError:
        return ""


def probe_host_socket(config: Configuration) -> str:
    try:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(config["bait_socket"])
            return "connected to a socket of the host"
    except OSError:
        return ""


PROBES = {
    "network": probe_network,
    "read outside": probe_read,
    "write outside": probe_write,
    "nested user namespace": probe_user_namespace,
    # Where all processes share one numbering, and see the same files.
    "host process": probe_host_process,
    "host socket": probe_host_socket,
}


# ---- the kernel ---------------------------------------------------------------------------------------------------


class OutputLimitExceeded(Exception):
    """Raised in code that prints without end."""


class TextBudget:
    """Head and tail of what one cell prints; the middle is counted and forgotten.

    This keeps a cell that prints 100 MB cheap, and messages below the channel's limit. It is a courtesy: the host
    caps again, because code in here can go round it.
    """

    def __init__(self, plain_write: Callable[[TextIO, str], int], chars: int, hint: str) -> None:
        self._plain_write = plain_write
        self._head_chars, self._tail_limit = chars // 2, chars * 3 // 8
        self._runaway_chars = chars * RUNAWAY
        self._hint = hint
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """A new cell begins."""
        with self._lock:
            self._head_left = self._head_chars
            self._printed = 0
            self._tail: list[tuple[TextIO, str]] = []
            self._tail_chars = 0
            self._cut_chars = 0

    def write(self, stream: TextIO, text: str) -> int:
        """Pass on the head, keep the tail.

        Raises:
            OutputLimitExceeded: nobody will ever read that much.
        """
        with self._lock:
            self._printed += len(text)
            runaway = self._printed > self._runaway_chars
            head = text[: self._head_left]
            self._head_left -= len(head)
            if head:
                self._plain_write(stream, head)
            if len(head) < len(text):
                rest = text[max(len(head), len(text) - self._tail_limit) :]
                self._keep(stream, rest, len(text) - len(head))
        if runaway:
            raise OutputLimitExceeded(f"The code was stopped: it printed {RUNAWAY} times what is kept; {self._hint}.")
        return len(text)

    def _keep(self, stream: TextIO, text: str, chars: int) -> None:
        self._cut_chars += chars - len(text)
        self._tail.append((stream, text))
        self._tail_chars += len(text)
        if self._tail_chars > 2 * self._tail_limit or len(self._tail) > 10_000:
            self._shorten()

    def _shorten(self) -> None:
        kept: list[tuple[TextIO, list[str]]] = []
        room = self._tail_limit
        for stream, text in reversed(self._tail):
            part = text[len(text) - min(len(text), room) :]
            self._cut_chars += len(text) - len(part)
            room -= len(part)
            if not part:
                continue
            if kept and kept[-1][0] is stream:
                kept[-1][1].append(part)
            else:
                kept.append((stream, [part]))
        self._tail = [(stream, "".join(reversed(parts))) for stream, parts in reversed(kept)]
        self._tail_chars = self._tail_limit - room

    def drain(self) -> None:
        """Write what was kept, and how much was not."""
        with self._lock:
            self._shorten()
            tail, self._tail, self._tail_chars = self._tail, [], 0
            if tail and self._cut_chars:
                self._plain_write(tail[0][0], f"\n[... {self._cut_chars:,} characters cut here; {self._hint} ...]\n")
                self._cut_chars = 0
            for stream, text in tail:
                self._plain_write(stream, text)


def hint_for(error: object, hints: dict[str, str]) -> str:
    """Which limit `error` may come from, if any."""
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return hints["memory"]
    if isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and "start new thread" in str(error)):
        return hints["processes"]
    return {errno.EFBIG: hints["file"], errno.ENOSPC: hints["tmp"]}.get(number, "") if number else ""


def run_kernel(config: Configuration) -> None:
    """Become the kernel; returns when it ends."""
    # A debugger cannot be reached in here, and importing it is a quarter of a kernel's start.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    import zmq
    from ipykernel.iostream import OutStream
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    del sys.modules["debugpy"]
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)  # nobody reads the start's stderr from here on
    budget = TextBudget(OutStream.write, config["text_chars"], config["hints"]["text"])

    kernel_pid = os.getpid()

    def end_fork() -> None:
        """A process that code forked off ends with its cell: it must not become a second kernel on our sockets."""
        if os.getpid() != kernel_pid:
            os._exit(0)

    class CappedStream(OutStream):  # type: ignore[misc]
        """stdout and stderr, within the budget of the cell."""

        def write(self, string: str) -> int:
            return budget.write(self, string)

    class SandboxKernelApp(IPKernelApp):  # type: ignore[misc]
        """Listens on sockets that the host made, so that no folder of the host is needed for them."""

        def _try_bind_socket(self, s: zmq.Socket[bytes], port: int) -> int:
            s.setsockopt(zmq.SNDHWM, 0)  # queue in here, where memory is limited, rather than drop messages
            if port in config["listeners"]:
                s.setsockopt(zmq.USE_FD, port)
                s.bind(f"ipc:///listener-{port}")
            s.bind(f"inproc://channel-{id(s)}")  # the last endpoint counts; also for channels that nobody uses
            return port

        def init_connection_file(self) -> None:
            """There is none."""

        def write_connection_file(self) -> None:
            """There is none."""

        def load_config_file(self) -> None:
            """The workspace must not configure the kernel."""

        def log_connection_info(self) -> None:
            self._ports = {"shell": 0, "iopub": 0, "stdin": 0, "hb": 0, "control": 0}

        def init_heartbeat(self) -> None:
            """The host watches the process."""

        def init_io(self) -> None:
            # `outstream_class` takes an import string only
            sys.modules["sandbox_streams"] = streams = types.ModuleType("sandbox_streams")
            streams.CappedStream = CappedStream  # type: ignore[attr-defined]
            self.outstream_class = "sandbox_streams.CappedStream"
            super().init_io()

        def init_shell(self) -> None:
            super().init_shell()
            show_traceback = self.shell._showtraceback

            def show_traceback_after_text(kind: object, value: object, lines: list[str]) -> None:
                budget.drain()
                hint = hint_for(value, config["hints"])
                if hint:
                    value, lines = ". ".join(filter(None, (str(value).rstrip("."), hint))), [*lines, hint]
                show_traceback(kind, value, lines)

            self.shell._showtraceback = show_traceback_after_text
            self.shell.events.register("post_execute", end_fork)
            self.shell.events.register("pre_execute", budget.reset)
            self.shell.events.register("post_execute", budget.drain)

    settings = Config()
    settings.SandboxKernelApp.transport = "ipc"
    settings.SandboxKernelApp.shell_port, settings.SandboxKernelApp.iopub_port = config["listeners"]
    settings.Session.key = config["key"].encode()
    settings.HistoryManager.enabled = False
    settings.HistoryManager.hist_file = ":memory:"
    app = SandboxKernelApp.instance(config=settings)
    app.initialize([])
    if config["layer"]:
        sys.path.append(config["layer"])  # last: what the environment has is not replaced
    sys.path.insert(0, "")  # modules of the workspace; only now, so that none replaces a module of the kernel's own
    app.start()


def main() -> None:
    """Limits, probes, kernel, in this order."""
    channel = socket.socket(fileno=int(sys.argv.pop()))
    with channel, channel.makefile("rwb") as lines:
        config: Configuration = json.loads(lines.readline())
        if config["counts_others"]:
            config["limits"]["RLIMIT_NPROC"] += tasks_before()
        set_limits(config["limits"])
        findings = {name: PROBES[name](config) for name in config["probes"]}
        lines.write(json.dumps(findings).encode() + b"\n")
        lines.flush()
    if config["kernel"] and not any(findings.values()):
        run_kernel(config)


if __name__ == "__main__":
    main()
