"""Real servers that several integration tests share."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.litellm_proxy import Proxy, litellm_proxy
from tests.support.model_server import REFUSALS, ModelServer, Reply


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
