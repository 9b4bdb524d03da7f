"""What an attack is, and the room it is tried in: a real sandbox, and things of the host that it must not reach."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sandbox_agent_magic.executors.container import ContainerExecutor
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.types import ExecutionResult, Output
from tests.support.podman import shared_podman
from tests.support.sandbox import run, text

Result = Literal["contained", "ESCAPED"]
SECRET = "attack-secret-7f3a"
"""In the host's environment, in a file, in a `.env` and in an open descriptor."""


class Escaped(Exception):
    """The attack got what it wanted; the text says what."""


@dataclass(frozen=True)
class Attack:
    """One thing that hostile code could try."""

    kind: str
    name: str
    attempt: Callable[[Room], str]
    """Tries it; returns how it was contained. Raises `Escaped`, or anything else, if it was not."""


@dataclass(frozen=True)
class Row:
    """What became of one attack."""

    kind: str
    name: str
    user: str
    result: Result
    how: str
    seconds: float


@dataclass
class Room:
    """A sandbox that the attacks share, and the host around it."""

    sandbox: SandboxExecutor | ContainerExecutor
    tier: str
    """Kind of the sandbox."""
    folder: Path
    """Of the host; it holds `secret`, which everybody may read, and the socket `socket`."""
    server: socket.socket
    """Listens on the host's loopback."""
    unix: socket.socket
    abstract: socket.socket
    victim: subprocess.Popen[bytes]
    """A process of the same user."""
    displayed: list[Output] = field(default_factory=list)
    """Rich outputs that came through, for a browser to look at."""

    def another(self, workspace: Path | None = None) -> SandboxExecutor | ContainerExecutor:
        """One more sandbox of this kind; whoever asks for it shuts it down."""
        return make(self.tier, workspace)

    def refuse(self, code: str, *names: str) -> str:
        """Run `code`, which must end with one of these exceptions."""
        result = run(self.sandbox, code)
        if result.error is None:
            raise Escaped(f"it went through: {text(result)[:200]}")
        if result.error.ename not in names:
            raise Escaped(f"it ended unexpectedly with {result.error.ename}: {result.error.evalue[:200]}")
        return f"{result.error.ename}: {result.error.evalue[:100]}"

    def answer(self, code: str, expected: str, how: str) -> str:
        """Run `code`, which must print or return exactly this."""
        found = text(run(self.sandbox, code))
        if found != expected:
            raise Escaped(f"{found[:200]!r} instead of {expected!r}")
        return how

    def show(self, data: str) -> ExecutionResult:
        """Display a mime bundle from inside; `data` is a Python expression."""
        code = f"from IPython.display import publish_display_data\npublish_display_data({data})"
        result = run(self.sandbox, code)
        self.displayed += [output for output in result.outputs if output["output_type"] == "display_data"]
        return result

    def works(self) -> None:
        """The sandbox still computes."""
        found = text(run(self.sandbox, "1 + 1"))
        if found != "2":
            raise Escaped(f"afterwards, 1 + 1 gives {found[:100]!r}")

    def nobody_called(self) -> None:
        """No connection came in from the sandbox, neither by TCP nor by a socket file nor by an abstract name."""
        for listener in (self.server, self.unix, self.abstract):
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                raise Escaped("a connection came in")


def make(tier: str, workspace: Path | None = None) -> SandboxExecutor | ContainerExecutor:
    """A sandbox of that kind."""
    if tier == "container":
        return shared_podman().executor(workspace=workspace)
    return SandboxExecutor(tier=tier, workspace=workspace)


@contextlib.contextmanager
def open_room(tier: str) -> Iterator[Room]:
    """Lay out the baits, then start a sandbox of that kind beside them."""
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="attack-")))
        folder.chmod(0o755)
        (folder / "secret").write_text(SECRET)
        (folder / ".env").write_text(f"OPENAI_API_KEY={SECRET}\n")
        os.environ["OPENAI_API_KEY"] = SECRET
        closing.callback(os.environ.pop, "OPENAI_API_KEY", None)
        leaked = os.open(folder / "secret", os.O_RDONLY)
        os.set_inheritable(leaked, True)
        closing.callback(os.close, leaked)
        server = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = closing.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        abstract = closing.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0attack-{os.getpid()}")
        for listener in (server, unix, abstract):
            listener.listen()
            listener.setblocking(False)
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        closing.callback(victim.wait)
        closing.callback(victim.kill)
        sandbox = make(tier)
        closing.callback(sandbox.shutdown)
        yield Room(sandbox, tier, folder, server, unix, abstract, victim)


def attack_all(attacks: list[Attack], *, user: str, tier: str, tell: Callable[[Row], None]) -> list[Row]:
    """Try them in order; afterwards of each the sandbox must work."""
    rows = []
    with open_room(tier) as room:
        for attack in attacks:
            started = time.monotonic()
            result: Result = "contained"
            try:
                how = attack.attempt(room)
                room.works()
                room.nobody_called()
            except Exception as error:  # whatever it is, nobody can say that the attack was contained
                result, how = "ESCAPED", f"{type(error).__name__}: {error}"
            row = Row(attack.kind, attack.name, user, result, " ".join(how.split()), time.monotonic() - started)
            rows.append(row)
            tell(row)
    return rows
