"""Attacks on the kernel: every system call that the filter denies is called, and what goes round a filter is tried."""

from __future__ import annotations

import os

from sandbox_agent_magic.sandbox.syscalls import DENIED as DENIED_CALLS
from sandbox_agent_magic.sandbox.syscalls import Numbers

from .room import Attack, Escaped, Room

PREPARE = "import ctypes, errno, os, mmap\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_MACHINE = os.uname().machine
COLUMN = {"x86_64": 0, "aarch64": 1}[_MACHINE]
_CLONE = {"x86_64": 56, "aarch64": 220}[_MACHINE]
_IOCTL = {"x86_64": 16, "aarch64": 29}[_MACHINE]
_NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "UTS": 0x4000000,
    "IPC": 0x8000000,
    "user": 0x10000000,
    "process": 0x20000000,
    "network": 0x40000000,
}


def call(name: str, number: int, *arguments: str, error: str = "EPERM") -> Attack:
    def attempt(room: Room) -> str:
        values = ", ".join(f"ctypes.c_long({argument})" for argument in arguments)
        code = f"{PREPARE}result = libc.syscall(ctypes.c_long({number}), {values})\n"
        code += "if result == 0: os._exit(0)\n"  # a clone that worked: this is the child
        code += "print(result, errno.errorcode.get(ctypes.get_errno()))"
        return room.answer(code, f"-1 {error}", error)

    return Attack("system calls", name, attempt)


def _in_a_child(name: str, code: str) -> Attack:
    """The kernel must kill the process that tries it."""

    def attempt(room: Room) -> str:
        child = f"{PREPARE}pid = os.fork()\nif pid == 0:\n    {code}\n    os._exit(0)\n"
        found = room.answer(child + "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (-31, -11))", "True", "")
        return found or "the process was killed"

    return Attack("system calls", name, attempt)


def every(calls: Numbers, error: str = "EPERM") -> list[Attack]:
    """A call of each of these, which must be denied."""
    return [
        call(name, numbers[COLUMN] or 0, *["0"] * 6, error=error)
        for name, numbers in calls.items()
        if numbers[COLUMN] is not None
    ]


DENIED = every(DENIED_CALLS)
NAMESPACES = [
    call(f"clone into a new {name} namespace", _CLONE, f"{flag | 17:#x}", *["0"] * 4)
    for name, flag in _NAMESPACES.items()
]
ROUND_THE_FILTER = [
    call("clone3, whose flags no filter sees", 435, "0", "0", error="ENOSYS"),
    call("type into the terminal", _IOCTL, "0", "0x5412", "0"),
    call("paste into the console", _IOCTL, "0", "0x541C", "0"),
    call("type into the terminal, with high bits set", _IOCTL, "0", "0x1000005412", "0"),
    call("clone with high bits set", _CLONE, "0x100000000 | 0x10000000 | 17", *["0"] * 4),
]
if _MACHINE == "x86_64":
    ROUND_THE_FILTER += [
        _in_a_child("call by the numbers of x32", "libc.syscall(ctypes.c_long(0x40000000 + 165), 0, 0, 0, 0, 0)"),
        _in_a_child(
            "call by the numbers of 32-bit programs",
            "page = mmap.mmap(-1, 4096, prot=7); page.write(bytes.fromhex('b815000000cd80c3'));"
            " ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
        ),
    ]


def _remove_filter(room: Room) -> str:
    code = (
        f"{PREPARE}print(libc.prctl(22, 0, 0, 0, 0), open('/proc/self/status').read().split('Seccomp:')[1].split()[0])"
    )
    found = room.answer(code, "-1 2", "a filter cannot be removed")
    if not found:
        raise Escaped("the filter is gone")
    return found


ATTACKS = [*DENIED, *NAMESPACES, *ROUND_THE_FILTER, Attack("system calls", "remove the filter", _remove_filter)]
