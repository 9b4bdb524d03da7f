"""The far end's second half: runs in the sandbox, after `remote/inside.py`, which looks after files.

An SDK gives back only what code prints: so each answer is printed, behind a word that was chosen for it, and that what
the reader's code prints meanwhile cannot guess.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile

PIP_S = 600


def pip(packages: list[str]) -> dict[str, object]:
    """Install wheels; what was added, or why not."""
    report = os.path.join(tempfile.mkdtemp(prefix="pip-"), "report")
    options = [
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
        "--no-color",
        "--report",
        report,
    ]
    try:
        command = [sys.executable, "-m", "pip", "install", *options, "--", *packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return {"problem": f"pip took more than {PIP_S} seconds"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        return {"problem": " ".join(lines[-2:])[-500:] or f"pip ended with {done.returncode}"}
    with open(report) as file:
        found = [each["metadata"] for each in json.load(file)["install"]]
    importlib.invalidate_caches()
    return {"added": [f"{each['name']}=={each['version']}" for each in found]}


def begun(self: object) -> dict[str, object]:
    """What was made, and who to interrupt."""
    return {"folder": self.folder, "pid": os.getpid()}  # type: ignore[attr-defined]


def make_room(self: object, name: str) -> dict[str, object]:
    """The folders of a file that will come."""
    os.makedirs(os.path.dirname(os.path.join(self.folder, name)), exist_ok=True)  # type: ignore[attr-defined]
    return {"ok": True}


def came(self: object, name: str) -> dict[str, object]:
    """Bytes of a file that came: it is no news."""
    path = os.path.join(self.folder, name)  # type: ignore[attr-defined]
    info = os.lstat(path)
    self.known[name] = info.st_size, info.st_mtime_ns  # type: ignore[attr-defined]
    return {"size": info.st_size}


def begin(name: str, generation: str, folder: str) -> None:
    """Put the far end into the folder that a sandbox keeps for this package, and give it a voice."""
    before = getattr(sys.modules.get(name), "folder", "")  # of another notebook, which used this context
    folder = folder or before or os.path.join(os.getcwd(), "sandbox-agent")
    os.makedirs(folder, exist_ok=True)
    for method in (begun, make_room, came):
        setattr(Far, method.__name__, method)  # type: ignore[name-defined]  # noqa: F821 - of remote/inside.py
    install(generation, folder, False)  # type: ignore[name-defined]  # noqa: F821 - of remote/inside.py
    module = sys.modules[name]
    module.folder = folder  # type: ignore[attr-defined]
    out = sys.stdout  # as it is now: code may put something else in its place

    def say(word: str, what: str, arguments: str = "{}") -> None:
        if what == "pip":
            try:
                answer = json.dumps(pip(**json.loads(arguments)))
            except (OSError, ValueError, LookupError) as error:
                answer = json.dumps({"problem": str(error)})
        else:
            answer = module.call(what, arguments)
        out.write("\n" + word + answer + "\n")
        out.flush()

    module.say = say  # type: ignore[attr-defined]
