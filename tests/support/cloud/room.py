"""One sandbox: a folder, kernels and commands of its own, and a life that ends."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file

START_S = 60.0
Event = tuple[str, dict[str, object]]
"""A Jupyter message's kind and content; or `restarting`, where the kernel ended under the code."""


class Gone(Exception):
    """The sandbox has ended."""


class Kernel:
    """A real kernel. What it says is handed to the request that it belongs to; nobody has to be listening."""

    def __init__(self, folder: Path, environment: Mapping[str, str], own: Path) -> None:
        self._folder, self._environment, self._own = folder, environment, own
        self._lock = threading.Lock()
        self._waiting: dict[str, queue.Queue[Event]] = {}
        self._ended = False
        self._start()

    def execute(self, code: str, environment: Mapping[str, str] | None = None) -> Iterator[Event]:
        """Run `code`; yields what it says until it is idle again. The code runs on if nobody takes the events."""
        if environment:
            self._send(f"import os\nos.environ.update({dict(environment)!r})", silent=True)
        request, events = self._send(code)
        try:
            while True:
                try:
                    kind, content = events.get(timeout=0.5)
                except queue.Empty:
                    if self._ended:
                        raise Gone from None
                    continue
                if kind == "status" and content["execution_state"] == "idle":
                    return
                yield kind, content
                if kind == "restarting":
                    return
        finally:
            self._waiting.pop(request, None)
            if environment and not self._ended:
                before = {name: self._environment.get(name) for name in environment}
                self._send(_RESTORE.format(before=before), silent=True)

    def interrupt(self) -> None:
        """As Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def restart(self) -> None:
        """A new process in its place; code that runs is told so."""
        process = self._process
        process.kill()
        process.wait()
        self._again(process)

    def end(self) -> None:
        """Kill it."""
        with self._lock:  # not while another process takes the place of one that ended
            self._ended = True
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        self._close()

    def _close(self) -> None:
        self._client.stop_channels()
        for socket in Path(self._address).parent.glob(f"{Path(self._address).name}-*"):
            socket.unlink()

    def _start(self) -> None:
        run = self._own / secrets.token_hex(4)
        run.mkdir(parents=True)
        # Unix sockets have short names: in /tmp, whose name is short too.
        self._address = f"/tmp/k-{secrets.token_hex(6)}"
        file, _ = write_connection_file(str(run / "kernel.json"), transport="ipc", ip=self._address)
        with open(run / "log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", file],
                cwd=self._folder,
                env={**self._environment, "JPY_PARENT_PID": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._client = BlockingKernelClient(connection_file=file)
        self._client.load_connection_file()
        self._client.start_channels(stdin=False, hb=False, control=False)
        self._client.wait_for_ready(timeout=START_S)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _send(self, code: str, *, silent: bool = False) -> tuple[str, queue.Queue[Event]]:
        events: queue.Queue[Event] = queue.Queue()
        with self._lock:
            if self._ended:
                raise Gone
            request = self._client.execute(code, silent=silent, store_history=not silent, allow_stdin=False)
            if not silent:
                self._waiting[request] = events
        return request, events

    def _read(self) -> None:
        client, process = self._client, self._process
        while not self._ended and client is self._client:
            try:
                message = client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                if process.poll() is not None:
                    self._again(process)
                continue
            with self._lock:
                events = self._waiting.get(message["parent_header"].get("msg_id", ""))
            if events is not None:
                events.put((message["msg_type"], message["content"]))

    def _again(self, process: subprocess.Popen[bytes]) -> None:
        """Replace a process that has ended, if nobody else did."""
        with self._lock:
            if self._ended or process is not self._process:
                return
            waiting = list(self._waiting.values())
            self._close()
            self._start()
        for events in waiting:
            events.put(("restarting", {}))


_RESTORE = """
import os
for name, value in {before!r}.items():
    os.environ.pop(name, None) if value is None else os.environ.update({{name: value}})
