"""Find the process that serves the embedded model, or start it: one for all notebooks of a user.

The server is a process of its own, so that a crash in it spares the reader's kernel, and it outlives the notebook that
started it. Which server lives is told by a lock that falls with the process; `local_child` holds it.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import math
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MissingDependencyError, ProviderUnavailable
from ..folders import cache_dir
from ..model_store.locks import FileLock
from . import local_child

START_S = 120.0
"""Bound of the wait for a server. The largest listed model loads in 20 s from a slow disk."""

_ANSWER_S = 10.0
_POLL_S = 0.1
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH")
_PASSED_ON_WINDOWS = ("SYSTEMROOT", "TEMP", "TMP", "USERPROFILE", "LOCALAPPDATA", "APPDATA")
_children: list[subprocess.Popen[bytes]] = []
"""Servers that this process started; kept, since they outlive the object otherwise and Python would complain."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    port: int
    key: str = field(repr=False)
    pid: int

    @property
    def base_url(self) -> str:
        """For an OpenAI client."""
        return f"http://127.0.0.1:{self.port}/v1"


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one server: one for each model file and number of threads, on this machine."""

    model: Path
    threads: int

    @property
    def _stem(self) -> Path:
        stat = self.model.stat()
        what = (platform.node(), str(self.model), stat.st_size, stat.st_mtime_ns, self.threads, sys.prefix)
        return folder() / hashlib.sha256(repr(what).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def state(self) -> Path:
        """Where the server listens, and its key."""
        return self._stem.with_suffix(".json")

    @property
    def lock(self) -> Path:
        """Held by the server as long as it lives."""
        return self._stem.with_suffix(".lock")

    @property
    def log(self) -> Path:
        """What the server says of errors."""
        return self._stem.with_suffix(".log")


def folder() -> Path:
    """The folder of the servers' files, made for the user alone.

    Raises:
        ProviderUnavailable: it belongs to somebody else.
    """
    path = cache_dir() / "server"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
        raise _unavailable(path.stem, f"{path} belongs to another user.", "Set XDG_CACHE_HOME to a folder of yours.")
    path.chmod(0o700)
    return path


def default_threads() -> int:
    """One for each core that this process may use; a container's share of a large machine is counted too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no such limit
    return max(1, cores)


def ensure(model: Path, *, threads: int | None, idle_s: float, timeout_s: float = START_S) -> Server:
    """The server of `model`, started if there is none.

    Args:
        model: a .gguf file.
        threads: of the server; one for each core if None.
        idle_s: seconds without a request after which a server that is started here ends.
        timeout_s: bound of the wait.

    Raises:
        MissingDependencyError: xllamacpp is not installed.
        ProviderUnavailable: the server could not be started, or not in time.
    """
    place = Place(model.resolve(), threads or default_threads())
    lock = FileLock(place.lock)
    child: subprocess.Popen[bytes] | None = None
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if lock.is_held():
            server = _answering(place)
            if server is not None:
                return server
        elif child is None or child.poll() == local_child.LOST_THE_RACE:
            child = _start(place, idle_s)
        elif child.poll() is not None:
            raise _failed(place, child.returncode)
        time.sleep(_POLL_S)
    raise _unavailable(
        model.stem,
        f"It was not ready within {timeout_s:.0f} seconds; its log is {place.log}.",
        "Try again: it may still be loading. A smaller model loads faster; set AGENT_LOCAL_MODEL.",
    )


def is_alive(model: Path, *, threads: int | None) -> bool:
    """Whether a process serves `model`, or is about to."""
    return FileLock(Place(model.resolve(), threads or default_threads()).lock).is_held()


def stop(model: Path, *, threads: int | None, timeout_s: float = 10.0) -> bool:
    """End the server of `model`; whether there was one. A request under way is cut.

    Raises:
        ProviderUnavailable: it does not end.
    """
    place = Place(model.resolve(), threads or default_threads())
    lock = FileLock(place.lock)
    if not lock.is_held():
        return False
    end = time.monotonic() + timeout_s
    while lock.is_held():
        # The server looks at its file each second. No process is ever ended by number: numbers are used again.
        place.state.unlink(missing_ok=True)
        if time.monotonic() > end:
            raise _unavailable(model.stem, f"It does not end within {timeout_s:.0f} seconds.", "Try again.")
        time.sleep(_POLL_S)
    return True


def last_words(model: Path, *, threads: int | None) -> str:
    """The last error in the server's log, or an empty text."""
    return _last_words(Place(model.resolve(), threads or default_threads()).log)


def _answering(place: Place) -> Server | None:
    """The server that the state file tells of, if it answers to its key."""
    try:
        state = json.loads(place.state.read_text("utf-8"))
        server = Server(port=int(state["port"]), key=str(state["key"]), pid=int(state["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # still loading
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {server.key}"})
        return server if connection.getresponse().status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _start(place: Place, idle_s: float) -> subprocess.Popen[bytes]:
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingDependencyError("The embedded model needs the package xllamacpp.", extra="local")
    order = {
        "model": str(place.model),
        "threads": str(place.threads),
        "idle_s": str(idle_s),
        "key": secrets.token_urlsafe(32),
        "state": str(place.state),
        "lock": str(place.lock),
    }
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", local_child.__file__],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder(),
            env=_environment(os.environ),
            start_new_session=True,  # the Stop button of one notebook must not end the server of all
        )
    finally:
        os.close(log)
    _children.append(child)
    if child.stdin is not None:
        try:
            with child.stdin as pipe:  # not on the command line, nor in the environment: others can read those
                pipe.write(json.dumps(order).encode())
        except BrokenPipeError:
            pass  # it died at once; its exit status tells
    return child


def _environment(full: Mapping[str, str]) -> dict[str, str]:
    """What the server needs of the environment: no keys, no tokens."""
    names = _PASSED_ON + (_PASSED_ON_WINDOWS if sys.platform == "win32" else ())
    return {name: full[name] for name in names if name in full}


def _failed(place: Place, status: int) -> ProviderUnavailable:
    if status < 0:
        why = f"Its process was ended by signal {-status}; 9 is often too little memory."
    else:
        why = _last_words(place.log) or f"Its process ended with status {status}."
    return _unavailable(
        place.model.stem, why, f"Check the file {place.model}; set AGENT_LOCAL_MODEL to use another model."
    )


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    # llama.cpp names the cause in its first error line; what follows is its own way up.
    causes = [line.split(" E ", 1)[1] for line in lines if " E " in line]
    return (causes or [line for line in lines if line.strip()][-1:] or [""])[0][:300].strip()


def _unavailable(model: str, why: str, hint: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        "The server of the embedded model could not be started.", provider="local", model=model, why=why, hint=hint
    )
