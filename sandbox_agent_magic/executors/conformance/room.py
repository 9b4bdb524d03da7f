"""What the checks work with, and how they say that a promise is not kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import ExecutorError, SandboxAgentError
from ...outputs import text_of
from ...types import Capabilities, ExecutionResult, Executor, FileInfo, Output, OutputHook

TIMEOUT_S = 120.0
"""For code that is quick: an engine far away, or a busy machine, may take its time."""


class Unmet(Exception):
    """A promise was not kept; the text says which and how."""


class Room:
    """What a check works with: one executor, and a folder of the host's.

    Args:
        make: makes an executor of the kind that is looked at.
        folder: an empty folder.
        package: name of a small package that can be installed; None leaves the package index alone.
    """

    def __init__(self, make: Callable[[], Executor], folder: Path, package: str | None) -> None:
        self.make = make
        self.folder = folder
        self.package = package
        self.executor = make()

    @property
    def can(self) -> Capabilities:
        """What the executor says that it can do."""
        return self.executor.capabilities

    def run(
        self,
        code: str,
        *,
        timeout_s: float = TIMEOUT_S,
        on_output: OutputHook = lambda _: None,
        executor: Executor | None = None,
    ) -> ExecutionResult:
        """Run `code` here, or in another executor."""
        return (executor or self.executor).execute(code, timeout_s=timeout_s, on_output=on_output)

    def value(self, expression: str, *, executor: Executor | None = None) -> str:
        """The text of an expression's value; of code that fails, the exception's name."""
        result = self.run(expression, executor=executor)
        shown = [bundle(output).get("text/plain") for output in result.outputs if bundle(output)]
        return str(shown[-1]) if shown else result.error.ename if result.error else result.status

    def write(self, name: str, content: bytes) -> Path:
        """A new file on the host."""
        path = self.folder / name
        path.write_bytes(content)
        return path


def expect(condition: bool, otherwise: str) -> None:
    """Nothing if `condition` holds.

    Raises:
        Unmet: with `otherwise`.
    """
    if not condition:
        raise Unmet(otherwise)


def expect_status(result: ExecutionResult, wanted: str) -> None:
    """Raise `Unmet` unless the result has that status."""
    error = f" ({result.error.ename}: {result.error.evalue})" if result.error else ""
    expect(result.status == wanted, f"the status is {result.status}{error}, not {wanted}")


def expect_refusal(action: Callable[[], object], what: str, *, kind: type[SandboxAgentError] = ExecutorError) -> None:
    """Raise `Unmet` unless `action` raises an error of ours that tells the reader something."""
    try:
        action()
    except kind as error:
        expect(bool(error.message.strip()), f"{what} is refused without a word")
        return
    raise Unmet(f"{what} is not refused with {kind.__name__}")


def bundle(output: Output) -> dict[str, object]:
    """The mime bundle of a rich output; empty for others."""
    return dict(output["data"]) if output["output_type"] in ("execute_result", "display_data") else {}


def rich(result: ExecutionResult) -> list[dict[str, object]]:
    """The mime bundles of a result, in order."""
    return [found for found in map(bundle, result.outputs) if found]


def text(result: ExecutionResult) -> str:
    """What a person would read in the outputs."""
    return text_of(result.outputs)


def names(files: list[FileInfo]) -> dict[str, int]:
    """Names of files to their sizes."""
    return {info.name: info.size for info in files}
