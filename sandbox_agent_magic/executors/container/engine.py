"""Docker or podman, by their command line: which one is here, what it can do, and what it says when it cannot."""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import SandboxUnavailable

AUTO = ("podman", "docker")
"""What `auto` looks for, in this order."""
LABEL = "sandbox_agent_magic.host"
"""Of each container: the name of the host that it belongs to; the process is in its own name."""
_PREFIX = "sandbox-agent-"
_NAME = re.compile(rf"{_PREFIX}(\d{{1,10}})-[0-9a-f]{{8}}")
_ASK_S = 30.0
_GET_ONE = "Install podman (podman.io) or Docker, or name one in AGENT_CONTAINER_ENGINE in the environment."
_START_IT = (
    "Start it: Docker Desktop, `podman machine start`, or `sudo systemctl start docker`; on Linux you must be allowed "
    "to use Docker (group docker), or take podman, which needs no daemon."
)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers."""

    path: str
    podman: bool
    """podman; else Docker, or what speaks its language."""
    version: str = ""
    rootless: bool = False
    """It runs as the reader, not as root."""
    remote: bool = False
    """podman in a virtual machine, as on macOS and Windows."""
    selinux: bool = False
    memory: bool = True
    """Whether it bounds memory, by control groups."""
    processes: bool = True
    cpus: int = 0
    """How many there are, if their use can be bounded; else 0."""

    @property
    def major(self) -> int:
        """The first number of its version; 0 if there is none."""
        number = re.match(r"\d{1,4}", self.version)
        return int(number[0]) if number else 0

    @property
    def label(self) -> str:
        """What the reader should know about how it isolates; empty where nothing is missing."""
        missing = [name for name, there in (("memory", self.memory), ("processes", self.processes)) if not there]
        bounded = " and ".join(missing)
        return f"{bounded} bounded from inside, without control groups" if missing else ""

    def __str__(self) -> str:
        return f"{'podman' if self.podman else 'Docker'} {self.version}".strip()

    def ask(self, *arguments: str, timeout_s: float = _ASK_S) -> subprocess.CompletedProcess[str]:
        """Run one of its commands to the end; a failure is in the result, and so is its not ending in time."""
        return _run([self.path, *arguments], timeout_s)

    def inspect(self, image: str) -> Mapping[str, object] | None:
        """What it knows of an image; None where it has none of that name."""
        asked = self.ask("image", "inspect", image)
        with suppress(ValueError, IndexError):
            found = json.loads(asked.stdout)[0] if asked.returncode == 0 else None
            return found if isinstance(found, dict) else None
        return None

    def remove(self, name: str) -> None:
        """Kill and remove a container, if it is there."""
        self.ask("rm", "--force", name)

    def leftovers(self) -> Iterator[str]:
        """Names of our containers on this host whose process has ended without ending them."""
        asked = self.ask("ps", "--all", "--filter", f"label={LABEL}={socket.gethostname()}", "--format", "{{.Names}}")
        for name in asked.stdout.split():
            named = _NAME.fullmatch(name)
            if named and not _alive(int(named[1])):
                yield name


def new_name() -> str:
    """A name for a container of this process."""
    return f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


@functools.cache
def find(wanted: str) -> Engine:
    """The engine of that name or path; for `auto`, the first of `AUTO` that answers.

    Raises:
        SandboxUnavailable: none is there, or none answers.
    """
    names = AUTO if wanted == "auto" else (wanted,)
    found = [path for name in names if (path := shutil.which(os.path.expanduser(name)))]
    if not found:
        named = f"AGENT_CONTAINER_ENGINE is {wanted}" if wanted != "auto" else "neither podman nor docker is in PATH"
        raise SandboxUnavailable("No container engine is found.", executor="container", why=f"{named}.", hint=_GET_ONE)
    refusals = []
    for path in found:
        asked = _run([path, "info", "--format", "{{json .}}"], _ASK_S)
        if asked.returncode == 0:
            with suppress(ValueError):
                told = json.loads(asked.stdout)
                if isinstance(told, dict):
                    return _engine(path, told)
        refusals.append(f"{path}: {last_line(asked.stderr) or f'ended with status {asked.returncode}'}")
    raise SandboxUnavailable(
        f"The container engine does not answer: {', '.join(Path(path).name for path in found)}.",
        executor="container",
        why=" ".join(refusals),
        hint=_START_IT,
    )


def last_line(text: str) -> str:
    """The last line that says something, shortened."""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")


def _engine(path: str, told: Mapping[str, object]) -> Engine:
    host, version = (_table(told.get(key)) for key in ("host", "version"))
    if host:
        security = _table(host.get("security"))
        controllers = host.get("cgroupControllers")
        controllers = controllers if isinstance(controllers, list) else []
        return Engine(
            path,
            podman=True,
            version=str(version.get("Version", "")),
            rootless=security.get("rootless") is True,
            remote=host.get("serviceIsRemote") is True,
            selinux=security.get("selinuxEnabled") is True,
            memory="memory" in controllers,
            processes="pids" in controllers,
            cpus=_number(host.get("cpus")) if "cpu" in controllers else 0,
        )
    options = told.get("SecurityOptions")
    options = [str(option) for option in options] if isinstance(options, list) else []
    return Engine(
        path,
        podman=False,
        version=str(told.get("ServerVersion", "")),
        rootless=any("rootless" in option for option in options),
        selinux=any("selinux" in option for option in options),
        memory=told.get("MemoryLimit") is True,
        processes=told.get("PidsLimit") is True,
        cpus=_number(told.get("NCPU")) if told.get("CpuCfsQuota") is True else 0,
    )


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, -1, "", f"no answer in {timeout_s:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, -1, "", str(error))


def _alive(pid: int) -> bool:
    """Whether there is such a process; where that cannot be asked without harm, yes."""
    if os.name != "posix":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
