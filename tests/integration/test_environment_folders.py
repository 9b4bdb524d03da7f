"""What a sandbox sees of a Python environment that people made in the middle of their own files."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

import sandbox_agent_magic

pytestmark = pytest.mark.integration

INSIDE = """
import json, os, sys
def seen(path):
    try: return open(path).read()
    except OSError: return None
print(json.dumps([json.__name__, *map(seen, sys.argv[1:])]))
"""
START = f"""
import contextlib, os, subprocess, sys
from pathlib import Path
from sandbox_agent_magic.sandbox import bubblewrap, landlock, sandbox_uid
from sandbox_agent_magic.sandbox.limits import SandboxLimits
from sandbox_agent_magic.sandbox.plan import Plan, environment_folders
room, *paths = map(Path, sys.argv[1:])
uid = sandbox_uid()
for launcher in [*bubblewrap.find()[0][:1], *landlock.find(landlock.abi(), own_user=uid is not None)[0]]:
    place = room / type(launcher).__module__
    for name in ("work", "tmp", "stage"):
        (place / name).mkdir(parents=True)
        if uid is not None and name != "stage":
            os.chown(place / name, uid, uid)
    plan = Plan(place / "work", SandboxLimits(), environment_folders(), place / "tmp", uid, place / "stage")
    with contextlib.ExitStack() as closing:
        start = launcher.start(plan, list(map(str, paths)), closing)
        done = subprocess.run(start.arguments, input={INSIDE!r}, pass_fds=start.descriptors, env=start.environment,
                              cwd="/", capture_output=True, text=True, timeout=60)
    print(done.stdout.strip() or done.stderr)
"""


def seen_from(project: Path, *paths: Path, home: Path) -> list[str]:
    """What each kind of sandbox, started by the Python of a project's folder, reads from the paths."""
    ours = Path(sandbox_agent_magic.__file__).parents[1]
    environ = {**os.environ, "PYTHONPATH": f"{ours}:{sysconfig.get_path('purelib')}", "HOME": str(home)}
    with tempfile.TemporaryDirectory() as room:  # not `tmp_path`, where another user than root cannot go
        os.chmod(room, 0o755)
        command = [str(project / "bin" / "python"), "-c", START, room, *map(str, paths)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an environment right in it, as `python -m venv .` makes one, and files of its owner."""
    folder = tmp_path / "project"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (folder / ".env").write_text("OPENAI_API_KEY=secret")
    (folder / "notes.txt").write_text("private")
    (folder / "pip.conf").write_text("password")
    (folder / "lib" / "library.txt").write_text("public")
    return folder


def test_files_of_the_folder_that_an_environment_was_made_in_stay_unseen(project: Path, tmp_path: Path) -> None:
    paths = [project / name for name in (".env", "notes.txt", "lib/library.txt")]
    kinds = seen_from(project, *paths, home=tmp_path / "nobody")
    assert set(kinds) == {'["json", null, null, "public"]'}


def test_its_pip_conf_stays_unseen_too(project: Path, tmp_path: Path) -> None:
    kinds = seen_from(project, project / "pip.conf", home=tmp_path / "nobody")
    assert kinds
    assert all("password" not in kind for kind in kinds)


def test_of_an_environment_that_is_the_home_folder_only_its_own_parts_are_seen(project: Path) -> None:
    (project / "pyvenv.cfg").rename(project / "bin" / "pyvenv.cfg")  # only its place counts here, not its folder
    (project / ".env").unlink()
    paths = [project / "notes.txt", project / "lib" / "library.txt"]
    kinds = seen_from(project, *paths, home=project)
    assert set(kinds) == {'["json", null, "public"]'}
