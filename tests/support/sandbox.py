"""What the sandbox suites share."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import psutil

from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import ExecutionResult, Executor


def run(executor: Executor, code: str, *, timeout_s: float = 60) -> ExecutionResult:
    """Run `code`, which may be indented."""
    return executor.execute(textwrap.dedent(code), timeout_s=timeout_s, on_output=lambda output: None)


def text(result: ExecutionResult) -> str:
    """What a person would read in the outputs."""
    return text_of(result.outputs).strip()


def attempt(executor: Executor, code: str) -> str:
    """The name of the exception that `code` ends with, or what it printed."""
    result = run(executor, code)
    return result.error.ename if result.error else text(result)


def assert_ends_with_its_host(script: str, *, least: int) -> None:
    """Kill the Python that runs `script`, once it has printed "ok": all processes of its sandbox must end.

    Args:
        script: starts a sandbox, says so, and stays.
        least: how many processes there must have been.
    """
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == "ok\n"
        inside = psutil.Process(parent.pid).children(recursive=True)
        assert len(inside) >= least
        parent.kill()
        _gone, alive = psutil.wait_procs(inside, timeout=5)
        assert not alive
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
