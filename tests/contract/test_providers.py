"""What every provider promises, checked on each of them through the public seam alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from sandbox_agent_magic.errors import ProviderError, ProviderRateLimited
from sandbox_agent_magic.providers.openai import OpenAIProvider
from sandbox_agent_magic.providers.scripted import ScriptedProvider, Step, code_reply
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest, Provider, Tool
from tests.support.model_server import ModelServer, Reply

PYTHON = Tool("python", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})
REQUEST = ModelRequest((Message("system", "You help."), Message("user", "Go.")), (PYTHON,), deadline_s=20)
CODE = "print('hi ✓')"

Make = Callable[[Sequence[str]], Provider]
"""Makes a provider whose model says, in order, each of: `text`, `code`, `rate` (an error)."""


def over_http(stack: ExitStack) -> Make:
    replies = {
        "text": Reply("one \ntwo\n"),
        "code": Reply("See:", code=CODE),
        "rate": Reply(status=429, body={"error": {"message": "Slow down. Try again in 2s."}}),
    }

    def make(says: Sequence[str]) -> Provider:
        server = stack.enter_context(ModelServer([replies[word] for word in says]))
        return OpenAIProvider(name="openai", model="m", base_url=server.url, api_key="k", trust_env=False)

    return make


def by_script(stack: ExitStack) -> Make:
    replies: dict[str, Step] = {
        "text": ModelReply("one \ntwo\n"),
        "code": code_reply(CODE, "See:"),
        "rate": ProviderRateLimited("Slow down.", provider="scripted", model="script", retry_after=2.0),
    }
    return lambda says: ScriptedProvider([replies[word] for word in says])


@pytest.fixture(params=[over_http, by_script], ids=["openai", "scripted"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with ExitStack() as stack:
        yield request.param(stack)


def quiet(text: str) -> None:
    """Take the text and do nothing."""


def test_it_says_what_it_is(make: Make) -> None:
    provider = make([])
    assert provider.name
    assert provider.model
    assert provider.traits.images
    provider.close()


def test_the_pieces_of_the_text_make_up_the_reply(make: Make) -> None:
    pieces: list[str] = []
    provider = make(["text"])
    reply = provider.complete(REQUEST, on_text=pieces.append)
    provider.close()
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text == "one \ntwo\n"
    assert reply.finish_reason == "stop"


def test_code_comes_as_a_tool_call_with_an_id(make: Make) -> None:
    provider = make(["code"])
    reply = provider.complete(REQUEST, on_text=quiet)
    provider.close()
    assert (reply.text, reply.finish_reason) == ("See:", "tool_calls")
    assert [call.name for call in reply.tool_calls] == ["python"]
    assert reply.tool_calls[0].id
    assert json.loads(reply.tool_calls[0].arguments) == {"code": CODE}


def test_code_comes_as_a_fenced_block_where_no_tool_is_offered(make: Make) -> None:
    provider = make(["code"])
    reply = provider.complete(ModelRequest(REQUEST.messages), on_text=quiet)
    provider.close()
    assert reply.tool_calls == ()
    assert reply.text == f"See:\n```python\n{CODE}\n```"


def test_one_call_is_one_attempt_and_the_next_one_works(make: Make) -> None:
    provider = make(["rate", "text"])
    with pytest.raises(ProviderRateLimited) as caught:
        provider.complete(REQUEST, on_text=quiet)
    assert caught.value.retryable
    assert caught.value.retry_after == 2.0
    assert provider.complete(REQUEST, on_text=quiet).text == "one \ntwo\n"
    provider.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_the_hook_raises_comes_through(make: Make, error: type[BaseException]) -> None:
    def fail(text: str) -> None:
        raise error("ours")

    provider = make(["text", "text"])
    with pytest.raises(error, match="ours"):
        provider.complete(REQUEST, on_text=fail)
    assert provider.complete(REQUEST, on_text=quiet).text
    provider.close()


def test_it_can_be_closed_twice(make: Make) -> None:
    provider = make(["text"])
    provider.complete(REQUEST, on_text=quiet)
    provider.close()
    provider.close()


def test_its_own_model_is_among_those_it_lists_or_the_list_is_the_servers(make: Make) -> None:
    provider = make([])
    try:
        names = list(provider.models())
    except ProviderError:
        names = []
    provider.close()
    assert names
    assert all(isinstance(name, str) for name in names)
