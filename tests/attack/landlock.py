"""Attacks that only a sandbox without namespaces has to fear: what belongs to the same user outside is in reach."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox_agent_magic.sandbox.syscalls import (
    DENIED_FOR_OTHERS,
    DENIED_WITHOUT_NAMESPACES,
    UNSUPPORTED_WITHOUT_NAMESPACES,
)

from .room import Attack, Escaped, Room
from .syscalls import COLUMN, PREPARE, call, every

_OLD = 1_000_000_000
"""A time in 2001."""


def _unchanged(name: str, code: str) -> Attack:
    """The code, in which PATH is a file of the host that belongs to the same user, must leave it as it was."""

    def attempt(room: Room) -> str:
        path = room.folder / "own"
        path.write_text("kept")
        path.chmod(0o600)
        os.utime(path, (_OLD, _OLD))
        before = path.lstat()
        room.sandbox.execute(PREPARE + code.replace("PATH", repr(str(path))), timeout_s=20, on_output=lambda _: None)
        after = path.lstat()
        for what in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime", "st_atime", "st_nlink"):
            if getattr(before, what) != getattr(after, what):
                raise Escaped(f"{what} is {getattr(after, what)} instead of {getattr(before, what)}")
        if path.read_text() != "kept" or stat.S_ISLNK(after.st_mode):
            raise Escaped("its content is another")
        return "unchanged"

    return Attack("landlock", name, attempt)


def _limits_of_the_host(room: Room) -> str:
    before = Path(f"/proc/{room.victim.pid}/limits").read_bytes()
    number = DENIED_FOR_OTHERS["prlimit64"][COLUMN]
    code = f"{PREPARE}pair = (ctypes.c_ulong * 2)(3, 3)\n"
    code += f"print(libc.syscall({number}, {room.victim.pid}, 7, ctypes.byref(pair), None))"
    how = room.answer(code, "-1", "EPERM")
    if Path(f"/proc/{room.victim.pid}/limits").read_bytes() != before:
        raise Escaped("its limits changed")
    return how


def _stop_the_supervisor(room: Room) -> str:
    return room.refuse("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "PermissionError")


def _priority_of_the_host(room: Room) -> str:
    before = os.sched_getaffinity(room.victim.pid), os.getpriority(os.PRIO_PROCESS, room.victim.pid)
    room.sandbox.execute(
        f"import os\nos.sched_setaffinity({room.victim.pid}, [0])\nos.setpriority(0, {room.victim.pid}, 19)",
        timeout_s=20,
        on_output=lambda _: None,
    )
    if (os.sched_getaffinity(room.victim.pid), os.getpriority(os.PRIO_PROCESS, room.victim.pid)) != before:
        raise Escaped("it changed")
    return "unchanged"


def _environment_of_the_host(room: Room) -> str:
    return room.refuse(f"print(open('/proc/{room.victim.pid}/cmdline').read())", "PermissionError", "FileNotFoundError")


def _stay_when_the_supervisor_ends(room: Room) -> str:
    code = f"{PREPARE}libc.prctl(1, 0)\nsignal = ctypes.c_int()\nlibc.prctl(2, ctypes.byref(signal))\n"
    code += "print(signal.value)"
    return room.answer(code, "9", "it ends with its supervisor all the same")


def _request(name: str, request: int) -> Attack:
    """An `ioctl` on a file of the sandbox's own."""
    return call(name, {0: 16, 1: 29}[COLUMN], "os.open('.', os.O_RDONLY)", f"{request:#x}", "0")


def _look(name: str, path: str) -> Attack:
    return Attack("landlock", name, lambda room: room.refuse(f"print(open({path!r}).read())", "PermissionError"))


def _socket(name: str, code: str) -> Attack:
    return Attack("landlock", name, lambda room: room.refuse(f"import socket; {code}", "OSError", "PermissionError"))


FILES = [
    _unchanged("change a file's mode", "os.chmod(PATH, 0o777)"),
    _unchanged(
        "change a file's mode, by its folder",
        "os.chmod('own', 0o777, dir_fd=os.open(os.path.dirname(PATH), os.O_PATH))",
    ),
    _unchanged("change a file's times", "os.utime(PATH)"),
    _unchanged("change a file's owner", "os.chown(PATH, 1, 1)"),
    _unchanged("empty a file", "os.truncate(PATH, 0)"),
    _unchanged("remove a file", "os.unlink(PATH)"),
    _unchanged("rename a file into the workspace", "os.rename(PATH, 'taken')"),
    _unchanged("link a file into the workspace", "os.link(PATH, 'linked'); open('linked', 'w').write('x')"),
    _unchanged("replace a file by one of the workspace", "open('mine', 'w').close(); os.rename('mine', PATH)"),
    _unchanged("write through a link in the workspace", "os.symlink(PATH, 'way'); open('way', 'w').write('x')"),
    _unchanged("set an attribute of a file", "os.setxattr(PATH, 'user.planted', b'x')"),
    _unchanged(
        "write through a descriptor of /proc", "fd = os.open(PATH, os.O_PATH); open(f'/proc/self/fd/{fd}', 'w')"
    ),
]
PROCESSES = [
    Attack("landlock", "limit a process of the same user", _limits_of_the_host),
    Attack("landlock", "kill the supervisor", _stop_the_supervisor),
    Attack("landlock", "change a process's priority", _priority_of_the_host),
    Attack("landlock", "read a process's command line", _environment_of_the_host),
    Attack("landlock", "stay when the supervisor ends", _stay_when_the_supervisor_ends),
]
SOCKETS = [
    _socket("make a datagram socket", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"),
    _socket("make a pair of datagram sockets", "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"),
    _socket("make an IP socket", "socket.socket(socket.AF_INET)"),
    _socket("take a name that the host may call", "socket.socket(socket.AF_UNIX).bind('\\0taken')"),
]
MACHINE = [
    _look("see the machine's connections", "/proc/self/net/tcp"),
    _look("see the machine's sockets", "/proc/self/net/unix"),
    Attack(
        "landlock",
        "see them by a thread",
        lambda room: room.refuse(
            "import os; print(open(f'/proc/self/task/{os.getpid()}/net/unix').read())", "PermissionError"
        ),
    ),
    _look("see the machine's mounts", "/proc/self/mountinfo"),
    _socket(
        "ask a socket for the machine's addresses",
        "import fcntl; fcntl.ioctl(socket.socketpair()[0], 0x8912, bytes(16))",
    ),
    _request("snapshot a whole btrfs volume", 0x50009417),
    _request("make a btrfs volume", 0x5000940E),
    _request("make a file immutable", 0x40806685),
    call("watch a folder", {0: 72, 1: 25}[COLUMN], "os.open('.', os.O_RDONLY)", "1026", "2"),
]
ATTACKS: list[Attack] = [
    *FILES,
    *PROCESSES,
    *SOCKETS,
    *MACHINE,
    *every(DENIED_WITHOUT_NAMESPACES),
    *every(UNSUPPORTED_WITHOUT_NAMESPACES, "ENOTSUP"),
    call("lease a file", {0: 72, 1: 25}[COLUMN], "0", "1024", "0"),
    call("change the attributes of an open file", {0: 16, 1: 29}[COLUMN], "0", "0x40086602", "0"),
]
