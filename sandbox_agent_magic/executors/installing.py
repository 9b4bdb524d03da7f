"""An executor that installs what a step turns out to miss, and runs the step again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ExecutorError
from ..sandbox import distribution_of, missing_module
from ..types import ExecutionResult, Executor, FileInfo, Output, OutputHook, ProgressHook

_MAX_PER_STEP = 4
_MAX_PER_SESSION = 30


class InstallingExecutor:
    """Wraps an executor that can install. Whoever made that one hands it over: this one closes it.

    Args:
        inner: where the code runs.
        automatic: whether to install without being asked; otherwise the step's outputs say how to.
    """

    def __init__(self, inner: Executor, *, automatic: bool = True) -> None:
        self.inner = inner
        self.automatic = automatic
        self.name = inner.name
        self.capabilities = inner.capabilities
        self._tried: set[str] = set()

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`; a step that misses a package runs again once the package is there."""
        notes: list[Output] = []
        written: dict[str, FileInfo] = {}

        def say(text: str) -> Output:
            note: Output = {"output_type": "stream", "name": "stderr", "text": text + "\n"}
            on_output(note)
            return note

        while True:
            result = self.inner.execute(code, timeout_s=timeout_s, on_output=on_output)
            written |= {info.name: info for info in result.new_files}
            error = result.error
            module = missing_module(error.ename, error.evalue, code) if error else None
            if module is None:
                break
            refusal = self._refusal(module, allowed=len(notes) < _MAX_PER_STEP)
            if refusal:
                notes.append(say(refusal))
                break
            say(f"{module} is missing: installing {distribution_of(module)} in the sandbox ...")
            try:
                again, text = self._install(module)
            except KeyboardInterrupt:
                result = replace(result, status="interrupted")
                break
            notes.append(say(text))
            if not again:
                break
        return replace(result, outputs=(*notes, *result.outputs), new_files=tuple(written.values()))

    def _refusal(self, module: str, *, allowed: bool) -> str:
        """Why `module` is not installed now; empty if it is to be."""
        name = distribution_of(module)
        if not self.automatic:
            return (
                f"{module} is not installed in the sandbox. To install it: %agent install {name}; "
                "with AGENT_AUTO_INSTALL=true this happens by itself."
            )
        if module in self._tried or not allowed or len(self._tried) >= _MAX_PER_SESSION:
            return f"{module} is not installed, and {name} was tried already. Use another way."
        return ""

    def _install(self, module: str) -> tuple[bool, str]:
        """Install what brings `module`: whether to run the step again, and what to say."""
        name = distribution_of(module)
        try:
            added = self.inner.install([name])
        except ExecutorError as error:
            self._tried.add(module)
            return False, f"{module} is not installed. {error.message} {error.why} Use another way."
        self._tried.add(module)
        if not added:
            return False, f"{name} is installed, but brings no module {module}. Use another way."
        return True, f"{module} was missing: installed {', '.join(added)} in the sandbox. The step runs again."

    # ---- the rest is the inner one's ----------------------------------------------------------------------------

    def start(self) -> None:
        """As `Executor.start`."""
        self.inner.start()

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
