"""A real LiteLLM proxy, asked through all three SDKs: streamed text, tools, and each of the proxy's errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sandbox_agent_magic import providers, settings
from sandbox_agent_magic.errors import (
    ProviderAuthError,
    ProviderBudgetExceeded,
    ProviderContentFiltered,
    ProviderContextTooLong,
    ProviderError,
    ProviderModelNotFound,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
)
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest, Tool, Usage
from tests.support.litellm_proxy import Proxy

# The first of these tests waits for the proxy, and on a fresh machine for its installation.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PYTHON = Tool("python", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})
SUM = (Message("system", "You help."), Message("user", "Calculate the sum of numbers from 1 to 100"))


def ask(
    proxy: Proxy,
    model: str | None = None,
    messages: tuple[Message, ...] = (Message("user", "hello there"),),
    *,
    key: str | None = None,
    pieces: list[str] | None = None,
    name: str = "litellm",
) -> ModelReply:
    """Ask as a reader would: by the settings of the provider's address and key."""
    key = key or proxy.key
    environ = {
        "litellm": {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": key},
        "azure": {
            "AZURE_API_BASE": proxy.root,
            "AZURE_OPENAI_API_KEY": key,
            "AZURE_API_VERSION": "2024-10-21",
            "AZURE_DEPLOYMENT_NAME": "gpt-4o",
        },
        "anthropic": {"ANTHROPIC_BASE_URL": proxy.root, "ANTHROPIC_API_KEY": key, "MODEL": "gpt-4o"},
    }
    asked = providers.create(settings.load({"agent_provider": name, "model": model}, environ=environ[name]))
    try:
        request = ModelRequest(messages, (PYTHON,), temperature=0.03, deadline_s=60)
        return asked.complete(request, on_text=(pieces if pieces is not None else []).append)
    finally:
        asked.close()


NAMES = ("litellm", "azure", "anthropic")
by_each = pytest.mark.parametrize("name", NAMES)


@by_each
def test_text_arrives_piece_by_piece_with_tokens_and_cost(proxy: Proxy, name: str) -> None:
    pieces: list[str] = []
    reply = ask(proxy, "scripted", (Message("user", "one\ntwo\nthree"),), pieces=pieces, name=name)
    assert reply.text == "echo: one\ntwo\nthree"
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text
    assert replace(reply.usage, cost_usd=None) == Usage(120, 0, 7)
    assert reply.usage.cost_usd == pytest.approx(0.000134)


@by_each
def test_a_model_without_a_price_has_no_cost_although_the_proxy_says_0(proxy: Proxy, name: str) -> None:
    assert ask(proxy, "no-tools", name=name).usage.cost_usd is None


@by_each
def test_a_tool_call_goes_out_and_its_result_comes_back(proxy: Proxy, name: str) -> None:
    first = ask(proxy, None, SUM, name=name)
    call = first.tool_calls[0]
    assert (call.name, json.loads(call.arguments)) == ("python", {"code": "print(sum(range(1, 101)))"})
    result = Message("tool", "5050\n", tool_call_id=call.id)
    last = ask(proxy, None, (*SUM, Message("assistant", first.text, tool_calls=first.tool_calls), result), name=name)
    assert (last.text, last.tool_calls, last.finish_reason) == ("The sum is 5050.", (), "stop")


@pytest.mark.parametrize("model", ["no-tools", "up-no-tools"])
@by_each
def test_a_model_without_tools_is_asked_without_them(proxy: Proxy, model: str, name: str) -> None:
    assert ask(proxy, model, name=name).text


@by_each
def test_without_tools_the_code_comes_in_a_fenced_block(proxy: Proxy, name: str) -> None:
    first = ask(proxy, "no-tools", SUM, name=name)
    assert first.text == "I compute it.\n```python\nprint(sum(range(1, 101)))\n```"
    output = Message("user", "Output:\n5050\n")
    last = ask(proxy, "no-tools", (*SUM, Message("assistant", first.text), output), name=name)
    assert last.text == "The sum is 5050."


@by_each
def test_a_model_that_refuses_the_temperature_is_asked_without_it(proxy: Proxy, name: str) -> None:
    assert ask(proxy, "no-temperature", name=name).text == "echo: hello there"


ERRORS: dict[str, tuple[type[ProviderError], bool]] = {
    "nobody-knows-this-model": (ProviderModelNotFound, False),
    "fails-rate": (ProviderRateLimited, True),
    "fails-quota": (ProviderQuotaExceeded, False),
    "fails-context": (ProviderContextTooLong, False),
    "fails-filter": (ProviderContentFiltered, False),
    "fails-overload": (ProviderUnavailable, True),
    "fails-broken": (ProviderUnavailable, True),
    "up-slow": (ProviderTimeout, True),
    "up-cut": (ProviderUnavailable, True),
    "up-down": (ProviderUnavailable, True),
}


@by_each
@pytest.mark.parametrize(("model", "error", "retryable"), [(m, *row) for m, row in ERRORS.items()], ids=ERRORS)
def test_each_error_of_the_proxy_is_told_apart(
    proxy: Proxy, name: str, model: str, error: type[ProviderError], retryable: bool
) -> None:
    with pytest.raises(ProviderError) as caught:
        ask(proxy, model, name=name)
    assert type(caught.value) is error
    assert caught.value.retryable is retryable
    assert len(caught.value.lines()) == 3


@by_each
def test_the_wait_that_a_rate_limit_asks_for_is_read_from_its_text(proxy: Proxy, name: str) -> None:
    with pytest.raises(ProviderRateLimited) as caught:
        ask(proxy, "fails-rate", name=name)
    assert caught.value.retry_after == 7.0


@by_each
def test_a_wrong_key_is_named_by_its_source_and_not_shown(proxy: Proxy, name: str) -> None:
    with pytest.raises(ProviderAuthError) as caught:
        ask(proxy, "scripted", key="sk-wrong-0123456789", name=name)
    setting = {"azure": "AZURE_OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}.get(name, "OPENAI_API_KEY")
    assert f"{setting} from environment, ends in ...6789" in caught.value.hint
    assert "sk-wrong" not in str(caught.value)


@by_each
def test_a_used_up_budget_is_never_retried(proxy: Proxy, name: str) -> None:
    with pytest.raises(ProviderBudgetExceeded, match="budget") as caught:
        ask(proxy, "scripted", key="sk-budget-0123456789", name=name)
    assert not caught.value.retryable


def test_a_key_that_is_out_of_requests_says_when_to_come_back(proxy: Proxy) -> None:
    def ask_often() -> None:
        for _ in range(3):
            ask(proxy, "scripted", key="sk-rate-0123456789")

    with pytest.raises(ProviderRateLimited) as caught:
        ask_often()
    assert caught.value.retry_after
    assert 0 < caught.value.retry_after <= 60


@by_each
def test_a_model_that_the_key_may_not_use(proxy: Proxy, name: str) -> None:
    with pytest.raises(ProviderModelNotFound, match="may not use"):
        ask(proxy, "scripted", key="sk-other-model-0123456789", name=name)


def test_the_proxys_models_are_listed(proxy: Proxy) -> None:
    chosen = providers.create(settings.load(environ={"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": proxy.key}))
    assert {"gpt-4o", "scripted", "no-tools"} <= set(chosen.models())
