"""The system call filter, as the bytes that `bwrap --seccomp FD` reads.

Namespaces already hide what a process could reach; the filter takes away the kernel's corners where sandboxes used to
break: mounting, tracing, key rings, BPF, io_uring, new namespaces. One table (`syscalls`) serves both machines.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from .syscalls import (
    DENIED,
    DENIED_FOR_OTHERS,
    DENIED_WITHOUT_NAMESPACES,
    IGNORED_FOR_OTHERS,
    IGNORED_WITHOUT_NAMESPACES,
    UNSUPPORTED_WITHOUT_NAMESPACES,
)


class _Machine(NamedTuple):
    column: int
    audit: int
    clone: int
    clone3: int
    socket: int
    socketpair: int
    ioctl: int
    fcntl: int
    prctl: int


_MACHINES = {
    "x86_64": _Machine(
        column=0, audit=0xC000003E, clone=56, clone3=435, socket=41, socketpair=53, ioctl=16, fcntl=72, prctl=157
    ),
    "aarch64": _Machine(
        column=1, audit=0xC00000B7, clone=220, clone3=435, socket=198, socketpair=199, ioctl=29, fcntl=25, prctl=167
    ),
}

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_X32_BIT = 0x40000000
_CLONE_NEW = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_IOCTL_KIND, _OF_TERMINALS = 0xFF00, 0x5400
"""Requests that start `T`: terminals, and the few that all descriptors know, such as FIONREAD and FIOCLEX."""
_F_NOTIFY, _F_SETLEASE = 1026, 1024
_PR_SET_PDEATHSIG = 1
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCKET_KIND, _SOCK_STREAM, _SOCK_SEQPACKET = 0xF, 1, 5

_Instruction = tuple[int, int, int, int]


def machines() -> tuple[str, ...]:
    """Machines that the filter exists for, as `os.uname().machine` names them."""
    return tuple(_MACHINES)


def program(machine: str, *, namespaces: bool = True, watched: bool = False) -> bytes:
    """The filter for `machine` as an array of `struct sock_filter`.

    Args:
        machine: as `os.uname().machine` names it.
        namespaces: whether the sandbox has namespaces of its own; without, more is denied.
        watched: whether a process of the same user stands guard inside, whose limits must be out of reach.

    Raises:
        KeyError: there is no filter for this machine.
    """
    m = _MACHINES[machine]
    code = _Code()
    code.put(_LOAD, _AT_ARCHITECTURE)
    code.put(_EQUAL, m.audit, 1, 0)
    code.put(_RETURN, _KILL)  # 32-bit calls have other numbers
    code.put(_LOAD, _AT_NUMBER)
    if machine == "x86_64":
        code.put(_AT_LEAST, _X32_BIT, 0, 1)
        code.put(_RETURN, _KILL)
    denied = DENIED if namespaces else DENIED | DENIED_WITHOUT_NAMESPACES
    for numbers in denied.values():
        code.answer(numbers[m.column], errno.EPERM)
    # clone3 hides its flags behind a pointer; without it glibc falls back to clone.
    code.answer(m.clone3, errno.ENOSYS)
    code.check(m.clone, 0, errno.EPERM, any_bit=_CLONE_NEW)
    # Typing into the terminal that the sandbox was started from.
    code.check(m.ioctl, 1, errno.EPERM, refused=(_TIOCSTI, _TIOCLINUX), ends=namespaces)
    if namespaces:
        if watched:
            _spare_others(code, m)
        # The network namespace is empty, so IP is harmless; netlink, packet, vsock and the rest are not needed.
        # EOPNOTSUPP, not EAFNOSUPPORT: libzmq aborts on the latter (src/ip_resolver.cpp).
        code.check(m.socket, 0, errno.EOPNOTSUPP, allowed=(_AF_UNIX, _AF_INET, _AF_INET6))
    else:
        _without_namespaces(code, m)
    code.put(_RETURN, _ALLOW)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code.instructions)


def _without_namespaces(code: _Code, m: _Machine) -> None:
    """What else is needed where the host's network and its processes are in reach."""
    for numbers in IGNORED_WITHOUT_NAMESPACES.values():
        code.answer(numbers[m.column], 0)
    for numbers in UNSUPPORTED_WITHOUT_NAMESPACES.values():
        code.answer(numbers[m.column], errno.EOPNOTSUPP)
    _spare_others(code, m)
    # What file systems offer goes round Landlock: attributes of a file open for reading, snapshots of all of a btrfs
    # volume. Sockets tell of the machine's network.
    code.check(m.ioctl, 1, errno.EPERM, mask=_IOCTL_KIND, allowed=(_OF_TERMINALS,))
    code.check(m.fcntl, 1, errno.EPERM, refused=(_F_SETLEASE, _F_NOTIFY))
    # The kernel ends with its supervisor, whoever ends that.
    code.check(m.prctl, 0, 0, refused=(_PR_SET_PDEATHSIG,))
    # Pairs and nothing else; a datagram socket could be sent to any name without `connect`.
    for number in (m.socket, m.socketpair):
        code.check(number, 1, errno.EOPNOTSUPP, mask=_SOCKET_KIND, allowed=(_SOCK_STREAM, _SOCK_SEQPACKET), ends=False)
        code.check(number, 0, errno.EOPNOTSUPP, allowed=(_AF_UNIX,))


