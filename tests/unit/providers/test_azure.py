"""The Azure provider against a loopback server: its addresses, its key, its listing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest

from sandbox_agent_magic import providers, settings
from sandbox_agent_magic.errors import ProviderModelNotFound, ProviderUnavailable
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest
from tests.support.model_server import ModelServer, Reply

KEY = "0123456789abcdef0123456789abcdef"


def ask(server: ModelServer) -> ModelReply:
    """One question to the deployment `mine`."""
    with closing(providers.create(loaded(server))) as provider:
        return provider.complete(ModelRequest((Message("user", "Go."),)), on_text=lambda text: None)


def listed(server: ModelServer) -> Sequence[str]:
    with closing(providers.create(loaded(server))) as provider:
        return provider.models()


def loaded(server: ModelServer) -> settings.Settings:
    return settings.load(
        environ={
            "AZURE_OPENAI_API_KEY": KEY,
            "AZURE_OPENAI_ENDPOINT": server.root,
            "OPENAI_API_VERSION": "2024-10-21",
            "AZURE_DEPLOYMENT_NAME": "mine",
        }
    )


def test_the_deployment_is_asked_at_its_own_address_with_the_key_in_azures_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "of-the-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "of-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: of-the-environment")
    with ModelServer([Reply("Here.")]) as server:
        assert ask(server).text == "Here."
        (seen,) = server.seen
    assert seen.path == "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    assert seen.headers["api-key"] == KEY
    assert "of-the-environment" not in str(seen.headers)


def test_deployments_are_listed_where_the_service_does_that_and_models_elsewhere() -> None:
    with ModelServer(Reply(), models=["mine", "other"], listings=["/openai/deployments"]) as server:
        assert list(listed(server)) == ["mine", "other"]
    with ModelServer(Reply(), models=["gpt-4o"], listings=["/openai/models"]) as server:
        assert list(listed(server)) == ["gpt-4o"]


def test_a_service_that_lists_nothing_is_one_error_with_nothing_behind_it() -> None:
    with ModelServer(Reply(), listings=()) as server, pytest.raises(ProviderUnavailable) as caught:
        listed(server)
    assert caught.value.__context__ is None


def test_a_deployment_that_is_not_there_is_answered_with_those_that_are() -> None:
    missing = {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}
    with (
        ModelServer(
            Reply(status=404, body={"error": missing}), models=["mine-2"], listings=["/openai/deployments"]
        ) as server,
        pytest.raises(ProviderModelNotFound) as caught,
    ):
        ask(server)
    assert caught.value.hint == "Nearest there: mine-2 (set AZURE_DEPLOYMENT_NAME or -m). `%agent models` lists all."


def test_the_price_is_that_of_the_model_which_the_service_says_it_deploys() -> None:
    def chunk(choices: list[object], **more: object) -> dict[str, object]:
        return {"object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": choices, **more}

    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
    events = [
        {"choices": [], "prompt_filter_results": []},
        chunk([{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]),
        chunk([], usage=usage),
    ]
    with ModelServer([Reply(events=events)]) as server:
        assert ask(server).usage.cost_usd == pytest.approx(2.5, rel=0.5)
