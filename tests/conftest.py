"""Rules and fixtures that every suite shares."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator

import pytest

from tests.support.litellm_proxy import Proxy, litellm_proxy
from tests.support.model_server import REFUSALS, ModelServer, Reply
from tests.support.podman import Podman, podman_is_missing, shared_podman

STRICT = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
"""In CI a test that did not run proves nothing, so a skip is a failure there."""

REFUSAL = "skipped in CI, where every suite has to run: {reason}\n(mark it `may_skip` if it really cannot run there)"


def _is_xfail(report: pytest.TestReport | pytest.CollectReport) -> bool:
    return hasattr(report, "wasxfail")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI."""
    report = yield
    if STRICT and report.skipped and not _is_xfail(report) and item.get_closest_marker("may_skip") is None:
        report.longrepr = REFUSAL.format(reason=_reason(report))
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that skips itself as a whole (`importorskip`) into a failure in CI."""
    report = yield
    if STRICT and report.skipped:
        report.longrepr = REFUSAL.format(reason=_reason(report))
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests cost is not entered into the developer's own book."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def podman() -> Podman:
    """A real container engine, with images that were made here."""
    if why := podman_is_missing():
        pytest.skip(why)
    return shared_podman()


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    """A LiteLLM proxy, with a scripted model in it and a server behind it that says what it is told, or misbehaves."""
    script: list[Reply] = []
    with (
        ModelServer(lambda request: _upstream(request, script)) as upstream,
        litellm_proxy(upstream_url=upstream.url, script=script) as running,
    ):
        yield running


def _upstream(request: dict[str, object], script: list[Reply]) -> Reply:
    match request["model"]:
        case "told":
            return script.pop(0)
        case "slow":
            time.sleep(2.5)
        case "cut":
            return Reply("one two three four", fault="cut")
        case "no-tools" if "tools" in request:
            return Reply(status=400, body={"error": {"message": REFUSALS["tools"]}})
    return Reply("Hello from upstream.")
