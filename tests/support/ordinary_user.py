"""An ordinary user whose Python lies in a home of mode 0700, as pyenv, uv and conda put it. Only root can make one.

The interpreter and the environment of this test run may lie in root's own home: they are bound into the user's, in a
mount namespace that ends with the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sandbox_agent_magic

UID = 54321

_SCRIPT = """
set -e
mount --bind "$1" "$2"; mount --bind "$3" "$4"; mount --bind "$5" "$6"
shift 6
exec setpriv --reuid 54321 --regid 54321 --clear-groups "$@"
"""


@dataclass(frozen=True)
class OrdinaryUser:
    """A home, and commands that run in it."""

    home: Path
    binds: Sequence[Path]

    def python(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        timeout_s: float = 170,
        wrapper: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run the user's Python with `arguments` in the user's home; root runs `wrapper` around it."""
        command = [*map(str, self.binds), str(self.home / "venv" / "bin" / "python"), *arguments]
        return subprocess.run(
            [*wrapper, "unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "home", *command],
            env={
                "HOME": str(self.home),
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.home / "ours"),
                "TMPDIR": str(self.home / "tmp"),
                # A shared libpython is looked up at the path of its build, which this user cannot read.
                "LD_LIBRARY_PATH": str(self.home / "python" / "lib"),
                **(environ or {}),
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Make the user's home, and remove it in the end."""
    home = Path(tempfile.mkdtemp(prefix="ordinary-", dir="/tmp"))
    version = f"python{sysconfig.get_python_version()}"
    base = Path(sys.base_prefix)
    python, packages = home / "python", home / "venv" / "lib" / version / "site-packages"
    ours = home / "ours" / "sandbox_agent_magic"
    try:
        for folder in (python, packages, ours, home / "venv" / "bin", home / "tmp"):
            folder.mkdir(parents=True)
        interpreter = base / "bin" / version if base.is_relative_to("/usr") else python / "bin" / version
        (home / "venv" / "bin" / "python").symlink_to(interpreter)
        (home / "venv" / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
        own(home)
        home.chmod(0o700)
        source = Path(sandbox_agent_magic.__file__).parent
        yield OrdinaryUser(home, (base, python, Path(sysconfig.get_path("purelib")), packages, source, ours))
    finally:
        shutil.rmtree(home)


def own(path: Path) -> None:
    """Give a folder and all in it to the user."""
    for each in (path, *path.rglob("*")):
        os.chown(each, UID, UID, follow_symlinks=False)
