"""Retries against real servers and the real clock: when a request is sent again, when not, and what the reader sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise

import pytest

from sandbox_agent_magic import providers, settings
from sandbox_agent_magic.agent.request import Asker
from sandbox_agent_magic.errors import ProviderError, ProviderRateLimited, ProviderTimeout
from sandbox_agent_magic.session.run import limits_of
from sandbox_agent_magic.types import Event, Message, ModelReply, RetryScheduled, Usage, Verdict
from tests.support.model_server import ModelServer, Reply

pytestmark = pytest.mark.integration

NAMES = ("openai", "anthropic")
OK = Reply("Here.")


class Open:
    """A gate that lets everything pass."""

    def allow_request(self, estimate: Usage) -> Verdict:
        return Verdict(True)

    def allow_code(self, code: str) -> Verdict:
        return Verdict(True)


def ask(server: ModelServer, events: list[Event], *, name: str = "openai", **given: object) -> ModelReply | str:
    """One question, with the retries that the settings allow."""
    environ = {
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": server.url,
        "AZURE_OPENAI_API_KEY": "k",
        "AZURE_API_BASE": server.root,
        "AZURE_API_VERSION": "2024-10-21",
        "AZURE_DEPLOYMENT_NAME": "d",
        "ANTHROPIC_API_KEY": "k",
        "ANTHROPIC_BASE_URL": server.root,
    }
    chosen = settings.load({"agent_provider": name, **given}, environ=environ)
    with closing(providers.create(chosen)) as provider:
        return Asker(provider, limits_of(chosen)).ask(
            (Message("user", "Go."),),
            temperature=None,
            turn=1,
            emit=events.append,
            gate=Open(),
            on_attempt=lambda: None,
        )


def waits(server: ModelServer) -> list[float]:
    """Seconds between the requests that the server saw."""
    return [later.at - earlier.at for earlier, later in pairwise(server.seen)]


def limited(message: str = "Slow down.", **headers: str) -> Reply:
    return Reply(status=429, body={"error": {"message": message}}, headers=headers)


LIMITS = {
    "header": limited(**{"Retry-After": "1"}),
    "header in milliseconds": limited(**{"Retry-After-Ms": "700"}),
    "text of LiteLLM": limited("litellm.RateLimitError: Rate limit reached. Please try again in 1s."),
    "overload with a header": Reply(
        status=503, body={"error": {"message": "overloaded"}}, headers={"Retry-After": "1"}
    ),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reply", LIMITS.values(), ids=LIMITS)
def test_the_wait_that_the_server_asks_for_is_kept_to_a_tenth_of_a_second(name: str, reply: Reply) -> None:
    events: list[Event] = []
    wished = 0.7 if reply.headers.get("Retry-After-Ms") else 1.0
    with ModelServer([reply, OK]) as server:
        assert isinstance(ask(server, events, name=name), ModelReply)
        (waited,) = waits(server)
    assert wished <= waited < wished + 0.1
    (shown,) = [event for event in events if isinstance(event, RetryScheduled)]
    assert (shown.attempt, shown.wait_s) == (1, wished)
    assert shown.reason


def test_without_a_wish_the_waits_double_and_are_spread() -> None:
    broken = Reply(status=500, body={"error": {"message": "it broke"}})
    with ModelServer([broken, broken, broken, OK]) as server:
        ask(server, [])
        first, second, third = waits(server)
    assert 0.5 <= first < 0.75
    assert 1.0 <= second < 1.4
    assert 2.0 <= third < 2.7


def test_max_retry_bounds_the_attempts_and_the_error_says_how_many_there_were() -> None:
    with ModelServer(limited(**{"Retry-After-Ms": "10"})) as server:
        with pytest.raises(ProviderRateLimited) as caught:
            ask(server, [], max_retry=2)
        assert len(server.seen) == 3
    assert "Tried 3 times." in caught.value.why


def test_without_retries_there_is_one_attempt() -> None:
    with ModelServer(limited()) as server:
        with pytest.raises(ProviderRateLimited):
            ask(server, [], max_retry=0)
        assert len(server.seen) == 1


def test_a_wait_that_is_longer_than_the_time_left_is_not_begun() -> None:
    begun = time.monotonic()
    with ModelServer(limited(**{"Retry-After": "3600"})) as server, pytest.raises(ProviderRateLimited) as caught:
        ask(server, [], request_timeout=60)
    assert time.monotonic() - begun < 3
    assert "asks to wait 3,600 s, longer than REQUEST_TIMEOUT leaves" in caught.value.why


def test_all_attempts_together_take_no_longer_than_request_timeout() -> None:
    begun = time.monotonic()
    with ModelServer(Reply("a b c d", fault="cut", delay_s=0.2)) as server, pytest.raises(ProviderError):
        ask(server, [], request_timeout=3, max_retry=100)
    assert time.monotonic() - begun < 3.5


def test_a_silent_server_uses_the_time_up_once() -> None:
    begun = time.monotonic()
    with ModelServer(Reply(fault="hang", events=[])) as server:
        with pytest.raises(ProviderTimeout, match="within"):
            ask(server, [], request_timeout=1.5)
        assert len(server.seen) == 1
    assert 1.4 < time.monotonic() - begun < 2.5


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_falls_silent_in_the_middle_is_asked_again(name: str) -> None:
    with ModelServer([Reply("a b c d", fault="hang"), OK]) as server:
        reply = ask(server, [], name=name, agent_idle_timeout=1)
        assert isinstance(reply, ModelReply)
        assert reply.text == "Here."
        assert 1.4 < waits(server)[0] < 2.5


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_is_slow_to_begin_or_speaks_slowly_is_not_cut(name: str) -> None:
    def begins_late(request: dict[str, object]) -> Reply:
        time.sleep(1.6)  # longer than the idle timeout: no word has come yet
        return Reply("one two", delay_s=0.3)

    with ModelServer(begins_late) as server:
        reply = ask(server, [], name=name, agent_idle_timeout=1)
        assert isinstance(reply, ModelReply)
        assert reply.text == "one two"
        assert len(server.seen) == 1


NEVER: dict[str, Callable[[], Reply]] = {
    "budget": lambda: Reply(status=429, body={"error": {"message": "over", "type": "budget_exceeded"}}),
    "quota": lambda: Reply(status=429, body={"error": {"message": "over", "code": "insufficient_quota"}}),
    "credit": lambda: Reply(status=400, body={"error": {"message": "Your credit balance is too low"}}),
    "auth": lambda: Reply(status=401, body={"error": {"message": "no"}}),
    "model": lambda: Reply(status=404, body={"error": {"message": "no such model"}}),
    "context": lambda: Reply(status=400, body={"error": {"message": "prompt is too long"}}),
    "filter": lambda: Reply(status=400, body={"error": {"message": "x", "code": "content_filter"}}),
    "page": lambda: Reply(fault="html"),
}


@pytest.mark.parametrize("reply", NEVER.values(), ids=NEVER)
def test_what_would_fail_again_is_not_sent_again(reply: Callable[[], Reply]) -> None:
    with ModelServer(reply()) as server:
        with pytest.raises(ProviderError):
            ask(server, [])
        assert len(server.seen) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_a_server_that_is_not_there_is_not_asked_again(address: str) -> None:
    events: Sequence[Event] = []
    with ModelServer(OK) as server:
        server.url = address
        begun = time.monotonic()
        with pytest.raises(ProviderError):
            ask(server, list(events))
    assert time.monotonic() - begun < 0.5
