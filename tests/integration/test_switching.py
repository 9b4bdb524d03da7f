"""Several providers and models in one notebook: one conversation, and nothing left open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_agent_magic import Session
from tests.support.model_server import ModelServer, Reply

pytestmark = pytest.mark.integration

NAMES = ("openai", "azure", "anthropic")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """Calls the tool, then answers, in whichever protocol it is asked."""
    with ModelServer(
        lambda body: Reply("Done.") if "zebra" in str(body["messages"]) else Reply(code="'zebra'")
    ) as made:
        yield made


@pytest.fixture
def session(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.chdir(tmp_path)
    with Session(
        openai_api_key="k",
        openai_base_url=server.url,
        azure_openai_api_key="k",
        azure_api_base=server.root,
        azure_api_version="2024-10-21",
        azure_deployment_name="d",
        anthropic_api_key="k",
        anthropic_base_url=server.root,
    ) as made:
        yield made


def test_a_conversation_goes_on_at_another_provider(server: ModelServer, session: Session) -> None:
    results = [session.ask("Go.", overrides={"agent_provider": name}) for name in (*NAMES, "openai")]
    assert [result.status for result in results] == ["completed"] * 4
    assert [result.provider for result in results] == [*NAMES, "openai"]
    assert len(results[0].steps) == 1
    paths = [seen.path.partition("?")[0] for seen in server.seen]
    assert paths == [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/openai/deployments/d/chat/completions",
        "/v1/messages",
        "/v1/chat/completions",
    ]
    # The call that the first model made is known to the next ones, each in its own words.
    assert b'"tool_use"' in server.seen[3].raw
    assert b'"tool_calls"' in server.seen[4].raw


def test_the_model_is_chosen_cell_by_cell(server: ModelServer, session: Session) -> None:
    for model in ("one", "two", None):
        session.ask("Go.", overrides={"agent_provider": "openai", "model": model})
    assert [seen.json["model"] for seen in server.seen] == ["one", "one", "two", "gpt-4o"]


def test_a_hundred_switches_leave_no_connection_open(server: ModelServer, session: Session) -> None:
    def switch(number: int) -> None:
        session.ask("Go.", overrides={"agent_provider": NAMES[number % 3], "model": f"model-{number % 7}"})

    for number in range(10):
        switch(number)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        switch(number)
    end = time.monotonic() + 3
    while (after := len(os.listdir("/proc/self/fd"))) > before and time.monotonic() < end:
        time.sleep(0.05)
    assert after <= before
