"""What executors that wrap another one have in common: all that they do not change is the inner one's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from ..types import Capabilities, ExecutionResult, Executor, FileInfo, OutputHook, ProgressHook

Inner = TypeVar("Inner", bound=Executor)


class WrappingExecutor(Generic[Inner]):
    """Wraps an executor. Whoever made that one hands it over: this one closes it."""

    def __init__(self, inner: Inner) -> None:
        self.inner = inner
        self.name = inner.name

    @property
    def capabilities(self) -> Capabilities:
        """As `Executor.capabilities`."""
        return self.inner.capabilities

    def start(self) -> None:
        """As `Executor.start`."""
        self.inner.start()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        return self.inner.execute(code, timeout_s=timeout_s, on_output=on_output)

    def interrupt(self) -> None:
        """As `Executor.interrupt`."""
        self.inner.interrupt()

    def restart(self) -> None:
        """As `Executor.restart`."""
        self.inner.restart()

    def shutdown(self) -> None:
        """As `Executor.shutdown`."""
        self.inner.shutdown()

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """As `Executor.put_file`."""
        return self.inner.put_file(source, name, on_progress=on_progress)

    def get_file(self, name: str, destination: Path) -> None:
        """As `Executor.get_file`."""
        self.inner.get_file(name, destination)

    def list_files(self) -> Sequence[FileInfo]:
        """As `Executor.list_files`."""
        return self.inner.list_files()

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """As `Executor.install`."""
        return self.inner.install(packages)


def unwrapped(executor: Executor) -> Executor:
    """The executor itself, without what wraps it."""
    while isinstance(executor, WrappingExecutor):
        executor = executor.inner
    return executor
