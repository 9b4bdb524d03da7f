"""The command line that starts a container: everything that isolates stands here."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from ...errors import WorkspaceError
from ...sandbox import SandboxLimits
from .engine import LABEL, Engine

WORKSPACE = "/workspace"
HOME = "/tmp/home"  # noqa: S108 - inside
_HEADROOM_BYTES = 128 << 20
"""For the relay, and for what a burst may take between two of its looks."""
_OTHER_TASKS = 8
"""The relay's, beside what code may start."""
_MAX_TASKS = 1 << 14
_PASSWD_SINCE = 4
"""Version of podman."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
_BOOTSTRAP = """
import os, sys
if sys.version_info < (3, 10): sys.exit(82)
def read(size):
    content = b""
    while len(content) < size:
        piece = os.read(0, size - len(content))
        if not piece: os._exit(0)
        content += piece
    return content
exec(compile(read(int.from_bytes(read(4), "big")), "relay", "exec"), {"__name__": "__main__"})
"""
OLD_PYTHON = 82
"""Exit status of a Python that is too old."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be started."""

    image: str
    name: str
    """Of the container."""
    workspace: Path
    limits: SandboxLimits
    uid: int | None = None
    """As root: the user to run as, to whom the workspace belongs; None: the user who asks."""
    volumes: tuple[str, ...] = ()
    """Folders that the image declares as volumes, which would be writable and unbounded."""


def run_command(engine: Engine, wish: Wish) -> list[str]:
    """The whole command line.

    Raises:
        WorkspaceError: the workspace's name cannot be said in it.
    """
    limits = wish.limits
    found = [
        *(engine.path, "run", "--rm", "--interactive", "--pull=never", f"--name={wish.name}"),
        *(
            f"--label={LABEL}={socket.gethostname()}",
            "--log-driver=none",
            "--no-healthcheck",
            "--init=false",
            "--stop-timeout=0",
        ),
        *("--network=none", "--ipc=private", "--hostname=sandbox", "--read-only", "--cap-drop=ALL"),
        "--security-opt=no-new-privileges",
        *_user(engine, wish),
        *_podman(engine),
        *_mounts(engine, wish),
        *_limits(engine, limits),
    ]
    for name in _PROXIES:  # both engines pass them on by themselves, with the passwords in them
        found += [f"--env={name}=", f"--env={name.lower()}="]
    return [*found, "--workdir=/", "--entrypoint=python3", wish.image, "-I", "-u", "-c", _BOOTSTRAP]


def _user(engine: Engine, wish: Wish) -> list[str]:
    """An ordinary user inside, to whom the workspace belongs."""
    if os.name != "posix":
        return ["--user=1000:1000"]  # the virtual machine lets everybody write
    uid, gid = (wish.uid, wish.uid) if wish.uid is not None else (os.getuid(), os.getgid())
    if engine.rootless and os.getuid() != 0:
        # A rootless Docker knows one mapping only: its root is the reader, with the reader's rights.
        return ["--userns=keep-id", f"--user={uid}:{gid}"] if engine.podman else ["--user=0:0"]
    return [f"--user={uid}:{gid}"]


def _podman(engine: Engine) -> list[str]:
    """What podman does by default, or its configuration may say, and Docker does not know."""
    if not engine.podman:
        return []
    found = ["--pid=private", "--uts=private", "--read-only-tmpfs=false", "--image-volume=ignore", "--no-hosts"]
    if engine.major >= _PASSWD_SINCE:
        found.append("--passwd=false")  # else it writes down the reader's name
    return found if engine.remote else [*found, "--http-proxy=false", "--env-host=false"]


def _mounts(engine: Engine, wish: Wish) -> list[str]:
    path = str(wish.workspace)
    relabelled = engine.selinux and not engine.remote
    forbidden = ',"\n' + (":" if relabelled and not engine.podman else "")
    if any(letter in path for letter in forbidden):
        raise WorkspaceError(
            f"The folder {path!r} cannot be a container's workspace.",
            why="Its name has a comma, a quotation mark, a colon or a line break in it.",
            hint="Name another one in AGENT_WORKSPACE.",
        )
    bind = f"--mount=type=bind,source={path},target={WORKSPACE}"
    if relabelled:  # else SELinux keeps the container from its own folder
        bind = f"{bind},relabel=private" if engine.podman else f"--volume={path}:{WORKSPACE}:Z"
    tmp = wish.limits.tmp_bytes
    found = [bind, f"--tmpfs=/tmp:rw,exec,nosuid,nodev,size={tmp},mode=1777", f"--shm-size={tmp}"]
    return found + [f"--tmpfs={folder}:ro,size=64k" for folder in wish.volumes if not engine.podman]


def _limits(engine: Engine, limits: SandboxLimits) -> list[str]:
    """What control groups bound, where there are some; the relay and rlimits bound the same more closely."""
    memory = limits.memory_bytes + limits.memory_bytes // 8 + 2 * limits.tmp_bytes + _HEADROOM_BYTES
    tasks = _tasks()
    found = [f"--ulimit=nofile={limits.open_files}:{limits.open_files}", f"--ulimit=nproc={tasks}:{tasks}"]
    found.append("--ulimit=core=0:0")
    if engine.memory:
        found += [f"--memory={memory}", f"--memory-swap={memory}"]
    if engine.processes:
        found.append(f"--pids-limit={limits.processes + _OTHER_TASKS}")
    if engine.cpus:
        found.append(f"--cpus={min(limits.threads, engine.cpus)}")
    return found


def _tasks() -> int:
    """No more than this user may have: the limit counts what runs outside too, so the kernel's start sets it anew."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError):
            hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            return min(hard, _MAX_TASKS) if hard != resource.RLIM_INFINITY else _MAX_TASKS
    return _MAX_TASKS
