"""Attacks on a container alone: its first process carries the messages and watches the limits, as the same user."""

from __future__ import annotations

from tests.support.sandbox import run, text

from .room import Attack, Escaped, Room

EXCLUDED = {
    "files: read the host's user list": "a container has a list of its own; below, it must be the image's",
    "files: read devices by sysfs": "engines show it, read-only, with the container's own empty network; see below",
}
"""Attacks of the common list that mean something else here, and why."""
_DENIED = ("PermissionError", "FileNotFoundError", "OSError", "ProcessLookupError")


def _refused(name: str, code: str, *errors: str) -> Attack:
    return Attack("relay", name, lambda room: room.refuse(code, *(errors or _DENIED)))


def _answer(kind: str, name: str, code: str, expected: str, how: str) -> Attack:
    return Attack(kind, name, lambda room: room.answer(code, expected, how))


def _signals(room: Room) -> str:
    """Every signal that can be sent goes to the first process, which must stay and go on."""
    code = """
    import os
    kept = 7
    for number in range(1, 65):
        if number != 32 and number != 33:
            os.kill(1, number)
    """
    run(room.sandbox, code)
    return room.answer("print(kept)", "7", "it goes on, and so does the kernel")


def _hold_memory(room: Room) -> str:
    """With the watchman's eyes put out, the memory of many processes would be unbounded."""
    code = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    pair = (ctypes.c_ulong * 2)(3, 3)
    print(libc.prlimit(1, 7, ctypes.byref(pair), None), ctypes.get_errno())
    """
    found = text(run(room.sandbox, code))
    if found != "-1 1":
        raise Escaped(f"its open files can be limited: {found}")
    return "EPERM"


def _flood_of_signals(room: Room) -> str:
    code = "import os, signal\nfor _ in range(200_000): os.kill(1, signal.SIGCHLD)\nprint('genuine')"
    return room.answer(code, "genuine", "it only wakes up")


ATTACKS = [
    Attack("relay", "send it every signal", _signals),
    Attack("relay", "flood it with signals", _flood_of_signals),
    Attack("relay", "take its open files away", _hold_memory),
    _refused("trace it", "import os; os.close(os.open('/proc/1/mem', os.O_RDWR))"),
    _refused("read its environment", "open('/proc/1/environ').read()"),
    _refused("read its open files", "import os; os.listdir('/proc/1/fd')"),
    _refused("write into its pipe to the host", "open('/proc/1/fd/1', 'wb').write(bytes([0, 1, 0, 0, 0, 1, 7]))"),
    _refused("speak in its name", "open('/proc/1/fd/2', 'wb').write(b'forged')"),
    _refused("read its memory", "open('/proc/1/maps').read(1)"),
    _refused("change its folder's root", "import os; os.listdir('/proc/1/root')"),
    _answer(
        "files",
        "see other users than the image's",
        "print([line.split(':')[0] for name in ('passwd', 'group') for line in open('/etc/' + name)])",
        "['root', 'root']",
        "the image's own",
    ),
    _answer(
        "files",
        "see the host's network by sysfs",
        "import os; print(os.listdir('/sys/class/net'))",
        "['lo']",
        "the container's own is empty",
    ),
    _answer(
        "files",
        "write to sysfs or procfs",
        "import os; print([path for path in ('/sys/power/state', '/sys/fs/cgroup/cgroup.procs', '/proc/sys/kernel')"
        " if os.access(path, os.W_OK)])",
        "[]",
        "read-only",
    ),
    _answer(
        "files",
        "find a writable folder beside the workspace",
        "import os\nfound = []\nfor top, folders, _ in os.walk('/'):\n"
        "    folders[:] = [name for name in folders if os.path.join(top, name) not in ('/proc', '/sys')]\n"
        "    if os.access(top, os.W_OK): found.append(top)\n"
        "print(sorted({path if path.startswith('/dev') else '/' + path.split('/')[1] for path in found}))",
        "['/dev/mqueue', '/dev/shm', '/tmp', '/workspace']",
        "tmpfs of limited size only",
    ),
    _answer(
        "environment",
        "find the proxy that the engine passes on",
        "import os; print([name for name in os.environ if 'proxy' in name.lower() and os.environ[name]])",
        "[]",
        "not there",
    ),
    _refused("change the image", "open(__import__('ipykernel').__file__, 'a')"),
    _refused("reach podman", "open('/run/podman/podman.sock')"),
]
