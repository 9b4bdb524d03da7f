"""The filter's program, run by a small interpreter, since no machine runs both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox_agent_magic.sandbox import seccomp

ALLOW, KILL = "allow", "kill"
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
CLONE_NEWUSER, THREAD = 0x10000000, 0x003D0F00


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> str | int:
    """What the kernel would do with a system call: allow it, kill the process, or fail with an errno."""
    audit = audit or {"x86_64": X86_64, "aarch64": AARCH64}[machine]
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("<HBBI", seccomp.program(machine)))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(value) or int(value & 0xFFFF)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            at += if_true if holds else if_false


# name: (x86_64, aarch64), from the kernel's own tables
READ, MOUNT, UNSHARE, PTRACE = (0, 63), (165, 40), (272, 97), (101, 117)
IO_URING_SETUP, KEYCTL, MEMFD_CREATE = (425, 425), (250, 219), (319, 279)
CLONE, CLONE3, SOCKET, IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)
MACHINES = pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])


@MACHINES
def test_ordinary_calls_pass(machine: str, column: int) -> None:
    assert verdict(machine, READ[column]) == ALLOW
    assert verdict(machine, CLONE[column], THREAD) == ALLOW


@MACHINES
@pytest.mark.parametrize("numbers", [MOUNT, UNSHARE, PTRACE, IO_URING_SETUP, KEYCTL, MEMFD_CREATE])
def test_dangerous_calls_are_not_permitted(machine: str, column: int, numbers: tuple[int, int]) -> None:
    assert verdict(machine, numbers[column]) == errno.EPERM


@MACHINES
def test_no_new_namespace_by_clone_and_clone3_falls_back_to_clone(machine: str, column: int) -> None:
    assert verdict(machine, CLONE[column], CLONE_NEWUSER | 17) == errno.EPERM
    assert verdict(machine, CLONE3[column]) == errno.ENOSYS


@MACHINES
def test_only_unix_and_ip_sockets_and_never_the_error_that_libzmq_aborts_on(machine: str, column: int) -> None:
    for family in (1, 2, 10):
        assert verdict(machine, SOCKET[column], family) == ALLOW
    for family in (16, 17, 38, 40):
        assert verdict(machine, SOCKET[column], family) == errno.EOPNOTSUPP


@MACHINES
def test_no_typing_into_the_terminal(machine: str, column: int) -> None:
    assert verdict(machine, IOCTL[column], 0, 0x5401) == ALLOW
    assert verdict(machine, IOCTL[column], 0, 0x5412) == errno.EPERM
    assert verdict(machine, IOCTL[column], 0, 0x541C) == errno.EPERM


def test_calls_of_a_foreign_architecture_kill() -> None:
    assert verdict("x86_64", READ[0], audit=I386) == KILL
    assert verdict("x86_64", 0x40000000 | MOUNT[0]) == KILL
    assert verdict("aarch64", READ[1], audit=X86_64) == KILL
