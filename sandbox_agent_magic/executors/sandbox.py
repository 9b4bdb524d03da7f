"""The default executor: a kernel of our own in a bubblewrap sandbox on this machine."""

from __future__ import annotations

import atexit
import functools
import os
import stat
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import scratch
from ..sandbox import (
    BUBBLEWRAP,
    Breach,
    PackageLayer,
    SandboxLimits,
    SandboxProcess,
    Watchdog,
    refusal,
    sandbox_uid,
    shown_at,
)
from ..types import Capabilities, ErrorInfo, ExecutionResult, FileInfo, OutputHook, ProgressHook
from ..workspace import Snapshot, Workspace
from .engines import EngineInfo
from .kernel import Kernel
from .making_room import named, remove_newest

SHOWN_BYTES = 100 << 20
"""Files above this size are not copied."""


class SandboxExecutor:
    """Runs code without network, without the reader's files and environment, in a workspace folder.

    Start it and use it from one thread that lives as long as the executor: the sandbox is killed when that thread ends.

    Args:
        workspace: folder that the code may read and write; None makes a temporary one, removed at `shutdown`.
        limits: what the sandbox may use.
        cell_timeout_s: an upper bound of every execution's own timeout, seconds.
        tier: `bubblewrap`, or `landlock`, which is weaker, for machines that forbid namespaces.

    Raises:
        WorkspaceError: the folder cannot be a workspace.
    """

    name = "sandbox"

    def __init__(
        self,
        *,
        workspace: Path | None = None,
        limits: SandboxLimits | None = None,
        cell_timeout_s: float | None = None,
        tier: str = BUBBLEWRAP,
    ) -> None:
        label = "" if tier == BUBBLEWRAP else f"{tier}, weaker"
        self.capabilities = Capabilities(isolated=True, cell_magic="%%sandbox", install=True, label=label)
        self._tier = tier
        self.owner_pid = os.getpid()
        self.limits = limits or SandboxLimits()
        """A change takes effect with the next start."""
        self.trust_output = False
        """Rich output passes uncleaned from now on; sizes are bounded all the same."""
        self._cell_timeout_s = cell_timeout_s
        self._uid = sandbox_uid()
        self._folder = workspace
        self._workspace: Workspace | None = None
        self._layer: PackageLayer | None = None
        self._shown: dict[str, Path] = {}
        """By name: big files of the reader that are not copied but shown read-only, from the sandbox's start on."""
        self._launched = False
        if workspace is not None:
            self._workspace = Workspace(workspace, uid=self._uid)
        self._watchdog: Watchdog | None = None
        self._before: Snapshot = {}
        self._kernel = Kernel(self._launch, name=self.name, breach=self._breach)
        _alive.add(self)

    @property
    def workspace(self) -> Workspace:
        """The workspace; a temporary one is made on first use."""
        if self._workspace is None:
            self._workspace = Workspace(self._folder, uid=self._uid)
        return self._workspace

    @property
    def layer(self) -> PackageLayer:
        """The packages that were installed for this workspace."""
        if self._layer is None:
            self._layer = PackageLayer(
                self._folder, uid=self._uid, tier=self._tier, limit_bytes=self.limits.packages_bytes
            )
        return self._layer

    def start(self) -> None:
        """Begin to start; returns at once."""
        self._kernel.start()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        before = self._settle(on_output)
        timeout_s = timeout_s if self._cell_timeout_s is None else min(timeout_s, self._cell_timeout_s)
        result = self._kernel.execute(code, timeout_s=timeout_s, on_output=on_output, trusted=self.trust_output)
        if result.status in ("timeout", "interrupted") and self._watchdog is not None and not result.state_lost:
            self._watchdog.end_started()
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
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.close()
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            for name, path in self._shown.items():
                workspace.unlink(name, shown_at(self._tier, name, path))
            workspace.close()
        self._shown, self._launched = {}, False
        layer, self._layer = self._layer, None
        if layer is not None:
            layer.close()
        _alive.discard(self)

    def engines(self) -> Sequence[EngineInfo]:
        """As `ListsEngines.engines`."""
        process = self._kernel.process
        if not isinstance(process, SandboxProcess):
            return ()
        return [EngineInfo(self.name, f"process {process.pid}", str(self.workspace.path), self._kernel.started)]

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy a file of the reader into the workspace as `name`.

        One above `SHOWN_BYTES` is not copied but shown read-only, if the sandbox has not been started yet: what is
        shown is fixed at the start, and a restart would cost the reader's variables.
        """
        info = source.stat()
        shown = self._shown.get(name)
        if shown is not None and shown.samefile(source):
            return FileInfo(name, info.st_size)
        readable = self._uid is None or info.st_mode & stat.S_IROTH
        big = info.st_size > SHOWN_BYTES and stat.S_ISREG(info.st_mode) and name == source.name
        if not (big and readable and not self._launched):
            if shown is not None:
                self._shown.pop(name)  # at the next start the copy counts
            copied = self.workspace.put(source, name, on_progress=on_progress)
            if self._watchdog is not None:
                self._watchdog.grant(copied.size)
            return copied
        self._shown[name] = source.resolve()
        self.workspace.link(name, shown_at(self._tier, name, self._shown[name]))
        return FileInfo(name, info.st_size)

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the workspace."""
        self.workspace.get(name, destination)

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the workspace."""
        return self.workspace.list()

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Fetch wheels into this workspace's layer of packages; running code can import them at once.

        Returns:
            What was added, as `name==version`; empty if all was there.

        Raises:
            UsageError: one is not a name of a package.
            ExecutorError: pip failed, which changed nothing.
        """
        if sys.platform != "linux":
            raise refusal([])
        return self.layer.install(packages)

    def _launch(self) -> SandboxProcess:
        if sys.platform != "linux":
            raise refusal([])
        _sweep()
        self._kernel.limits = self.limits.outputs
        watchdog = self._watched()
        watchdog.limits = self.limits
        self._launched = True
        process = SandboxProcess(
            self.workspace.path,
            self.limits,
            uid=self._uid,
            layer=self.layer.path,
            files={name: path for name, path in self._shown.items() if path.is_file()},
            tier=self._tier,
        )
        watchdog.watch(process)
        return process

    # ---- limits of the sandbox as a whole ------------------------------------------------------------------------

    def _watched(self) -> Watchdog:
        """The watchdog, made before the first code can run."""
        if self._watchdog is None:
            self._watchdog = Watchdog(self.workspace.path, self.limits)
        return self._watchdog

    def _settle(self, on_output: OutputHook) -> Snapshot:
        """Before a cell: say what left-over processes did since the last one; returns what lies in the workspace."""
        if sys.platform != "linux":
            raise refusal([])
        breach = self._watched().begin()
        if breach is not None:
            error = self._explain(breach)
            text = f"Processes that an earlier cell had left behind broke a limit.\n{error.ename}: {error.evalue}\n"
            on_output({"output_type": "stream", "name": "stderr", "text": text})
        self._before = self.workspace.snapshot()
        return self._before

    def _breach(self) -> ErrorInfo | None:
        """After a cell: the limit that it passed."""
        breach = self._watchdog.finish() if self._watchdog is not None else None
        return self._explain(breach) if breach is not None else None

    def _explain(self, breach: Breach) -> ErrorInfo:
        """The breach as an error; a workspace that is too full loses the newest files first."""
        if breach.kind == "memory" or self._watchdog is None:
            if self._watchdog is not None and self._watchdog.holds_too_much():
                self._kernel.replace()
            return self.limits.memory_exceeded(breach.used)
        removed: list[str] = []

        def remove(excess: int) -> None:
            removed.extend(remove_newest(self.workspace, self._before, excess))

        if not self._watchdog.make_room(remove):
            self._kernel.replace()
        return self.limits.disk_exceeded(breach.used, named(removed))


@functools.cache
def _sweep() -> None:
    """Once in a process: remove what killed ones left behind."""
    scratch.sweep()


_alive: weakref.WeakSet[SandboxExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():  # a forked child must not end its parent's sandbox
            executor.shutdown()
