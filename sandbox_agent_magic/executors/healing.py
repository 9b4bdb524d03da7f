"""An executor whose engine may vanish: it is had again, files are sent again, and what worked runs again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from .. import scratch
from ..errors import ExecutorError, KernelDied, WorkspaceError
from ..types import ExecutionResult, Executor, FileInfo, Output, OutputHook, ProgressHook
from .wrapping import WrappingExecutor

_MAX_LOSSES = 1
"""Of one run; the second one ends it."""
_EMPTY_S = 60.0
_KEPT_BYTES = 256 << 20
"""Of copies of files that are gone from the reader's side by the time they are needed again, all together."""


class Recoverable(Executor, Protocol):
    """An executor that can tell that its engine was lost between two executions."""

    keeps_files: bool
    """An engine that takes the lost one's place finds its files there."""

    def recover(self) -> bool:
        """Make sure that there is an engine; True if its variables were lost since the last execution."""


@runtime_checkable
class Attempting(Executor, Protocol):
    """An executor that finds out by the code itself whether its engine was lost: that saves asking before each one."""

    keeps_files: bool
    """As in `Recoverable`."""

    def attempt(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult | None:
        """As `Executor.execute`; None if the engine was lost since the last execution, and then nothing ran."""


@dataclass(frozen=True, slots=True)
class _Sent:
    name: str
    source: Path


@dataclass(frozen=True, slots=True)
class _Ran:
    code: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Installed:
    packages: tuple[str, ...]


class HealingExecutor(WrappingExecutor[Executor]):
    """Wraps an executor whose engine is not this machine's own.

    Each `start` begins a new run, in which one loss is healed.

    Args:
        inner: one that can tell that its engine was lost, either way.
    """

    def __init__(self, inner: Recoverable | Attempting) -> None:
        super().__init__(inner)
        self._keeps_files = inner.keeps_files
        self._attempt = inner.attempt if isinstance(inner, Attempting) else _asking_first(inner)
        self._done: list[_Sent | _Ran | _Installed] = []
        """What brought the engine to its state, in order."""
        self._losses = 0
        self._lost = False
        """The last execution ended with the engine's death: heal before the next."""
        self._copies: Path | None = None
        self._mark = -1
        self._kept = 0

    def start(self) -> None:
        """As `Executor.start`; a new run begins."""
        self._losses = 0
        self.inner.start()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`; an engine that was lost before is healed first, and that is said once.

        Raises:
            KernelDied: it was lost a second time in this run.
        """
        notes: list[Output] = []
        whole = True
        while True:
            result = None if self._lost else self._attempt(code, timeout_s=timeout_s, on_output=on_output)
            if result is not None:
                break
            self._lost = True
            self._count_loss()
            text, whole = self._heal(on_output)
            self._lost = False
            note: Output = {"output_type": "stream", "name": "stderr", "text": text + "\n"}
            on_output(note)
            notes.append(note)
        if result.status == "ok":
            self._done.append(_Ran(code, timeout_s))
        self._lost = result.state_lost
        return replace(result, outputs=(*notes, *result.outputs), state_lost=result.state_lost or not whole)

    def _count_loss(self) -> None:
        """Of this run; one too many ends it."""
        self._losses += 1
        if self._losses > _MAX_LOSSES:
            raise KernelDied(
                f"The {self.name} kernel was lost a second time in this run.",
                executor=self.name,
                why="What had worked was run again once, and then it was lost again.",
                hint="The steps that had finished are kept. Look for what ends it, such as too little memory.",
            )

    def _heal(self, on_output: OutputHook) -> tuple[str, bool]:
        """Bring files and variables back: what to say, and whether all of it is there again."""
        self.inner.execute("", timeout_s=_EMPTY_S, on_output=on_output)  # if it is long in coming, that is said
        ran = sum(isinstance(each, _Ran) for each in self._done)
        packages = ", packages installed again" if any(isinstance(each, _Installed) for each in self._done) else ""
        pieces = "piece" if ran == 1 else "pieces"
        begun = f"The {self.name} kernel was lost, and another one took its place"
        done = 0
        for each in self._done:
            if isinstance(each, _Sent):
                if self._keeps_files and not self._is_copy(each):
                    continue  # code may have changed it since
                with contextlib.suppress(WorkspaceError):  # the code that needs it says so
                    self.inner.put_file(each.source, each.name)
                continue
            if isinstance(each, _Installed):
                try:
                    self.inner.install(each.packages)
                except ExecutorError as error:
                    return f"{begun}, without packages of before: {error.message} {error.why}", False
                continue
            again = self.inner.execute(each.code, timeout_s=each.timeout_s, on_output=lambda _: None)
            if again.state_lost:
                self._count_loss()
            if again.status != "ok":
                reason = f"{again.error.ename}: {again.error.evalue}" if again.error else again.status
                return f"{begun}: {done} of {ran} {pieces} of code ran again, then one failed ({reason}).", False
            done += 1
        files = "its files are still there" if self._keeps_files else "files were sent again"
        return f"{begun}: {files}{packages}, and the {ran} {pieces} of code that had worked ran again.", True

    def restart(self) -> None:
        """As `Executor.restart`: what was lost on purpose is not brought back."""
        self._done = [
            each
            for each in self._done
            if isinstance(each, _Installed) or (isinstance(each, _Sent) and not self._is_copy(each))
        ]
        self._lost = False
        self.inner.restart()

    def shutdown(self) -> None:
        """As `Executor.shutdown`."""
        self.inner.shutdown()
        self._done.clear()
        self._lost = False
        self._kept = 0
        copies, self._copies = self._copies, None
        if copies is not None:
            scratch.remove(copies)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """As `Executor.install`; another engine will have them too."""
        added = self.inner.install(packages)
        if added:
            self._done.append(_Installed(tuple(packages)))
        return added

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """As `Executor.put_file`."""
        info = self.inner.put_file(source, name, on_progress=on_progress)
        if name.startswith("."):
            self._keep(source, name, info.size)
        else:
            self._done.append(_Sent(name, source.absolute()))
        return info

    def _keep(self, source: Path, name: str, size: int) -> None:
        """Of a variable's file, which its sender removes: keep a copy."""
        if self._kept + size > _KEPT_BYTES:
            return
        if self._copies is None:
            self._copies, self._mark = scratch.make("sandbox-bridge")
        copy = self._copies / str(len(self._done))
        shutil.copyfile(source, copy)
        self._kept += size
        self._done.append(_Sent(name, copy))

    def _is_copy(self, sent: _Sent) -> bool:
        return self._copies is not None and sent.source.parent == self._copies


def _asking_first(inner: Recoverable) -> Callable[..., ExecutionResult | None]:
    """What `Attempting.attempt` is, for one that has to be asked."""

    def attempt(code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult | None:
        if inner.recover():
            return None
        return inner.execute(code, timeout_s=timeout_s, on_output=on_output)

    return attempt
