"""The first program of a sandbox without namespaces: it confines a child to some files, and outlives it.

The host gives this file to `python -P -c` with a configuration as JSON, and the program that shall run confined on
stdin. It uses the standard library only. Landlock confines files, signals and abstract sockets, the seccomp filter the
rest. Nothing ends with its parent by itself here, so this process stays outside the confinement as the sandbox's
supervisor: orphans of the sandbox become its children, and it ends them all when the kernel has ended, when it gets
SIGTERM, or when the notebook's process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import sys
import time
from typing import NoReturn, TypedDict

_SET_PDEATHSIG, _SET_SECCOMP, _DROP_BOUNDING, _SET_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38  # of prctl
_CAPABILITIES, _CAPABILITY_VERSION = range(64), 0x20080522
_SECCOMP_FILTER = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on x86_64 and aarch64
_PATH_BENEATH = 1
_FILE_RIGHTS = 0x1 | 0x2 | 0x4 | 0x4000 | 0x8000
"""Execute, write, read, truncate, ioctl of a device: what a rule on a file, not on a folder, may grant."""
_FIRST_TO_DIE = 1000
_END_S = 3.0
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Confinement(TypedDict):
    """What the host says."""

    parent: int
    """The host's process; 0 where it cannot be seen from here."""
    uid: int | None
    """As root: who to become."""
    folder: str
    """To work in."""
    handled: list[int]
    """A Landlock ruleset's attributes: rights on files and on the network, denied unless granted, and scopes."""
    rules: list[tuple[str, int]]
    """Paths, and the rights that are granted beneath them."""
    filter: str
    """The seccomp filter, in hexadecimal."""


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """A call of libc that must work."""
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name} {arguments[0]}: {os.strerror(ctypes.get_errno())}")
    return result


# ---- the child ----------------------------------------------------------------------------------------------------


def confine(config: Confinement) -> None:
    """Give up everything but what the configuration grants, for this process and all that it starts."""
    attributes = struct.pack("=3Q", *config["handled"])
    ruleset = _call("syscall", _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    for path, rights in config["rules"]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _grant(ruleset, path.replace("/proc/self", f"/proc/{os.getpid()}"), rights)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(_FIRST_TO_DIE))  # where memory is short, code must not outlive its supervisor
    for capability in _CAPABILITIES:
        _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0)  # works for root alone, which alone needs it
    if config["uid"] is not None:
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    _drop_capabilities()
    _call("prctl", _SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which forgets it
    _call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("syscall", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    os.chdir(config["folder"])
    program = bytes.fromhex(config["filter"])
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    _call("prctl", _SET_SECCOMP, _SECCOMP_FILTER, header, 0, 0)


def _drop_capabilities() -> None:
    """Root that has no id to spare stays root, but may do no more than another user."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _call("capset", header, bytes(24))


def _grant(ruleset: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = rights if os.path.isdir(path) else rights & _FILE_RIGHTS
        _call("syscall", _ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        # A rule is on an inode: those of /proc are made anew after memory was short, unless they are held.
        if not path.startswith("/proc/"):
            os.close(handle)


# ---- the supervisor -----------------------------------------------------------------------------------------------


def supervise(child: int) -> int:
    """Wait until `child` has ended or the sandbox is to end; leaves no process behind. Returns an exit status."""
    signals = {*_FORWARDED, signal.SIGCHLD}
    while True:
        if signal.sigwaitinfo(signals).si_signo != signal.SIGCHLD:
            end_all()
            return 0
        for pid, status in reaped():
            if pid == child:
                end_all()
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _close_inherited() -> None:
    """What is the child's alone. Not all numbers up to the limit, which may be a thousand million."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def reaped() -> list[tuple[int, int]]:
    """Children that have ended, with their wait statuses."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            found.append((pid, status))
    return found


def end_all() -> None:
    """Kill every process below this one. They are stopped first, so that none starts another meanwhile."""
    deadline = time.monotonic() + _END_S
    while (found := descendants()) and time.monotonic() < deadline:
        stopped: set[int] = set()
        while set(found) - stopped and time.monotonic() < deadline:
            send(found, signal.SIGSTOP)
            stopped |= set(found)
            found = descendants()
        send(found, signal.SIGKILL)
        time.sleep(0.002)
        reaped()
    # In a container, the first process may be one that never waits for what it is given.
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.001)


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants() -> list[int]:
    """All processes below this one that have not ended."""
    found: list[int] = []
    todo = [os.getpid()]
    for pid in todo:  # grows meanwhile
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as children:
                    below = [int(word) for word in children.read().split()]
                    todo += below
                    found += below
    return [pid for pid in found if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as status:
            return status.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def main() -> NoReturn:
    """Start the child that is confined, and stay outside."""
    config: Confinement = json.loads(sys.argv[1])
    program = sys.stdin.read()
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    _call("prctl", _SET_SUBREAPER, 1, 0, 0, 0)
    _call("prctl", _SET_PDEATHSIG, signal.SIGTERM)
    if config["parent"] and os.getppid() != config["parent"]:
        sys.exit("the notebook's process is gone")
    supervisor = os.getpid()
    child = os.fork()
    if child:
        _close_inherited()
        os._exit(supervise(child))
    try:
        confine(config)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"Landlock: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    if os.getppid() != supervisor:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_FORWARDED, signal.SIGCHLD})
    sys.argv[:] = ["-", *sys.argv[2:]]
    exec(compile(program, "<sandbox>", "exec"), {"__name__": "__main__"})  # noqa: S102 - the host's own program
    sys.exit()


if __name__ == "__main__":
    main()
