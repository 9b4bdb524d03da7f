"""The default executor: a kernel of our own in a bubblewrap sandbox on this machine."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ExecutorError
from ..sandbox import SandboxLimits, SandboxProcess, refusal, sandbox_uid
from ..types import Capabilities, ExecutionResult, FileInfo, OutputHook
from ..workspace import Workspace
from .kernel import Kernel


class SandboxExecutor:
    """Runs code without network, without the reader's files and environment, in a workspace folder.

    Start it and use it from one thread that lives as long as the executor: the sandbox is killed when that thread ends.

    Args:
        workspace: folder that the code may read and write; None makes a temporary one, removed at `shutdown`.
        limits: what the sandbox may use.
        cell_timeout_s: an upper bound of every execution's own timeout, seconds.

    Raises:
        WorkspaceError: the folder cannot be a workspace.
    """

    name = "sandbox"
    capabilities = Capabilities(isolated=True, cell_magic="%%sandbox")

    def __init__(
        self,
        *,
        workspace: Path | None = None,
        limits: SandboxLimits | None = None,
        cell_timeout_s: float | None = None,
    ) -> None:
        self.owner_pid = os.getpid()
        self._limits = limits or SandboxLimits()
        self._cell_timeout_s = cell_timeout_s
        self._uid = sandbox_uid()
        self._folder = workspace
        self._workspace: Workspace | None = None
        if workspace is not None:
            self._workspace = Workspace(workspace, uid=self._uid)
        self._kernel = Kernel(self._launch, name=self.name)
        _alive.add(self)

    @property
    def workspace(self) -> Workspace:
        """The workspace; a temporary one is made on first use."""
        if self._workspace is None:
            self._workspace = Workspace(self._folder, uid=self._uid)
        return self._workspace

    def start(self) -> None:
        """Begin to start; returns at once."""
        self._kernel.start()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        before = self.workspace.snapshot()
        timeout_s = timeout_s if self._cell_timeout_s is None else min(timeout_s, self._cell_timeout_s)
        result = self._kernel.execute(code, timeout_s=timeout_s, on_output=on_output)
        return replace(result, new_files=self.workspace.changes(before))

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        self._kernel.interrupt()

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""
        self._kernel.restart()

    def shutdown(self) -> None:
        """Kill the sandbox and remove a temporary workspace. Idempotent."""
        self._kernel.shutdown()
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()
        _alive.discard(self)

    def put_file(self, source: Path, name: str) -> FileInfo:
        """Copy a file of the reader into the workspace as `name`."""
        return self.workspace.put(source, name)

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the workspace."""
        self.workspace.get(name, destination)

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the workspace."""
        return self.workspace.list()

    def install(self, packages: Sequence[str]) -> None:
        """Not available yet."""
        raise ExecutorError(
            f"The sandbox cannot install {', '.join(packages)}.",
            executor=self.name,
            why="Installing packages into the sandbox is not available yet.",
            hint="Install them into this Python environment; the sandbox sees it read-only.",
        )

    def _launch(self) -> SandboxProcess:
        if sys.platform != "linux":
            raise refusal([])
        return SandboxProcess(self.workspace.path, self._limits, uid=self._uid)


_alive: weakref.WeakSet[SandboxExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():  # a forked child must not end its parent's sandbox
            executor.shutdown()
