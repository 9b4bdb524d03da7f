"""Attacks on the machine's resources: each ends in a clear error, and the sandbox computes afterwards."""

from __future__ import annotations

import resource
import time

import psutil

from tests.support.sandbox import run, text

from .room import Attack, Escaped, Room


def _code(kind: str, name: str, code: str, *errors: str) -> Attack:
    return Attack(kind, name, lambda room: room.refuse(code, *errors))


FORKS = """
import os, time, signal
children = []
try:
    for _ in range(5000):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
finally:
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
"""
THREADS = """
import threading
stop = threading.Event()
try:
    for _ in range(5000): threading.Thread(target=stop.wait, daemon=True).start()
finally:
    stop.set()
"""
OPEN = """
import os
held = []
try:
    for _ in range(100_000): held.append(os.open('/dev/null', os.O_RDONLY))
finally:
    for each in held: os.close(each)
"""
FILL = """
import os
path = {path!r}
try:
    with open(path, 'wb') as f:
        for _ in range({mib}): f.write(bytes(1 << 20))
finally:
    os.unlink(path)
"""
FILL_FOLDER = """
import tempfile
for n in range(20):
    with open(FOLDER + f'/fill-{n}', 'wb') as f:
        for _ in range(100): f.write(bytes(1 << 20))
"""
EMPTY = """
import os, glob, tempfile
for name in glob.glob('fill-*') + glob.glob(tempfile.gettempdir() + '/fill-*'): os.unlink(name)
"""
SWARM = """
import os, time
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        held = bytearray(256 << 20)
        held[::4096] = b'x' * len(held[::4096])
        time.sleep(20)
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
"""


def _limit(room: Room, code: str, *names: str) -> str:
    """A breach of a limit: the error has one of these names, and what was filled is emptied."""
    result = run(room.sandbox, code)
    run(room.sandbox, EMPTY)
    if result.error is None or result.error.ename not in names:
        raise Escaped(f"status {result.status}, {result.error}")
    return f"{result.error.ename}: {result.error.evalue[:100]}"


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.execvp('sleep', ['sleep', {mark!r}])
    os._exit(0)
time.sleep(0.5)
"""


def _outlive(room: Room) -> str:
    mark = f"6{time.time_ns() % 10**9}"
    run(room.sandbox, DAEMON.format(mark=mark))

    def alive() -> list[int]:
        return [p.pid for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]

    if not alive():
        raise Escaped("the daemon did not start, so nothing was shown")
    room.sandbox.restart()
    end = time.monotonic() + 3
    while alive() and time.monotonic() < end:
        time.sleep(0.05)
    if alive():
        raise Escaped("it is still there")
    return "killed with the sandbox"


def _endless(room: Room, code: str) -> str:
    started = time.monotonic()
    result = run(room.sandbox, code, timeout_s=0.6)
    took = time.monotonic() - started
    if result.status != "timeout" or took > 6:
        raise Escaped(f"status {result.status} after {took:.1f} s")
    return f"stopped after {took:.1f} s" + (", kernel replaced" if result.state_lost else "")


IGNORING = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(0.1)"
CATCHING = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
IN_C = "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')"


def _prints(room: Room) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run(room.sandbox, "line = 'y' * 999_999\nfor _ in range(1100): print(line)")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    kept = len(text(result))
    if kept > (1 << 20) + 1000 or grown > 300:
        raise Escaped(f"{kept} characters kept, {grown} MiB used")
    return f"{kept >> 10} KiB kept"


_FULL_OR_CLOSED = ("OSError", "DiskLimitExceeded", "FileNotFoundError", "PermissionError")
ATTACKS = [
    _code("memory", "allocate 10 GiB", "bytearray(10 << 30)", "MemoryError"),
    _code("memory", "map 10 GiB", "import mmap; mmap.mmap(-1, 10 << 30)", "OSError", "MemoryError"),
    _code(
        "memory", "map 10 GiB shared", "import mmap; mmap.mmap(-1, 10 << 30, mmap.MAP_SHARED)", "OSError", "MemoryError"
    ),
    _code(
        "memory",
        "map 3 GiB in pieces",
        "import mmap; held = [mmap.mmap(-1, 1 << 28) for _ in range(16)]",
        "OSError",
        "MemoryError",
    ),
    _code(
        "memory",
        "grow a list without end",
        "held = []\ntry:\n    while True: held.append(bytearray(64 << 20))\nfinally: del held",
        "MemoryError",
        "MemoryLimitExceeded",
    ),
    _code(
        "memory",
        "lock memory",
        "import ctypes; libc = ctypes.CDLL(None)\nif libc.mlockall(3): raise OSError",
        "OSError",
    ),
    Attack("memory", "hold 5 GiB in 20 processes", lambda r: _limit(r, SWARM, "MemoryLimitExceeded")),
    Attack(
        "disk", "fill the workspace", lambda r: _limit(r, FILL_FOLDER.replace("FOLDER", "'.'"), "DiskLimitExceeded")
    ),
    _code("disk", "fill /tmp", FILL.format(path="/tmp/fill", mib=2000), *_FULL_OR_CLOSED),
    _code("disk", "fill /dev/shm", FILL.format(path="/dev/shm/fill", mib=2000), *_FULL_OR_CLOSED),
    Attack(
        "disk",
        "fill the temporary folder",
        lambda r: _limit(r, FILL_FOLDER.replace("FOLDER", "tempfile.gettempdir()"), "DiskLimitExceeded", "OSError"),
    ),
    _code("disk", "write one huge file", FILL.format(path="fill-one", mib=1500), "OSError", "DiskLimitExceeded"),
    _code("processes", "fork without end", FORKS, "BlockingIOError"),
    _code("processes", "start threads without end", THREADS, "RuntimeError"),
    _code("processes", "open files without end", OPEN, "OSError"),
    Attack("processes", "outlive the sandbox as a daemon", _outlive),
    Attack("time", "loop without end", lambda r: _endless(r, "while True: pass")),
    Attack("time", "sleep without end", lambda r: _endless(r, "import time; time.sleep(10**6)")),
    Attack("time", "loop and ignore interrupts", lambda r: _endless(r, IGNORING)),
    Attack("time", "loop and catch interrupts", lambda r: _endless(r, CATCHING)),
    Attack("time", "hang in C code", lambda r: _endless(r, IN_C)),
    Attack(
        "time", "wait for input that never comes", lambda r: r.refuse("input('password? ')", "StdinNotImplementedError")
    ),
    Attack("text", "print 1 GiB", _prints),
]
