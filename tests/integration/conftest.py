"""Real servers and sandboxes that several integration tests share."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from tests.support.litellm_proxy import Proxy, litellm_proxy
from tests.support.model_server import REFUSALS, ModelServer, Reply


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxExecutor]:
    """One sandbox for the tests of a module; those that spoil theirs make their own."""
    executor = SandboxExecutor()
    executor.start()
    yield executor
    executor.shutdown()


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    """A LiteLLM proxy, with a scripted model in it and a misbehaving server behind it."""
    with ModelServer(_upstream) as upstream, litellm_proxy(upstream_url=upstream.url) as running:
        yield running


def _upstream(request: dict[str, object]) -> Reply:
    match request["model"]:
        case "slow":
            time.sleep(2.5)
        case "cut":
            return Reply("one two three four", fault="cut")
        case "no-tools" if "tools" in request:
            return Reply(status=400, body={"error": {"message": REFUSALS["tools"]}})
    return Reply("Hello from upstream.")
