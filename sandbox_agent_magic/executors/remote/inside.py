"""The far end: runs in the remote kernel, which the host sends it to as text; the package is not there.

It holds the folder that the code works in, and a mark by which a kernel that was replaced in silence is noticed. All
that comes in and goes out is JSON.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
import tempfile
import types

NAME = "_sandbox_agent_remote"
MAX_FILES = 10_000


class Far:
    """The kernel's side of one executor."""

    def __init__(self, generation: str, folder: str, own: bool) -> None:
        self.generation = generation
        self.own = own
        """The folder is ours: to make, and to remove at the end."""
        self.fresh = own and not os.path.isdir(folder)
        if self.fresh:
            folder = tempfile.mkdtemp(prefix="sandbox-agent-")
        self.folder = folder or os.getcwd()
        os.chdir(self.folder)
        self.known = self.walk()

    def walk(self) -> dict[str, tuple[int, int]]:
        """Names of regular files to size and time of change."""
        found: dict[str, tuple[int, int]] = {}
        for current, folders, files in os.walk(self.folder):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(current, name)
                try:
                    info = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(info.st_mode):
                    found[os.path.relpath(path, self.folder).replace(os.sep, "/")] = info.st_size, info.st_mtime_ns
                if len(found) >= MAX_FILES:
                    return found
        return found

    def changes(self) -> dict[str, object]:
        """Files that are new or changed since the last call."""
        before, self.known = self.known, self.walk()
        changed = [[name, now[0]] for name, now in self.known.items() if before.get(name) != now]
        return {"generation": self.generation, "changed": changed}

    def begin(self) -> dict[str, object]:
        """What was made, and whether code can be refused here (in a kernel of IPython's that knows its requests)."""
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        refuses = hasattr(shell, "ast_transformers") and hasattr(getattr(shell, "kernel", None), "get_parent")
        return {"folder": self.folder, "fresh": self.fresh, "refuses": refuses}

    def same(self) -> dict[str, object]:
        """Who this is."""
        return {"generation": self.generation}

    def list(self) -> dict[str, object]:
        """All files."""
        return {"files": [[name, size] for name, (size, _) in self.walk().items()]}

    def size(self, name: str) -> dict[str, object]:
        """Bytes of a regular file; None where there is none."""
        path = os.path.join(self.folder, name)
        return {"size": os.path.getsize(path) if os.path.isfile(path) else None}

    def read(self, name: str, offset: int, size: int) -> dict[str, object]:
        """A piece of a file."""
        with open(os.path.join(self.folder, name), "rb") as file:
            file.seek(offset)
            return {"data": base64.b64encode(file.read(size)).decode()}

    def write(self, name: str, offset: int, data: str, last: bool) -> dict[str, object]:
        """A piece of a file, beside its place until the last one has come."""
        path = os.path.join(self.folder, name)
        part = path + ".part"
        if offset == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(part, "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(base64.b64decode(data))
            written = file.tell()
        if last:
            os.replace(part, path)
            info = os.lstat(path)
            self.known[name] = info.st_size, info.st_mtime_ns
        return {"size": written}

    def environ(self, values: dict[str, str]) -> dict[str, object]:
        """Set environment variables."""
        os.environ.update(values)
        return {}

    def end(self) -> dict[str, object]:
        """Remove the folder, if it is ours."""
        if self.own:
            os.chdir(os.path.dirname(self.folder))
            shutil.rmtree(self.folder, ignore_errors=True)
        return {}


def install(generation: str, folder: str, own: bool) -> None:
    """Put the far end where requests find it, whatever the code calls its variables."""
    module = types.ModuleType(NAME)
    far = Far(generation, folder, own)

    def call(name: str, arguments: str = "{}") -> str:
        """One request, and its answer as JSON; an error of the system is an answer too."""
        try:
            return json.dumps(getattr(far, name)(**json.loads(arguments)))
        except OSError as error:
            return json.dumps({"error": error.strerror or str(error)})

    module.call = call  # type: ignore[attr-defined]
    sys.modules[NAME] = module
