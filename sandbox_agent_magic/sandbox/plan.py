"""What a sandbox of either kind is to see and to know: the system, the interpreter, nothing of the reader's secrets."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .limits import SandboxLimits

SYSTEM = (
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

MASKED = (
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

_PARTS = ("bin", "include", "lib", "lib32", "lib64", "libexec", "pyvenv.cfg", "sbin", "share")
"""Of an environment in a folder where people keep other things too."""
_PEOPLES = (".env", ".git", ".ssh", "pyproject.toml", "pyvenv.cfg")
"""What shows such a folder. A virtual environment may have been made in a project's (`python -m venv .`)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the start of a sandbox depends on, whichever launcher makes it."""

    workspace: Path
    limits: SandboxLimits
    folders: tuple[Path, ...]
    """Read-only, seen inside where they are outside."""
    tmp: Path
    """An empty folder for temporary files, where the launcher has none of its own."""
    uid: int | None = None
    """As root: the user id to change to."""
    stage: Path | None = None
    """As root: an empty folder that all can enter, for what lies where the user `uid` cannot go."""
    layer: Path | None = None
    """Folder of installed packages, read-only; what appears in it outside appears inside."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Big files of the reader, read-only, by the names that they have inside."""

    def hidden(self) -> list[Path]:
        """As root: what the user `uid` cannot walk to, of all that the sandbox is to see."""
        if self.uid is None:
            return []
        layer = [self.layer] if self.layer else []
        seen = [*self.folders, self.workspace, *layer, *self.files.values()]
        return [path for path in dict.fromkeys(seen) if not open_to_all(path)]


@dataclass(frozen=True, slots=True)
class Start:
    """How to start a process."""

    arguments: list[str]
    environment: Mapping[str, str]
    descriptors: tuple[int, ...] = ()
    """To be inherited."""


class Launcher(Protocol):
    """Makes a sandbox and runs Python in it, which reads its program from stdin."""

    @property
    def probes(self) -> tuple[str, ...]:
        """What the program has to try; none may succeed."""

    @property
    def supervised(self) -> bool:
        """Whether SIGTERM to the first process ends all of the sandbox; otherwise SIGKILL does."""

    def start(self, plan: Plan, arguments: Sequence[str], closing: ExitStack) -> Start:
        """How to start Python on a program with these `arguments`; what `closing` closes may be closed then."""

    def layer(self, plan: Plan) -> str:
        """Where the folder of installed packages appears inside; empty where there is none."""


def pipe(closing: ExitStack, content: bytes) -> int:
    """A descriptor to read `content` from, closed by `closing`. The content must fit into a pipe (64 KiB)."""
    reader, writer = os.pipe()
    closing.callback(os.close, reader)
    os.write(writer, content)
    os.close(writer)
    return reader


def interpreter() -> Path:
    """The running Python, by a path that exists inside as well: it may have been started as `../venv/bin/python`."""
    path = Path(sys.executable)
    return Path(os.path.realpath(path.parent), path.name) if ".." in path.parts else path


def environment_folders() -> tuple[Path, ...]:
    """Folders of the running interpreter, outermost first, without those below `/usr` and what else lies beside it."""
    executable = interpreter()
    wanted = [Path(sys.prefix), Path(sys.base_prefix), executable.resolve().parent.parent]
    site = sys.modules.get("site")
    user_site = getattr(site, "USER_SITE", None) if getattr(site, "ENABLE_USER_SITE", False) else None
    found = [Path("/usr")]
    for folder in sorted({Path(os.path.normpath(path)) for path in wanted}, key=lambda path: len(path.parts)):
        if os.path.isdir(folder) and not any(folder.is_relative_to(other) for other in found):
            found += _parts_of(folder)
    if user_site and user_site in sys.path and os.path.isdir(user_site):
        found.append(Path(os.path.normpath(user_site)))
    return tuple(found[1:])


def _parts_of(folder: Path) -> list[Path]:
    """What of an environment's folder is the interpreter's: all of it, unless people keep other things there too."""
    home = Path(os.path.expanduser("~")).resolve()
    if not home.is_relative_to(folder.resolve()) and not any(os.path.lexists(folder / name) for name in _PEOPLES):
        return [folder]
    return [path for name in _PARTS if os.path.exists(path := folder / name)]


def masked(folders: Iterable[Path]) -> list[Path]:
    """What exists in the interpreter's `folders`, and in `/usr/local`, of the places where secrets are kept."""
    roots = {*folders, Path(sys.prefix), Path(sys.base_prefix), Path("/usr/local")}
    return sorted(path for root in roots for name in MASKED if os.path.exists(path := root / name))


def open_to_all(path: Path) -> bool:
    """Whether every user can walk to `path`, and into it unless it belongs to another user than root."""
    info = path.stat()
    way = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return way and (info.st_mode & stat.S_IXOTH != 0 or info.st_uid != 0)


def variables(limits: SandboxLimits, *, tmp: str, home: str) -> dict[str, str]:
    """The whole environment inside.

    Args:
        limits: of the sandbox.
        tmp: folder for temporary files.
        home: the home folder.
    """
    threads = str(limits.threads)
    found = {
        "PATH": f"{interpreter().parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "USER": "user",
        "TMPDIR": tmp,
        "LANG": "C.UTF-8",
        "TERM": "xterm-color",
        "IPYTHONDIR": f"{home}/.ipython",
        "MPLCONFIGDIR": f"{home}/.matplotlib",
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
        found["PYTHONUSERBASE"] = user_base
    if "TZ" in os.environ:
        found["TZ"] = os.environ["TZ"]
    return found
