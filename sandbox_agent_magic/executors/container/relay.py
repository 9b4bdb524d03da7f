"""Runs inside a container, as its first process: starts the kernel, watches it, and carries its messages.

The host sends this file through the container's stdin, for the package is not in the image; it needs Python 3.10 and
the standard library. Everything comes and goes in frames, `LANE LENGTH CONTENT`: lane 0 carries the host's commands as
JSON, each other lane the bytes of one connection to a socket of the kernel's, unread. What the relay itself has to say
goes to stderr, one line of JSON each behind the word that the host chose: so it is heard although nobody may be reading
lanes.

Code in here runs as the same user. It cannot end or trace this process: that is the first one of its process namespace,
and not dumpable. The host does not rely on it. When stdin ends, so does everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from ...sandbox.watchdog import Watchdog

HEADER = struct.Struct(">HI")
"""Lane, length."""
PIECE_BYTES = 64 << 10
"""A frame that leaves the container holds no more."""
NO_KERNEL = 81
"""Exit status of a Python that has no ipykernel."""
_OUT_BYTES = 256 << 10
_WORDS_BYTES = 4096
_DRAIN_S = 2.0
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_LAUNCH = f"""
import sys
sys.path[:] = [path for path in sys.path if path]
import ctypes, importlib.util, os, struct
if importlib.util.find_spec("ipykernel") is None or importlib.util.find_spec("zmq") is None:
    sys.exit({NO_KERNEL})
folder, program, channel = sys.argv[1:]
os.chdir(folder)
with open("/proc/self/oom_score_adj", "w") as score:
    score.write("1000")  # where memory is short, code must not outlive what watches it
program = bytes.fromhex(program)
if program:
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header, 0, 0):
        sys.exit("the system call filter cannot be set: " + os.strerror(ctypes.get_errno()))