def _spare_others(code: _Code, m: _Machine) -> None:
    """What reaches other processes of the same user."""
    for numbers in IGNORED_FOR_OTHERS.values():
        code.check(numbers[m.column], 0, 0, allowed=(0,))
    for numbers in DENIED_FOR_OTHERS.values():
        code.check(numbers[m.column], 0, errno.EPERM, allowed=(0,))


def filters() -> dict[str, bytes]:
    """By machine: the filter for a container, where the machine is known only inside and a process stands guard."""
    return {machine: program(machine, watched=True) for machine in machines()}


class _Code:
    """The filter as it grows. Between two checks the accumulator holds the call's number."""

    def __init__(self) -> None:
        self.instructions: list[_Instruction] = []

    def put(self, operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        """Jumps count the instructions to skip."""
        self.instructions.append((operation, if_true, if_false, value))

    def answer(self, number: int | None, error: int) -> None:
        """The call `number` is not made; it returns `error`, or success if that is 0."""
        if number is not None:
            self.put(_EQUAL, number, 0, 1)
            self.put(_RETURN, _ERRNO | error)

    def check(
        self,
        number: int | None,
        argument: int,
        error: int,
        *,
        mask: int = 0,
        any_bit: int = 0,
        refused: tuple[int, ...] = (),
        allowed: tuple[int, ...] = (),
        ends: bool = True,
    ) -> None:
        """The call `number` returns `error`, depending on the low 32 bits of one of its arguments.

        Args:
            number: of the call; None where there is none.
            argument: which, from 0.
            error: what it returns.
            mask: the bits that count; 0: all.
            any_bit: refused is what has one of these bits.
            refused: refused is one of these values.
            allowed: refused is any other than these values.
            ends: a call that is not refused is allowed; otherwise further checks follow.
        """
        if number is None:
            return
        body: list[_Instruction] = [(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument)]
        if mask:
            body.append((_AND, 0, 0, mask))
        if any_bit:
            body.append((_ANY_BIT, 0, 1, any_bit))
        values = refused or allowed
        for index, value in enumerate(values):
            left = len(values) - 1 - index
            if refused:
                body.append((_EQUAL, left, 0 if left else 1, value))
            else:
                body.append((_EQUAL, left + 1, 0, value))
        body.append((_RETURN, 0, 0, _ERRNO | error))
        body.append((_RETURN, 0, 0, _ALLOW) if ends else (_LOAD, 0, 0, _AT_NUMBER))
        self.put(_EQUAL, number, 0, len(body))
        self.instructions += body