del name, value
"""


class Room:
    """A sandbox.

    Args:
        base: folder for the folders of all sandboxes.
        prefix: of its id.
        life_s: how long it lives, unless that is changed.
    """

    def __init__(
        self,
        base: Path,
        prefix: str,
        *,
        template: str,
        environment: Mapping[str, str],
        metadata: Mapping[str, str],
        life_s: float,
    ) -> None:
        self.id = prefix + secrets.token_hex(8)
        self.token = secrets.token_hex(16)
        self.template, self.metadata = template, dict(metadata)
        self.started = time.time()
        self.root = base / self.id
        self.home = self.root / "home" / "user"
        self.home.mkdir(parents=True)
        packages = self.root / "packages"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PIP_TARGET": str(packages),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONPATH": str(packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self.ended = threading.Event()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.kernels: dict[str, tuple[Kernel, str]] = {}
        """By context: the kernel, and the folder as it was asked for."""
        self._lock = threading.Lock()
        self.live(life_s)

    def live(self, life_s: float) -> None:
        """Live that long from now on, in seconds."""
        self.end_at = time.time() + life_s

    def kernel(self, context: str = "") -> Kernel:
        """The kernel of a context; the default one is started when it is needed first.

        Raises:
            KeyError: there is no such context.
        """
        with self._lock:
            if not context and "" not in self.kernels:
                self.kernels[""] = self._new(""), "/home/user"
            return self.kernels[context][0]

    def add_context(self, folder: str) -> str:
        """Start a further kernel, in `folder`; returns the id of its context."""
        context = secrets.token_hex(8)
        kernel = self._new(folder)
        with self._lock:
            self.kernels[context] = kernel, folder or "/home/user"
        return context

    def remove_context(self, context: str) -> None:
        """End a kernel.

        Raises:
            KeyError: there is no such context.
        """
        with self._lock:
            kernel, _ = self.kernels.pop(context)
        kernel.end()

    def _new(self, folder: str) -> Kernel:
        if self.ended.is_set():
            raise Gone
        where = self.locate(folder)
        where.mkdir(parents=True, exist_ok=True)
        # Kernels are root's over there, so what they keep at home is not among the user's files.
        return Kernel(where, {**self.environment, "HOME": str(self.root / "root")}, self.root / ".run")

    def locate(self, path: str) -> Path:
        """Where a path of the sandbox lies: seen from its own root, from its home, or as its code sees it.

        Raises:
            PermissionError: outside of the sandbox.
        """
        found = Path(os.path.normpath(self.home / path))
        if path.startswith("/") and not found.is_relative_to(self.root):
            found = Path(os.path.normpath(f"{self.root}/{path}"))
        if not found.is_relative_to(self.root):
            raise PermissionError(path)
        return found

    def spawn(
        self, command: str, arguments: list[str], environment: Mapping[str, str], folder: str
    ) -> subprocess.Popen[bytes]:
        """Start a command, in a process group of its own."""
        if self.ended.is_set():
            raise Gone
        process = subprocess.Popen(
            [command, *arguments],
            cwd=self.locate(folder),
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.processes[process.pid] = process
        return process

    def follow(self, process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[tuple[str, bytes]]:
        """What a command writes, as (`stdout` or `stderr`, bytes), until it has ended.

        Raises:
            TimeoutError: it was killed at `deadline` (of `time.monotonic`).
        """
        pieces: queue.Queue[tuple[str, bytes]] = queue.Queue()

        def read(name: str) -> None:
            with getattr(process, name) as stream:
                while data := os.read(stream.fileno(), 65_536):
                    pieces.put((name, data))
            pieces.put(("", b""))

        for name in ("stdout", "stderr"):
            threading.Thread(target=read, args=(name,), daemon=True).start()
        open_pipes = 2
        try:
            while open_pipes:
                with contextlib.suppress(queue.Empty):
                    name, data = pieces.get(timeout=0.2)
                    if name:
                        yield name, data
                    else:
                        open_pipes -= 1
                if self.ended.is_set():
                    raise Gone
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError
            process.wait()
        finally:
            if process.poll() is None:
                self.kill(process)
            self.processes.pop(process.pid, None)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a command and what it started."""
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        """Kill everything and remove the folder. Idempotent."""
        self.ended.set()
        with self._lock:
            kernels, self.kernels = list(self.kernels.values()), {}
        for kernel, _ in kernels:
            kernel.end()
        for process in list(self.processes.values()):
            self.kill(process)
        shutil.rmtree(self.root, ignore_errors=True)
