"""A kernel in a container, as a process: start, interrupt, kill, and what its relay tells."""

from __future__ import annotations

import io
import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import cast

from ...errors import ExecutorError, ExecutorTimeout, SandboxAgentError, SandboxUnavailable
from ...sandbox import PROBES, SandboxLimits, system_call_filters, variables
from . import relay
from .command import HOME, OLD_PYTHON, WORKSPACE, Wish, run_command
from .engine import Engine, find, last_line, new_name
from .lanes import Lanes, Lines, frame

_CALL_S = 5.0
_END_S = 3.0
_TICK_S = 0.2
_LAST_LINE_S, _LAST_LINE_TICK_S = 1.0, 0.02
_CANNOT_RUN = (126, 127)
"""Exit statuses of an engine that could not start the program in the image."""
_REFUSED = 125
"""Of an engine that could not make the container."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What the relay said as the last thing."""

    status: int
    words: str
    breach: Mapping[str, object] | None


class ContainerProcess:
    """Starts a container with a kernel in it. The constructor returns at once; a thread does the rest.

    Args:
        wanted: the engine, as AGENT_CONTAINER_ENGINE names it.
        image: name of the image.
        workspace: the only folder of the host that it sees, and may write to.
        limits: what it may use.
        uid: as root, who it runs as; the workspace must belong to that user.
        granted: bytes of the workspace that do not count; None: what lies there now.
    """

    def __init__(
        self,
        wanted: str,
        image: str,
        workspace: Path,
        limits: SandboxLimits,
        *,
        uid: int | None = None,
        granted: int | None = None,
    ) -> None:
        key = secrets.token_hex(32)
        self.key = key.encode()
        self.name = new_name()
        """Of the container."""
        self.engine: Engine | None = None
        self.granted = granted
        self.ended: Ended | None = None
        self._key = key
        self._wanted = wanted
        self._wish = Wish(image, self.name, workspace, limits, uid)
        self._word = secrets.token_hex(8)
        self._changed = threading.Condition()
        self._report: Mapping[str, object] | None = None
        self._failure: Exception | None = None
        self._answers: dict[int, object] = {}
        self._calls = 0
        self._over = self._killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lanes: Lanes | None = None
        self._lines: Lines | None = None
        self._end_seen, self._end_said = socket.socketpair()
        self._bait = tempfile.NamedTemporaryFile(prefix="sandbox-agent-bait-")  # noqa: SIM115 - closed by `kill`
        self._starter = threading.Thread(target=self._start, name="container-start", daemon=True)
        self._starter.start()

    # ---- KernelProcess -------------------------------------------------------------------------------------------

    def shell(self) -> socket.socket:
        """A connection to the shell channel."""
        return self._connect("shell")

    def iopub(self) -> socket.socket:
        """A connection to the iopub channel."""
        return self._connect("iopub")

    def _connect(self, name: str) -> socket.socket:
        if self._lanes is None:
            raise OSError("it has not started")
        return self._lanes.open(name)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the container has ended."""
        return self._end_seen.fileno()

    def poll(self) -> int | None:
        """The kernel's exit status, as far as it is known, or None while it runs."""
        if not self._over:
            return None
        if self.ended is not None:
            return self.ended.status
        found = self._process.poll() if self._process is not None else None
        return -1 if found is None else found

    def last_words(self) -> str:
        """Of one that ended while it started: what it said, one line."""
        said = last_line(self.ended.words) if self.ended is not None else ""
        return said or (self._lines.words() if self._lines is not None else "") or f"ended with status {self.poll()}"

    def wait_started(self, deadline: float) -> None:
        """Wait until the container holds and its kernel is being loaded.

        Raises:
            SandboxUnavailable: there is no engine, no image, or it does not hold.
            WorkspaceError: the folder cannot be mounted.
            ExecutorTimeout: the deadline passed.
        """
        with self._changed:
            while self._report is None and self._failure is None and not self._over:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise ExecutorTimeout("The container did not start in time.", executor="container")
                self._changed.wait(min(left_s, _TICK_S))  # short, since on Windows it hears no Ctrl-C meanwhile
        if self._failure is not None:
            raise self._failure
        if self._report is None:
            raise self._refusal()
        found = [f"{name}: {what}" for name in PROBES if (what := self._report.get(name, "no answer"))]
        if found:
            raise SandboxUnavailable(
                "The container does not hold, so nothing was run.",
                executor="container",
                why=f"{self.engine}: {'; '.join(found)}.",
                hint="Look for what the engine's own configuration adds to each container.",
            )

    def interrupt(self) -> None:
        """Send SIGINT to the kernel."""
        if self._lanes is not None:
            self._lanes.order({"interrupt": True})

    def kill(self) -> None:
        """End the container and the threads, and return when it has ended. Idempotent."""
        if self._killed:
            return
        self._starter.join()
        if self._lanes is not None:
            self._lanes.close()  # the relay ends with its stdin, and the container with the relay
        process = self._process
        if process is not None and self.engine is not None:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.engine.remove(self.name)
                process.kill()
                process.wait()
            else:
                if process.returncode < 0:  # somebody killed the client: the container may have been left
                    self.engine.remove(self.name)
        for threads in (self._lanes, self._lines):
            if threads is not None:
                threads.join()
        for each in (self._bait, self._end_seen, self._end_said):
            each.close()
        self._killed = True

    # ---- the relay -----------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the relay can be asked."""
        return self._report is not None and not self._over

    def call(self, name: str, *arguments: object) -> object:
        """Have the relay do something, and return what it says.

        Raises:
            ExecutorError: it does not answer.
        """
        if self._lanes is None or not self.started:
            raise ExecutorError("The container has ended.", executor="container")
        with self._changed:
            self._calls += 1
            number = self._calls
        self._lanes.order({"call": [number, name, *arguments]})
        deadline = time.monotonic() + _CALL_S
        with self._changed:
            while number not in self._answers:
                if self._over or time.monotonic() > deadline:
                    raise ExecutorError("The container does not answer.", executor="container")
                self._changed.wait(_TICK_S)
            return self._answers.pop(number)

    def _hear(self, said: Mapping[str, object]) -> None:
        """A line of the relay; in the thread that reads them. Hostile, as all that comes from inside."""
        with self._changed:
            match said:
                case {"report": dict(report), "granted": int(granted)} if self._report is None:
                    self._report = report
                    self.granted = granted if self.granted is None else self.granted
                case {"answer": [int(number), answer]} if number == self._calls:
                    self._answers = {number: answer}
                case {"ended": int(status), "words": str(words)} if self.ended is None:
                    breach = said.get("breach")
                    self.ended = Ended(status, words, breach if isinstance(breach, dict) else None)
            self._changed.notify_all()

    def _see_end(self) -> None:
        """Nothing more can come, but for the relay's last line: that goes another way."""
        deadline = time.monotonic() + _LAST_LINE_S
        with self._changed:
            while self.ended is None and self._lines is not None and not self._lines.done:
                if time.monotonic() > deadline:
                    break
                self._changed.wait(_LAST_LINE_TICK_S)
            self._over = True
            self._changed.notify_all()
        self._end_said.close()

    # ---- start ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """In a thread: asking the engine takes its time."""
        try:
            self._begin()
        except (SandboxAgentError, OSError) as error:
            with self._changed:
                self._failure = error if isinstance(error, SandboxAgentError) else _unavailable(error)
            self._see_end()

    def _begin(self) -> None:
        engine = self.engine = find(self._wanted)
        image = engine.inspect(self._wish.image)
        if image is None:
            raise no_image(self._wish.image, engine)
        configuration = image.get("Config")
        volumes = configuration.get("Volumes") if isinstance(configuration, dict) else None
        wish = replace(self._wish, volumes=tuple(volumes) if isinstance(volumes, dict) else ())
        process = subprocess.Popen(
            run_command(engine, wish),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            # A terminal's Ctrl-C is for us to pass on, not for the engine's client to die of.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._process = process
        stdin, stdout, stderr = (cast("io.FileIO", file) for file in (process.stdin, process.stdout, process.stderr))
        self._lines = Lines(io.BufferedReader(stderr), self._word, self._hear)
        lanes = Lanes(stdin, stdout, on_end=self._see_end)
        lanes.start(_first_words(self._setup(wish.limits)))
        self._lanes = lanes

    def _setup(self, limits: SandboxLimits) -> relay.Setup:
        sandbox = files("sandbox_agent_magic.sandbox")
        environment = variables(limits, tmp="/tmp", home=HOME)  # noqa: S108 - inside
        return {
            "word": self._word,
            "boot": (sandbox / "boot.py").read_text("utf-8"),
            "modules": {name: (sandbox / f"{name}.py").read_text("utf-8") for name in ("usage", "watchdog")},
            "configuration": {
                "key": self._key,
                "kernel": True,
                "limits": limits.rlimits(),
                "counts_others": True,
                "hints": limits.hints(),
                "text_chars": limits.outputs.text_bytes,
                "probes": list(PROBES),
                "bait_port": 1,
                "bait_file": self._bait.name,
                "closed_folders": ["/", "/usr", "/etc", "/dev", "/home", "/opt", "/root", "/run", "/sys", "/var/tmp"],  # noqa: S108
                "layer": "",
            },
            "filters": {machine: code.hex() for machine, code in system_call_filters().items()},
            # The image's own path is the right one.
            "environment": {name: environment[name] for name in environment if name not in ("PATH", "PYTHONUSERBASE")},
            "workspace": WORKSPACE,
            "memory_bytes": limits.memory_bytes,
            "disk_bytes": limits.disk_bytes,
            "granted": self.granted,
        }

    def _refusal(self) -> SandboxUnavailable:
        """Why it ended before it was ready."""
        status = self._process.wait() if self._process is not None else -1
        status = self.ended.status if self.ended is not None else status
        image, words = self._wish.image, self.last_words()
        hint = "sandbox-agent image build makes an image that fits."
        if status == relay.NO_KERNEL:
            message, why = f"The image {image} has no ipykernel.", "Its python3 cannot import ipykernel and zmq."
        elif status == OLD_PYTHON:
            message, why = f"The Python of the image {image} is too old.", "The container needs Python 3.10 or newer."
        elif status in _CANNOT_RUN:
            message, why = f"The container could not start python3 in the image {image}.", words
        elif status == _REFUSED:
            message, why = f"{self.engine} could not make the container.", words
            hint = "Its message says why; `%agent restart` tries again."
        else:
            message, why = f"The container of the image {image} ended while it started.", words
        return SandboxUnavailable(message, executor="container", why=why, hint=hint)


def no_image(image: str, engine: Engine) -> SandboxUnavailable:
    """The error where there is no such image."""
    return SandboxUnavailable(
        f"There is no image {image}.",
        executor="container",
        why=f"{engine} has none of that name (AGENT_CONTAINER_IMAGE), and none is fetched by itself.",
        hint=f"Make it: sandbox-agent image build --tag {image}",
    )


def _unavailable(error: OSError) -> SandboxUnavailable:
    return SandboxUnavailable(
        "The container engine cannot be started.", executor="container", why=f"{error.strerror or error}."
    )


def _first_words(setup: relay.Setup) -> bytes:
    """The relay's own source, then what it is to do."""
    source = Path(relay.__file__).read_bytes()
    return len(source).to_bytes(4, "big") + source + frame(0, json.dumps(setup).encode())
