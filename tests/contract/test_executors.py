"""What every executor promises: the shipped suite finds each promise kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic import cli
from sandbox_agent_magic.executors.conformance import check
from sandbox_agent_magic.executors.local import LocalExecutor
from sandbox_agent_magic.executors.remote import RemoteExecutor, Target
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.types import ExecutionResult, Executor, OutputHook
from tests.support.jupyter_servers import KINDS, jupyter
from tests.support.podman import Podman

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def no_shell_stays() -> Iterator[None]:
    """The local executor makes one where there is none."""
    yield
    InteractiveShell.clear_instance()


def landlock() -> Executor:
    return SandboxExecutor(tier="landlock")


@pytest.mark.parametrize("make", [LocalExecutor, landlock])
def test_each_promise_is_kept(make: Callable[[], Executor]) -> None:
    assert [f"{found.name}: {found.detail}" for found in check(make) if not found.ok] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_far_away_keeps_each_promise_and_leaves_nothing_there(kind: str) -> None:
    with jupyter(kind) as server:
        target = Target(server.url, server.token)
        assert [
            f"{found.name}: {found.detail}" for found in check(lambda: RemoteExecutor(target)) if not found.ok
        ] == []
        assert server.kernels() == []


def test_a_container_keeps_each_promise_and_leaves_none_there(podman: Podman) -> None:
    assert [f"{found.name}: {found.detail}" for found in check(podman.executor) if not found.ok] == []
    assert podman.containers() == []


class Careless(LocalExecutor):
    """Breaks promises: nothing is passed on while code runs, no error is kept, installing is a lie."""

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        result = super().execute(code, timeout_s=timeout_s, on_output=lambda _: None)
        for output in result.outputs:
            on_output(output)
        return replace(result, error=None)

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        return [f"{name}==1.0" for name in packages]

    def get_file(self, name: str, destination: Path) -> None:
        destination.write_bytes(Path(name).read_bytes().replace(b"\r\n", b"\n"))


def test_each_broken_promise_is_found_and_the_rest_goes_on() -> None:
    broken = {found.name.split(";")[0].split(":")[0]: found.detail for found in check(Careless) if not found.ok}
    assert "passed on 0.0" in broken.pop(
        "Outputs arrive while the code runs, in order, and stdout and stderr are told apart"
    )
    assert broken.pop("An exception is a result with name, text and traceback") == "the result carries no error"
    assert broken.pop("Packages can be installed where it says so") == "installing is not refused with ExecutorError"
    assert (
        broken.pop("Files go in and come out byte for byte, whatever their names") == "plain.csv: other bytes come back"
    )
    assert set(broken) == {
        "Letters of all scripts go in and come out",
        "Code that takes too long is stopped",
        "`interrupt` from another thread ends the code that runs",
        "A file of 20 MB goes in and out, and how far it is can be told",
    }


def test_the_doctor_finds_that_the_sandbox_keeps_each_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--executor", "sandbox", "--conformance"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok   ") for line in lines[:-2])
    assert lines[-1] == f"sandbox keeps {len(lines) - 2} of {len(lines) - 2} promises"


def test_the_doctor_says_what_executors_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--executor", "moon", "--conformance"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "There is no executor 'moon'."