sys.argv[1:] = [channel]
exec(compile(sys.stdin.read(), "boot", "exec"))
"""


class Setup(TypedDict):
    """What the host says first."""

    word: str
    """Begins each line on stderr."""
    boot: str
    """Source of the program that becomes the kernel."""
    modules: dict[str, str]
    """Sources of `usage` and `watchdog`."""
    configuration: dict[str, object]
    """For the program, without its listeners."""
    filters: dict[str, str]
    """System call filter by machine, in hexadecimal."""
    environment: dict[str, str]
    workspace: str
    memory_bytes: int
    disk_bytes: int
    granted: int | None
    """Bytes of the workspace that do not count; None: what lies there now."""


def say(word: str, **what: object) -> None:
    """A line for the host."""
    with contextlib.suppress(OSError):  # it has gone
        os.write(2, f"{word} {json.dumps(what)}\n".encode())


class Kernel:
    """The kernel's process, as a `Watched`."""

    folders: tuple[Path, ...] = ()
    pid = 1
    """All processes in here are below the first."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.status: int | None = None

    @property
    def memory_kills(self) -> int:
        """How many processes of this control group the machine's kernel has killed for memory."""
        for name in ("memory.events", "memory/memory.oom_control"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                rows = (line.split() for line in Path("/sys/fs/cgroup", name).read_text().splitlines())
                return int({row[0]: row[1] for row in rows if len(row) == 2}["oom_kill"])
        return 0

    def interrupt(self) -> None:
        """Send SIGINT to the kernel."""
        self._send(signal.SIGINT)

    def end(self) -> None:
        """Send SIGKILL to the kernel; the rest ends with it."""
        self._send(signal.SIGKILL)

    def end_others(self, *, spared: Collection[int] = ()) -> None:
        """Send SIGKILL to all processes but the kernel and those `spared`."""
        kept = {1, os.getpid(), self.process.pid, *spared}
        for name in filter(str.isdigit, os.listdir("/proc")):
            if int(name) not in kept:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(name), signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.status is None:  # not reaped: the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class Lane:
    """One connection to a socket of the kernel's."""

    def __init__(self, number: int, address: str) -> None:
        self.number = number
        self.unsent = bytearray()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.socket.connect(address)


class Relay:
    """Everything between the host's pipe and the kernel's sockets. One thread, beside the watchdog's."""

    def __init__(self, setup: Setup, watchdog: Watchdog) -> None:
        self._setup = setup
        self._watchdog = watchdog
        self._selector = selectors.DefaultSelector()
        self._lanes: dict[int, Lane] = {}
        self._in, self._out = bytearray(), bytearray()
        self._report = self._words = b""
        self._ending_at = 0.0
        self._addresses = {name: f"\0sandbox-agent-{name}" for name in ("shell", "iopub")}
        self._kernel, self._channel, self._stderr = self._start()

    def _start(self) -> tuple[Kernel, socket.socket, int]:
        """Start the program; it reports on the socket before it becomes the kernel."""
        listeners = [socket.socket(socket.AF_UNIX) for _ in self._addresses]
        for listener, address in zip(listeners, self._addresses.values(), strict=True):
            listener.bind(address)
            listener.listen(8)
            listener.setblocking(False)
        ours, theirs = socket.socketpair()
        setup = self._setup
        configuration = {**setup["configuration"], "listeners": [each.fileno() for each in listeners]}
        ours.sendall(json.dumps(configuration).encode() + b"\n")
        source_reader, source_writer = os.pipe()
        words_reader, words_writer = os.pipe()
        program = setup["filters"].get(os.uname().machine, "")
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, setup["workspace"], program, str(theirs.fileno())],
            stdin=source_reader,
            stdout=subprocess.DEVNULL,
            stderr=words_writer,
            pass_fds=[theirs.fileno(), *(each.fileno() for each in listeners)],
            env={**os.environ, **setup["environment"]},
            preexec_fn=_begin_child,
        )
        for descriptor in (source_reader, words_writer):
            os.close(descriptor)
        with contextlib.suppress(BrokenPipeError), open(source_writer, "wb") as source:
            source.write(setup["boot"].encode())
        for each in (theirs, *listeners):
            each.close()
        ours.setblocking(False)
        os.set_blocking(words_reader, False)
        return Kernel(process), ours, words_reader

    # ---- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry until the kernel or the host has ended."""
        children, woken = socket.socketpair()
        for each in (children, woken):
            each.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        self._selector.register(0, selectors.EVENT_READ, self._hear)
        self._selector.register(self._channel, selectors.EVENT_READ, self._take_report)
        self._selector.register(self._stderr, selectors.EVENT_READ, self._take_words)
        self._selector.register(children, selectors.EVENT_READ, lambda: children.recv(4096))
        while True:
            self._wait_for_output()
            for key, events in self._selector.select(0.05 if self._ending_at else None):
                if isinstance(key.data, Lane):
                    self._carry(key.data, events)
                else:
                    key.data()
            self._flush()
            self._reap()
            if self._ending_at and (time.monotonic() > self._ending_at or not (self._lanes or self._out)):
                return self._end()

    def _wait_for_output(self) -> None:
        """Lanes are read only while there is room for what they bring; then it is stdout that is waited for."""
        full = len(self._out) > _OUT_BYTES
        for lane in self._lanes.values():
            wanted = (0 if full else selectors.EVENT_READ) | (selectors.EVENT_WRITE if lane.unsent else 0)
            self._want(lane.socket, wanted, lane)
        self._want(1, selectors.EVENT_WRITE if self._out else 0, lambda: None)

    def _want(self, file: Any, events: int, data: object) -> None:
        known = self._selector.get_map().get(file)
        if known is None and events:
            self._selector.register(file, events, data)
        elif known is not None and not events:
            self._selector.unregister(file)
        elif known is not None and known.events != events:
            self._selector.modify(file, events, data)

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: os.write(1, self._out[:PIECE_BYTES])]
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)  # the host has gone

    def _carry(self, lane: Lane, events: int) -> None:
        """Bytes of one lane, in both directions."""
        try:
            if events & selectors.EVENT_WRITE:
                del lane.unsent[: lane.socket.send(lane.unsent)]
            if events & selectors.EVENT_READ:
                content = lane.socket.recv(PIECE_BYTES)
                self._out += HEADER.pack(lane.number, len(content)) + content
                if not content:
                    self._close(lane)
        except BlockingIOError:
            pass
        except OSError:
            self._out += HEADER.pack(lane.number, 0)
            self._close(lane)

    def _close(self, lane: Lane) -> None:
        self._want(lane.socket, 0, lane)
        lane.socket.close()
        self._lanes.pop(lane.number, None)

    # ---- the host ------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        content = os.read(0, PIECE_BYTES)
        if not content:
            os._exit(0)  # the host has gone, and with this process all others go
        self._in += content
        while len(self._in) >= HEADER.size:
            number, size = HEADER.unpack_from(self._in)
            if len(self._in) < HEADER.size + size:
                return
            body = bytes(self._in[HEADER.size : HEADER.size + size])
            del self._in[: HEADER.size + size]
            lane = self._lanes.get(number)
            if number == 0:
                self._obey(json.loads(body))
            elif lane is not None and body:
                lane.unsent += body
            elif lane is not None:
                self._close(lane)

    def _obey(self, command: dict[str, Any]) -> None:
        match command:
            case {"open": [number, name]}:
                with contextlib.suppress(OSError):
                    self._lanes[number] = Lane(number, self._addresses[name])
                    return
                self._out += HEADER.pack(number, 0)
            case {"interrupt": _}:
                self._kernel.interrupt()
            case {"call": [number, name, *arguments]}:
                call: Callable[..., object] = getattr(self, f"call_{name}")
                say(self._setup["word"], answer=[number, call(*arguments)])

    def call_begin(self, granted: int | None) -> dict[str, object] | None:
        """A cell begins; what left-over processes did since the last."""
        self.call_grant(granted)
        return _described(self._watchdog.begin())

    def call_finish(self, stopped: bool) -> dict[str, object]:
        """A cell has ended, or was stopped: then what it started ends too."""
        breach = self._watchdog.finish()
        if stopped:
            self._watchdog.end_started()
        full = breach is not None and self._watchdog.holds_too_much()
        return {"breach": _described(breach), "full": full}

    def call_grant(self, granted: int | None) -> None:
        """From now on so many bytes of the workspace do not count."""
        if granted is not None:
            self._watchdog.granted = granted

    def call_excess(self) -> int:
        """Bytes that the workspace holds too much."""
        return self._watchdog.excess()

    def call_room(self) -> bool:
        """Whether code can go on, once the host has made room."""
        return self._watchdog.make_room(lambda _: None)

    # ---- the kernel ----------------------------------------------------------------------------------------------

    def _take_report(self) -> None:
        """The program's findings, one line; then the kernel is loaded."""
        content = b""
        with contextlib.suppress(ConnectionResetError):  # it ended without reading what we sent
            content = self._channel.recv(4096)
        self._report += content
        if content and not self._report.endswith(b"\n") and len(self._report) < PIECE_BYTES:
            return
        self._want(self._channel, 0, None)
        self._channel.close()
        with contextlib.suppress(ValueError):
            report = json.loads(self._report)
            self._watchdog.watch(self._kernel)
            self._watchdog.begin()
            say(self._setup["word"], report=report, granted=self._watchdog.granted)

    def _take_words(self) -> None:
        with contextlib.suppress(BlockingIOError):
            content = os.read(self._stderr, 4096)
            self._words = (self._words + content)[-_WORDS_BYTES:]
            if not content:
                self._want(self._stderr, 0, None)

    def _reap(self) -> None:
        """The first process is everybody's heir."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._kernel.process.pid:
                    self._kernel.status = self._kernel.process.returncode = os.waitstatus_to_exitcode(found[1])
                    self._kernel.end_others()  # they may hold its sockets
                    self._ending_at = time.monotonic() + _DRAIN_S

    def _end(self) -> None:
        self._take_words()
        breach = _described(self._watchdog.finish())
        words = self._words.decode(errors="replace")
        say(self._setup["word"], ended=self._kernel.status, breach=breach, words=words, granted=self._watchdog.granted)
        os._exit(0)


def _described(breach: Any) -> dict[str, object] | None:
    return {"kind": breach.kind, "used": breach.used, "in_cell": breach.in_cell} if breach is not None else None


def _begin_child() -> None:
    """In the child, before it becomes another program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def watchdog_of(setup: Setup) -> Watchdog:
    """The sandbox's own watchdog, from the sources that the host sent."""
    package = types.ModuleType("inside")
    package.__path__ = []
    limits = types.ModuleType("inside.limits")
    limits.MIB, limits.SandboxLimits = 1 << 20, object  # type: ignore[attr-defined]
    sys.modules |= {"inside": package, "inside.limits": limits}
    for name in ("usage", "watchdog"):
        module = types.ModuleType(f"inside.{name}")
        module.__package__ = "inside"
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        exec(compile(setup["modules"][name], name, "exec"), module.__dict__)  # noqa: S102 - the host's own code
    bounds = types.SimpleNamespace(memory_bytes=setup["memory_bytes"], disk_bytes=setup["disk_bytes"])
    made: Watchdog = sys.modules["inside.watchdog"].Watchdog(Path(setup["workspace"]), bounds, granted=setup["granted"])
    return made


def read_exactly(size: int) -> bytes:
    """That many bytes of stdin; ends the process if there are no more."""
    content = b""
    while len(content) < size:
        piece = os.read(0, size - len(content))
        if not piece:
            os._exit(0)
        content += piece
    return content


def main() -> None:
    """Be told what to do, then do it."""
    _, size = HEADER.unpack(read_exactly(HEADER.size))
    setup: Setup = json.loads(read_exactly(size))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.makedirs(setup["environment"]["HOME"], exist_ok=True)
        relay = Relay(setup, watchdog_of(setup))
    except OSError as error:
        say(setup["word"], ended=1, words=f"{error}")
        os._exit(0)
    relay.run()


if __name__ == "__main__":
    main()
