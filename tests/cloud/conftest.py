"""The providers of cloud sandboxes whose SDK this environment has: no environment has both.

The same tests run in the environment of the other tests for one of them, and in one of its own for the other (see
integration/test_scalebox.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from sandbox_agent_magic import executors, settings
from sandbox_agent_magic.executors.cloud import CloudExecutor
from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import ExecutionResult, Executor
from tests.support.cloud import running as services
from tests.support.cloud.running import Cloud

SDKS = {"scalebox": "scalebox", "e2b": "e2b_code_interpreter"}
KINDS = [kind for kind in executors.CLOUDS if find_spec(SDKS[kind])]
collect_ignore_glob = [] if KINDS else ["test_*.py"]


@dataclass(frozen=True)
class Provider:
    """A provider on loopback, and the settings that lead there."""

    cloud: Cloud
    make: Callable[..., HealingExecutor]
    """A new executor; takes settings by name in lower case."""

    @property
    def name(self) -> str:
        """The executor's."""
        return self.cloud.kind

    @property
    def environ(self) -> dict[str, str]:
        """The settings that lead there."""
        return environ(self.cloud)

    def ids(self) -> list[str]:
        """Of the sandboxes that live."""
        return [each["id"] for each in self.cloud.sandboxes()]


def environ(cloud: Cloud) -> dict[str, str]:
    if cloud.kind == "scalebox":
        return {"SCALEBOX_API_KEY": cloud.key, "SCALEBOX_DOMAIN": f"{cloud.address}/v1"}
    return {"E2B_API_KEY": cloud.key, "E2B_API_URL": cloud.url, "E2B_SANDBOX_URL": cloud.url}


@pytest.fixture(scope="session", params=KINDS)
def service(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as patch, services.start(request.param) as cloud:
        if request.param == "scalebox":  # whose SDK insists on TLS; in the other environment more tests follow
            patch.setenv("SSL_CERT_FILE", str(services.CERTIFICATE))
        yield cloud


@pytest.fixture
def provider(service: Cloud, tmp_path: Path) -> Iterator[Provider]:
    """The service, without what the test before left."""
    made: list[Executor] = []

    def make(**given: object) -> HealingExecutor:
        own = {name.lower(): value for name, value in environ(service).items()}
        loaded = settings.load({**own, **given}, environ={}, folder=tmp_path)
        executor = executors.create(service.kind, settings=loaded)
        assert isinstance(executor, HealingExecutor)
        made.append(executor)
        return executor

    yield Provider(service, make)
    service.heal()
    for executor in made:
        executor.shutdown()
    for sandbox in service.sandboxes():
        service.vanish(sandbox["id"])


@pytest.fixture
def executor(provider: Provider) -> HealingExecutor:
    return provider.make()


def inner(executor: Executor) -> CloudExecutor:
    """The executor itself."""
    found = executor.inner if isinstance(executor, HealingExecutor) else executor
    assert isinstance(found, CloudExecutor)
    return found


def run(executor: Executor, code: str, *, timeout_s: float = 60) -> ExecutionResult:
    return executor.execute(code, timeout_s=timeout_s, on_output=lambda _: None)


def text(result: ExecutionResult) -> str:
    return text_of(result.outputs).strip()
