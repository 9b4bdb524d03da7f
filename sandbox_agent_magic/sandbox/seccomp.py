"""The system call filter, as the bytes that `bwrap --seccomp FD` reads.

Namespaces already hide what a process could reach; the filter takes away the kernel's corners where sandboxes used to
break: mounting, tracing, key rings, BPF, io_uring, new namespaces. One table serves both machines.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

# name: (x86_64, aarch64); None where the machine has no such call
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # memory that no rlimit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}


class _Machine(NamedTuple):
    column: int
    audit: int
    clone: int
    clone3: int
    socket: int
    ioctl: int


_MACHINES = {
    "x86_64": _Machine(column=0, audit=0xC000003E, clone=56, clone3=435, socket=41, ioctl=16),
    "aarch64": _Machine(column=1, audit=0xC00000B7, clone=220, clone3=435, socket=198, ioctl=29),
}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENT_0, _AT_ARGUMENT_1 = 0, 4, 16, 24  # offsets in struct seccomp_data

_X32_BIT = 0x40000000
_CLONE_NEW = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10

_Instruction = tuple[int, int, int, int]


def machines() -> tuple[str, ...]:
    """Machines that the filter exists for, as `os.uname().machine` names them."""
    return tuple(_MACHINES)


def program(machine: str) -> bytes:
    """The filter for `machine` as an array of `struct sock_filter`.

    Raises:
        KeyError: there is no filter for this machine.
    """
    m = _MACHINES[machine]
    code: list[_Instruction] = []

    def put(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        """Jumps count the instructions to skip."""
        code.append((operation, if_true, if_false, value))

    def refuse(error: int) -> None:
        put(_RETURN, _ERRNO | error)

    put(_LOAD, _AT_ARCHITECTURE)
    put(_EQUAL, m.audit, 1, 0)
    put(_RETURN, _KILL)  # 32-bit calls have other numbers
    put(_LOAD, _AT_NUMBER)
    if machine == "x86_64":
        put(_AT_LEAST, _X32_BIT, 0, 1)
        put(_RETURN, _KILL)
    for numbers in _DENIED.values():
        number = numbers[m.column]
        if number is not None:
            put(_EQUAL, number, 0, 1)
            refuse(errno.EPERM)

    # clone3 hides its flags behind a pointer; without it glibc falls back to clone.
    put(_EQUAL, m.clone3, 0, 1)
    refuse(errno.ENOSYS)
    put(_EQUAL, m.clone, 0, 4)
    put(_LOAD, _AT_ARGUMENT_0)
    put(_ANY_BIT, _CLONE_NEW, 0, 1)
    refuse(errno.EPERM)
    put(_RETURN, _ALLOW)

    # Typing into the terminal that the sandbox was started from.
    put(_EQUAL, m.ioctl, 0, 5)
    put(_LOAD, _AT_ARGUMENT_1)
    put(_EQUAL, _TIOCSTI, 1, 0)
    put(_EQUAL, _TIOCLINUX, 0, 1)
    refuse(errno.EPERM)
    put(_RETURN, _ALLOW)

    # The network namespace is empty, so IP is harmless; netlink, packet, vsock and the rest are not needed.
    # EOPNOTSUPP, not EAFNOSUPPORT: libzmq aborts on the latter (src/ip_resolver.cpp).
    put(_EQUAL, m.socket, 0, 5)
    put(_LOAD, _AT_ARGUMENT_0)
    put(_EQUAL, _AF_UNIX, 3, 0)
    put(_EQUAL, _AF_INET, 2, 0)
    put(_EQUAL, _AF_INET6, 1, 0)
    refuse(errno.EOPNOTSUPP)
    put(_RETURN, _ALLOW)

    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
