"""What the sandbox suites share."""

from __future__ import annotations

import textwrap

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import ExecutionResult


def run(executor: SandboxExecutor, code: str, *, timeout_s: float = 60) -> ExecutionResult:
    """Run `code`, which may be indented."""
    return executor.execute(textwrap.dedent(code), timeout_s=timeout_s, on_output=lambda output: None)


def text(result: ExecutionResult) -> str:
    """What a person would read in the outputs."""
    return text_of(result.outputs).strip()


def attempt(executor: SandboxExecutor, code: str) -> str:
    """The name of the exception that `code` ends with, or what it printed."""
    result = run(executor, code)
    return result.error.ename if result.error else text(result)
