"""The filter's program, run by a small interpreter, since no machine runs both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox_agent_magic.sandbox import seccomp

ALLOW, KILL = "allow", "kill"
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
CLONE_NEWUSER, THREAD = 0x10000000, 0x003D0F00


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None, namespaces: bool = True) -> str | int:
    """What the kernel would do with a system call: allow it, kill the process, or fail with an errno."""
    audit = audit or {"x86_64": X86_64, "aarch64": AARCH64}[machine]
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("<HBBI", seccomp.program(machine, namespaces=namespaces)))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
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


# ---- without namespaces -----------------------------------------------------------------------------------------

CONNECT, BIND, CHMOD_AT, PRLIMIT, SETSCHEDULER = (42, 203), (49, 200), (268, 53), (302, 261), (144, 119)
SOCKETPAIR, FCNTL = (53, 199), (72, 25)
STREAM, DATAGRAM, RAW, CLOSE_ON_EXEC = 1, 2, 3, 0o2000000


@MACHINES
def test_without_namespaces_no_socket_reaches_the_host(machine: str, column: int) -> None:
    for number in (CONNECT, BIND):
        assert verdict(machine, number[column], namespaces=False) == errno.EPERM
        assert verdict(machine, number[column]) == ALLOW
    for number in (SOCKET, SOCKETPAIR):
        for kind in (STREAM, STREAM | CLOSE_ON_EXEC):
            assert verdict(machine, number[column], 1, kind, namespaces=False) == ALLOW
        for family, kind in [
            (1, DATAGRAM),
            (1, DATAGRAM | CLOSE_ON_EXEC),
            (1, RAW),
            (2, STREAM),
            (10, STREAM),
            (16, RAW),
        ]:
            assert verdict(machine, number[column], family, kind, namespaces=False) == errno.EOPNOTSUPP


@MACHINES
def test_without_namespaces_other_processes_keep_their_limits_and_priorities(machine: str, column: int) -> None:
    assert verdict(machine, PRLIMIT[column], 0, namespaces=False) == ALLOW
    assert verdict(machine, PRLIMIT[column], 1234, namespaces=False) == errno.EPERM
    assert verdict(machine, SETSCHEDULER[column], 0, namespaces=False) == ALLOW
    assert verdict(machine, SETSCHEDULER[column], 1234, namespaces=False) == 0


@MACHINES
def test_without_namespaces_modes_stay_and_nobody_is_told(machine: str, column: int) -> None:
    assert verdict(machine, CHMOD_AT[column], namespaces=False) == 0
    assert verdict(machine, CHMOD_AT[column]) == ALLOW


@MACHINES
def test_without_namespaces_files_cannot_be_leased_nor_their_attributes_be_set(machine: str, column: int) -> None:
    assert verdict(machine, FCNTL[column], 3, 1, namespaces=False) == ALLOW
    assert verdict(machine, FCNTL[column], 3, 1024, namespaces=False) == errno.EPERM
    for request in (0x40086602, 0x40046602, 0x40087602, 0x401C5820, 0x5412, 0x541C):
        assert verdict(machine, IOCTL[column], 3, request, namespaces=False) == errno.EPERM
    assert verdict(machine, IOCTL[column], 3, 0x5401, namespaces=False) == ALLOW
    assert verdict(machine, CLONE[column], CLONE_NEWUSER | 17, namespaces=False) == errno.EPERM


@MACHINES
def test_without_namespaces_only_requests_that_all_descriptors_know_pass(machine: str, column: int) -> None:
    for request in (0x50009417, 0x40806685, 0x8912):  # a snapshot, an immutable file, the machine's addresses
        assert verdict(machine, IOCTL[column], 3, request, namespaces=False) == errno.EPERM
        assert verdict(machine, IOCTL[column], 3, request) == ALLOW
    for request in (0x5413, 0x541B, 0x5421, 0x5451):  # a terminal's size, bytes to read, non-blocking, close on exec
        assert verdict(machine, IOCTL[column], 3, request, namespaces=False) == ALLOW


@MACHINES
def test_without_namespaces_a_process_stays_bound_to_its_parent(machine: str, column: int) -> None:
    number = (157, 167)[column]
    assert verdict(machine, number, 1, 0, namespaces=False) == 0
    assert verdict(machine, number, 15, 0, namespaces=False) == ALLOW
