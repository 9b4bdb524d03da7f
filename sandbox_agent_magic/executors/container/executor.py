"""The executor `container`: a kernel in a container without network, in a mounted workspace."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ... import scratch
from ...errors import ExecutorError
from ...sandbox import SandboxLimits, disk_usage, sandbox_uid
from ...types import Capabilities, ErrorInfo, ExecutionResult, FileInfo, OutputHook, ProgressHook
from ...workspace import Snapshot, Workspace
from ..engines import EngineInfo
from ..kernel import Kernel
from ..making_room import named, remove_newest
from .engine import find
from .plain_workspace import PlainWorkspace
from .process import ContainerProcess
from .target import Target

_START_S = 120.0
"""A virtual machine may take its time."""


class ContainerExecutor:
    """Runs code in a container: no network, read-only but for the workspace, within limits.

    Args:
        target: engine and image.
        workspace: folder that the code may read and write; None makes a temporary one, removed at `shutdown`.
        limits: what the container may use.

    Raises:
        WorkspaceError: the folder cannot be a workspace.
    """

    name = "container"
    keeps_files = True
    """A container that takes another's place sees the same workspace."""

    def __init__(
        self, target: Target | None = None, *, workspace: Path | None = None, limits: SandboxLimits | None = None
    ) -> None:
        self.target = target or Target()
        self.limits = limits or SandboxLimits()
        """A change takes effect with the next start."""
        self.trust_output = False
        """Rich output passes uncleaned from now on; sizes are bounded all the same."""
        self.owner_pid = os.getpid()
        self._uid = sandbox_uid()
        self._folder = workspace
        self._workspace = open_workspace(workspace, self._uid) if workspace is not None else None
        self._granted: int | None = None
        self._before: Snapshot = {}
        self._asked: ContainerProcess | None = None
        """The process that ran the last cell."""
        self._kernel = Kernel(self._launch, name=self.name, breach=self._breach, start_s=_START_S)
        _alive.add(self)

    @property
    def capabilities(self) -> Capabilities:
        """As `Executor.capabilities`; what the engine cannot bound is known once it was asked."""
        engine = self._process.engine if self._process is not None else None
        label = engine.label if engine is not None else ""
        return Capabilities(isolated=True, cell_magic="%%sandbox -e container", install=False, label=label)

    @property
    def _process(self) -> ContainerProcess | None:
        return cast("ContainerProcess | None", self._kernel.process)

    @property
    def workspace(self) -> Workspace | PlainWorkspace:
        """The workspace; a temporary one is made on first use."""
        if self._workspace is None:
            self._workspace = open_workspace(self._folder, self._uid)
        return self._workspace

    def start(self) -> None:
        """Begin to start; returns at once."""
        self._kernel.start()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        self._asked = self._begin(on_output)
        before = self._before = self.workspace.snapshot()
        result = self._kernel.execute(code, timeout_s=timeout_s, on_output=on_output, trusted=self.trust_output)
        return replace(result, new_files=self.workspace.changes(before))

    def recover(self) -> bool:
        """As `Recoverable.recover`: a container that has ended since the last execution is replaced."""
        process = self._process
        if process is not None and process.started:
            try:
                process.call("grant", self._granted)  # the end of one that was killed a moment ago is not seen yet
            except ExecutorError:
                self._kernel.restart()
                return True
        return self._kernel.recover()

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        self._kernel.interrupt()

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""
        self._kernel.restart()

    def shutdown(self) -> None:
        """End the container and remove a temporary workspace. Idempotent."""
        self._kernel.shutdown()
        self._asked = None
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()
        self._granted = None
        _alive.discard(self)

    def engines(self) -> Sequence[EngineInfo]:
        """As `ListsEngines.engines`."""
        process = self._process
        if process is None:
            return ()
        return [EngineInfo(self.name, process.name, f"image {self.target.image}", self._kernel.started)]

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy a file of the reader into the workspace as `name`."""
        self._grant(source.stat().st_size if source.is_file() else 0)
        return self.workspace.put(source, name, on_progress=on_progress)

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the workspace."""
        self.workspace.get(name, destination)

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the workspace."""
        return self.workspace.list()

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Refuse: a container has no network, and its image is read-only.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError(
            "Packages are not installed into a running container.",
            executor=self.name,
            why="It has no network, and its image is read-only.",
            hint=f"Make an image that has them: sandbox-agent image build --packages {' '.join(packages)}; "
            "then %agent restart.",
        )

    # ---- the container -------------------------------------------------------------------------------------------

    def _launch(self) -> ContainerProcess:
        self._kernel.limits = self.limits.outputs
        if self._granted is None and os.name == "posix":
            self._granted = disk_usage([self.workspace.path], ())
        target, path = self.target, self.workspace.path
        process = ContainerProcess(target.engine, target.image, path, self.limits, uid=self._uid, granted=self._granted)
        _sweep(target.engine)
        return process

    def _grant(self, size: int) -> None:
        """The reader puts `size` bytes into the workspace: they do not count."""
        if self._granted is None:
            return  # what lies there at the start does not count
        self._granted += size
        if self._process is not None and self._process.started:
            self._process.call("grant", self._granted)

    # ---- its limits, which its relay watches ---------------------------------------------------------------------

    def _begin(self, on_output: OutputHook) -> ContainerProcess | None:
        """Before a cell: say what left-over processes did since the last one."""
        process = self._process
        if process is None or not process.started:
            return process
        try:
            breach = process.call("begin", self._granted)
        except ExecutorError:
            return process  # it has ended, or is about to be found out
        if isinstance(breach, dict):
            error = self._explain(process, breach)
            text = f"Processes that an earlier cell had left behind broke a limit.\n{error.ename}: {error.evalue}\n"
            on_output({"output_type": "stream", "name": "stderr", "text": text})
        return process

    def _breach(self) -> ErrorInfo | None:
        """After a cell: the limit that it passed."""
        process = self._asked or self._process
        if process is None:
            return None
        if process.ended is not None or process is not self._process:
            return self._explained_end(process)
        try:
            said = process.call("finish", self._kernel.stopped)
        except ExecutorError:
            if process.ended is None and process.poll() is None:
                self._kernel.replace()  # whatever keeps it from answering
            return self._explained_end(process)
        said = said if isinstance(said, dict) else {}
        breach = said.get("breach")
        error = self._explain(process, breach) if isinstance(breach, dict) else None
        if said.get("full") is True:
            self._kernel.replace()
        return error

    def _explained_end(self, process: ContainerProcess) -> ErrorInfo | None:
        breach = process.ended.breach if process.ended is not None else None
        return self._explain(process, breach) if breach is not None else None

    def _explain(self, process: ContainerProcess, breach: Mapping[str, object]) -> ErrorInfo:
        """The breach as an error; a workspace that is too full loses the newest files first."""
        used = breach.get("used")
        used = used if isinstance(used, int) else 0
        if breach.get("kind") == "memory":
            return self.limits.memory_exceeded(used)
        removed: list[str] = []
        try:
            excess = process.call("excess")
            removed = remove_newest(self.workspace, self._before, excess if isinstance(excess, int) else 0)
            room = process.call("room") is True
        except ExecutorError:
            removed += remove_newest(self.workspace, self._before, used - (self._granted or 0) - self.limits.disk_bytes)
            room = True
        if not room:
            self._kernel.replace()
        return self.limits.disk_exceeded(used, named(removed))


def open_workspace(folder: Path | None, uid: int | None) -> Workspace | PlainWorkspace:
    """The workspace in `folder`, as this system can open it. Raises WorkspaceError."""
    return Workspace(folder, uid=uid) if os.open in os.supports_dir_fd else PlainWorkspace(folder)


_swept: set[str] = set()


def _sweep(wanted: str) -> None:
    """Once in a process: remove what killed ones left behind. In a thread, since asking the engine takes its time."""
    if wanted in _swept:
        return
    _swept.add(wanted)
    if sys.platform == "linux":
        scratch.sweep()

    def remove() -> None:
        try:
            engine = find(wanted)
        except ExecutorError:
            return
        for name in engine.leftovers():
            engine.remove(name)

    threading.Thread(target=remove, name="container-sweep", daemon=True).start()


_alive: weakref.WeakSet[ContainerExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():  # a forked child must not end its parent's container
            executor.shutdown()
