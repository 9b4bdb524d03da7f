"""Attacks on what surrounds the sandbox: files, the environment, processes, sockets, namespaces and mounts."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from .room import SECRET, Attack, Escaped, Room

DENIED = ("FileNotFoundError", "PermissionError", "OSError", "NotADirectoryError")


def _reading(name: str, path: str) -> Attack:
    return Attack("files", f"read {name}", lambda room: room.refuse(f"open({path!r}, 'rb').read(1)", *DENIED))


def _writing(folder: str) -> Attack:
    def attempt(room: Room) -> str:
        how = room.refuse(f"open({folder!r} + '/planted', 'w')", *DENIED)
        if os.path.lexists(f"{folder}/planted"):
            raise Escaped(f"a file lies in {folder}")
        return how

    shown = folder if folder.count("/") < 3 else "the Python environment"
    return Attack("files", f"write to {shown}", attempt)


def _code(kind: str, name: str, code: str, *errors: str) -> Attack:
    return Attack(kind, name, lambda room: room.refuse(code, *errors))


def _answer(kind: str, name: str, code: str, expected: str, how: str) -> Attack:
    return Attack(kind, name, lambda room: room.answer(code, expected, how))


_WRITE = "import os; os.write(os.open('{}', os.O_WRONLY), b'{}')"
SEARCH_OPEN_FILES = f"""
import os
found = []
for name in os.listdir('/proc/self/fd'):
    try:
        if {SECRET[:8]!r}.encode() in os.pread(int(name), 100, 0): found.append(name)
    except OSError: pass
print(found)
"""
SEARCH_MEMORY = f"""
import os, glob
half, rest = {SECRET[:7]!r}, {SECRET[7:]!r}
found = []
for path in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline'):
    try:
        if (half + rest).encode() in open(path, 'rb').read(): found.append(path)
    except OSError: pass
found += [name for name, value in os.environ.items() if half + rest in value]
print(found)
"""
WALK_UP = f"""
import os
found = []
for start in ('.', '/proc/self/cwd', '/proc/self/root', '/proc/1/root', '/proc/1/cwd'):
    for up in ('', '/..', '/../..', '/../../../..'):
        try:
            for name in ('secret', '.env'):
                if open(start + up + '/' + name).read().startswith({SECRET[:6]!r}): found.append(start + up)
        except OSError: pass
