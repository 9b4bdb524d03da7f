"""An executor that installs what a step turns out to miss, and runs the step again."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ExecutorError
from ..sandbox import distribution_of, missing_module
from ..types import ExecutionResult, Executor, FileInfo, Output, OutputHook
from .wrapping import WrappingExecutor

_MAX_PER_STEP = 4
_MAX_PER_SESSION = 30


class InstallingExecutor(WrappingExecutor[Executor]):
    """Wraps an executor that can install.

    Args:
        inner: where the code runs.
        automatic: whether to install without being asked; otherwise the step's outputs say how to.
    """

    def __init__(self, inner: Executor, *, automatic: bool = True) -> None:
        super().__init__(inner)
        self.automatic = automatic
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