print(found)
"""


def _secret(room: Room) -> str:
    return room.refuse(f"open({str(room.folder / 'secret')!r})", *DENIED)


def _env_file(room: Room) -> str:
    return room.refuse(f"open({str(room.folder / '.env')!r})", *DENIED)


def _own_sandboxes_folder(room: Room) -> str:
    path = room.sandbox.workspace.path.parent
    return room.refuse(f"import os; os.listdir({str(path / 'ordinary')!r})", *DENIED)


def _masked(room: Room) -> str:
    secret = Path(sys.prefix, ".condarc")
    secret.write_text(SECRET)
    executor = room.another()
    try:
        return replace(room, sandbox=executor).refuse(f"print(open({str(secret)!r}).read()[0])", *DENIED, "IndexError")
    finally:
        executor.shutdown()
        secret.unlink()


FILES = [
    Attack("files", "read a file of the host that everybody may read", _secret),
    Attack("files", "read the .env beside the notebook", _env_file),
    Attack("files", "read a password in the environment's folder", _masked),
    Attack("files", "list the host's temporary folder", _own_sandboxes_folder),
    _reading("/etc/shadow", "/etc/shadow"),
    _reading("the host's user list", "/etc/group"),
    _reading("the reader's home", os.path.expanduser("~/.bashrc")),
    _reading("root's keys", "/root/.ssh/id_rsa"),
    _reading("a disk", "/dev/sda"),
    _reading("the machine's memory", "/proc/kcore"),
    _reading("the kernel's log", "/dev/kmsg"),
    _reading("the host's root by the first process", "/proc/1/root/etc/hostname"),
    _reading("devices by sysfs", "/sys/class/net/lo/address"),
    _reading("control groups", "/sys/fs/cgroup/cgroup.procs"),
    _answer("files", "leave by .. and by /proc", WALK_UP, "[]", "nothing found"),
    _answer("files", "read a descriptor that was left open", SEARCH_OPEN_FILES, "[]", "no such descriptor"),
    *map(_writing, ["/", "/usr", "/usr/lib", "/etc", "/dev", "/proc", sys.prefix]),
    _code("files", "change the kernel's settings", _WRITE.format("/proc/sys/kernel/core_pattern", "|/x"), *DENIED),
    _code("files", "trigger the machine's keys", _WRITE.format("/proc/sysrq-trigger", "h"), *DENIED),
    _code("files", "change the Python that runs next time", f"open({sys.executable!r}, 'r+b')", *DENIED),
    _code("files", "make a device", "import os; os.mknod('disk', 0o60666, os.makedev(8, 0))", *DENIED),
    _code("files", "own a file of root", "import os; open('o', 'w'); os.chown('o', 0, 0)", *DENIED),
    _code(
        "files",
        "become root by a program",
        "import subprocess; subprocess.run(['su', '-c', 'id'], check=True, capture_output=True, stdin=-3)",
        "CalledProcessError",
        "FileNotFoundError",
        "PermissionError",
    ),
]

ENVIRONMENT = [
    _answer("environment", "find a key in any process's environment", SEARCH_MEMORY, "[]", "it is not there"),
    _answer(
        "environment",
        "hold capabilities",
        "print(*{line.split()[1] for line in open('/proc/self/status') "
        "if line.startswith(('CapInh', 'CapPrm', 'CapEff', 'CapAmb'))})",
        "0" * 16,
        "none",
    ),
    _answer(
        "environment",
        "gain privileges by a program",
        "print(*[line.split()[1] for line in "
        "open('/proc/self/status') if line.startswith(('NoNewPrivs', 'Seccomp:'))])",
        "1 2",
        "no_new_privs, a filter",
    ),
]


def _kill_victim(room: Room) -> str:
    how = room.refuse(f"import os; os.kill({room.victim.pid}, 9)", "ProcessLookupError", "PermissionError")
    if room.victim.poll() is not None:
        raise Escaped("the process was killed")
    return how


def _kill_all(room: Room) -> str:
    # In a child, since the kernel of the sandbox is in reach too.
    room.refuse(
        "import os, signal; signal.signal(15, signal.SIG_IGN); os.kill(-1, 15); raise ValueError",
        "ValueError",
        "ProcessLookupError",
    )
    if room.victim.poll() is not None:
        raise Escaped("a process of the host was killed")
    return "only its own processes were in reach"


def _see_processes(room: Room) -> str:
    code = """
    import os
    try: print(sum(name.isdigit() for name in os.listdir('/proc')) <= 3)
    except PermissionError: print(True)
    """
    return room.answer(code, "True", "it sees its own only")


PROCESSES = [
    Attack("processes", "see processes of the host", _see_processes),
    Attack("processes", "kill a process of the same user", _kill_victim),
    Attack("processes", "kill everything in reach", _kill_all),
    _code(
        "processes",
        "open a process of the host by pidfd",
        "import os; os.pidfd_open(1 << 21)",
        "ProcessLookupError",
        "OSError",
    ),
    _code("processes", "raise its own priority", "import os; os.nice(-10)", "PermissionError"),
    _code(
        "processes",
        "raise its own limits",
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))",
        "ValueError",
        "PermissionError",
    ),
    _code("processes", "become another user", "import os; os.setuid(0)", "PermissionError", "OSError"),
]


def _connect(room: Room, target: str, family: str = "AF_UNIX") -> str:
    code = f"import socket; s = socket.socket(socket.{family}); s.settimeout(2); s.connect({target})"
    return room.refuse(
        code, "ConnectionRefusedError", "OSError", "FileNotFoundError", "PermissionError", "TimeoutError"
    )


def _family(name: str, number: int, kind: int = 3) -> Attack:
    return _code(
        "sockets",
        f"make a socket of family {name}",
        f"import socket; socket.socket({number}, {kind}, 0)",
        "OSError",
        "PermissionError",
    )


SOCKETS = [
    Attack("sockets", "reach a port of the host", lambda r: _connect(r, repr(r.server.getsockname()), "AF_INET")),
    Attack("sockets", "reach another machine", lambda r: _connect(r, "('192.0.2.1', 80)", "AF_INET")),
    Attack("sockets", "reach another machine by IPv6", lambda r: _connect(r, "('2001:db8::1', 80)", "AF_INET6")),
    Attack("sockets", "reach the cloud's metadata", lambda r: _connect(r, "('169.254.169.254', 80)", "AF_INET")),
    _code("sockets", "ask a name server", "import socket; socket.getaddrinfo('example.org', 80)", "gaierror"),
    _code(
        "sockets", "send a datagram", "import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 53))", "OSError"
    ),
    _code(
        "sockets",
        "fetch a page",
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=2)",
        "URLError",
    ),
    Attack("sockets", "connect to a socket file of the host", lambda r: _connect(r, repr(str(r.folder / "socket")))),
    Attack(
        "sockets", "connect to an abstract socket of the host", lambda r: _connect(r, repr(f"\0attack-{os.getpid()}"))
    ),
    Attack("sockets", "connect to Docker", lambda r: _connect(r, "'/var/run/docker.sock'")),
    Attack("sockets", "connect to D-Bus", lambda r: _connect(r, "'/run/dbus/system_bus_socket'")),
    _family("netlink", 16),
    _family("packet", 17),
    _family("vsock", 40, 1),
    _family("bluetooth", 31),
    _family("alg", 38, 5),
    _family("xdp", 44),
    _family("tipc", 30),
    _family("can", 29),
    _family("raw IP", 2),
    _code("sockets", "make pairs of a strange family", "import socket; socket.socketpair(16, 3)", "OSError"),
]


def _program(name: str, command: list[str]) -> Attack:
    code = f"import subprocess; subprocess.run({command!r}, check=True, capture_output=True, timeout=5)"
    return _code("namespaces", name, code, "CalledProcessError", "FileNotFoundError", "PermissionError")


NAMESPACES = [
    _program("make a user namespace by a program", ["unshare", "--user", "--map-root-user", "true"]),
    _program("mount by a program", ["mount", "-t", "tmpfs", "none", "/tmp"]),
    _program("remount by a program", ["mount", "-o", "remount,rw", "/usr"]),
    _program("unmount a mask by a program", ["umount", "/dev"]),
    _program("enter the namespaces of the first process", ["nsenter", "--all", "--target", "1", "true"]),
    _program("start a sandbox of its own", ["bwrap", "--ro-bind", "/", "/", "true"]),
    _code("namespaces", "map other users", _WRITE.format("/proc/self/uid_map", "0 0 1"), *DENIED),
]

BY_NAMESPACES = [
    _answer(
        "environment", "read the host's name", "import socket; print(socket.gethostname())", "sandbox", "a made-up name"
    ),
]
"""What only namespaces hide."""
ATTACKS = [*FILES, *ENVIRONMENT, *PROCESSES, *SOCKETS, *NAMESPACES]
