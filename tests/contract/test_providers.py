"""What every provider promises, checked on each of them through the public seam alone.

Real SDKs against real servers: a LiteLLM proxy at its OpenAI, Azure and Anthropic addresses, the embedded model's own
server, and a loopback server for what a proxy would hide.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

from sandbox_agent_magic import model_store, providers, settings
from sandbox_agent_magic.errors import ProviderRateLimited
from sandbox_agent_magic.prompts import system_prompt
from sandbox_agent_magic.providers import local_server
from sandbox_agent_magic.providers.local import TRAITS
from sandbox_agent_magic.providers.scripted import ScriptedProvider, Step, code_reply
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest, Provider, Tool
from tests.support.litellm_proxy import Proxy
from tests.support.model_server import ModelServer, Reply

# The first test with the proxy waits for it, and on a fresh machine for its installation.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

Word = Literal["text", "code", "rate"]
"""What a model says: text, code, or that it is asked too often."""

PYTHON = Tool("python", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})
CODE = "print('hi ✓')"
REPLIES = {
    "text": Reply("one \ntwo\n"),
    "code": Reply("See:", code=CODE),
    "rate": Reply(status=429, body={"error": {"message": "Slow down. Try again in 2s."}}),
}
KEY = "sk-good-0123456789"
VERSION = "2024-10-21"


class Backend(ABC):
    """A provider's name, and how one is made whose model says what it is told to."""

    listed = True
    """Whether its models can be listed."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    @abstractmethod
    def make(self, *says: Word) -> Provider:
        """A provider whose model says these, in order."""

    def request(self, *, tools: bool = True) -> ModelRequest:
        """A request that the model answers as it was told to."""
        messages = (Message("system", "You help."), Message("user", "Go."))
        return ModelRequest(messages, (PYTHON,) if tools else (), temperature=0.0, deadline_s=60)


def chosen(name: str, environ: dict[str, str], model: str) -> Provider:
    """A provider as a reader gets it: by `-p`, `-m` and the settings."""
    return providers.create(settings.load({"agent_provider": name, "model": model}, environ=environ))


def environ_of(name: str, root: str, key: str) -> dict[str, str]:
    """The lines of a `.env` for a server that speaks all three protocols."""
    match name:
        case "azure":
            base = {"AZURE_OPENAI_API_KEY": key, "AZURE_API_BASE": root, "AZURE_API_VERSION": VERSION}
            return {**base, "AZURE_DEPLOYMENT_NAME": "of-the-settings"}
        case "anthropic":
            return {"ANTHROPIC_API_KEY": key, "ANTHROPIC_BASE_URL": root}
    return {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": f"{root}/v1"}


class Loopback(Backend):
    """A provider at our own loopback server."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        super().__init__(stack)
        self.name = name

    def make(self, *says: Word) -> Provider:
        server = self.stack.enter_context(ModelServer([REPLIES[word] for word in says]))
        return chosen(self.name, environ_of(self.name, server.root, KEY), "scripted")


class Proxied(Backend):
    """A provider at a LiteLLM proxy, whose model is asked of our own loopback server."""

    def __init__(self, stack: ExitStack, name: str, proxy: Proxy) -> None:
        super().__init__(stack)
        self.name = name
        self.proxy = proxy
        self.listed = name != "azure"  # LiteLLM hands Azure's listings on to an Azure that is not there

    def make(self, *says: Word) -> Provider:
        self.proxy.script[:] = [REPLIES[word] for word in says]
        return chosen(self.name, environ_of(self.name, self.proxy.root, self.proxy.key), "up-told")


class Scripted(Backend):
    """The provider without a model."""

    def make(self, *says: Word) -> Provider:
        steps: dict[str, Step] = {
            "text": ModelReply("one \ntwo\n"),
            "code": code_reply(CODE, "See:"),
            "rate": ProviderRateLimited("Slow down.", provider="scripted", model="script", retry_after=2.0),
        }
        return ScriptedProvider([steps[word] for word in says])


class Embedded(Backend):
    """The embedded model, which says what it likes."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        super().__init__(stack)
        self.path = path

    def make(self, *says: Word) -> Provider:
        return chosen("local", {"AGENT_LOCAL_SEED": "1", "AGENT_LOCAL_THREADS": "2"}, str(self.path))

    def request(self, *, tools: bool = False) -> ModelRequest:
        messages = (
            Message("system", system_prompt(TRAITS, isolated=True, extra=None)),
            Message("user", "Calculate the sum of numbers from 1 to 100"),
        )
        return ModelRequest(messages, temperature=0.0, max_output_tokens=60, deadline_s=120)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The embedded model's file; its server is our own, so that no server of the developer is met, and is ended."""
    folder = os.environ.get("AGENT_TEST_MODEL_DIR")
    file_name = next(info.file_name for info in model_store.known() if info.name == "qwen2.5-coder-0.5b")
    path = Path(folder) / file_name if folder else model_store.resolve("qwen2.5-coder-0.5b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield path
        local_server.stop(path, threads=2)


HTTP = ("litellm", "azure", "anthropic")
TOLD = ("openai", "azure, directly", "anthropic, directly", "scripted", *HTTP)
"""Backends whose model says what the test wants."""


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name = request.param
    with ExitStack() as stack:
        if name in HTTP:
            yield Proxied(stack, name, request.getfixturevalue("proxy"))
        elif name == "scripted":
            yield Scripted(stack)
        elif name == "local":
            yield Embedded(stack, request.getfixturevalue("embedded"))
        else:
            yield Loopback(stack, name.partition(",")[0])


def backends(names: Sequence[str]) -> pytest.MarkDecorator:
    """For each of these backends."""
    marks = {"local": [pytest.mark.model]}
    return pytest.mark.parametrize(
        "backend", [pytest.param(n, marks=marks.get(n, ()), id=n) for n in names], indirect=True
    )


def quiet(text: str) -> None:
    """Take the text and do nothing."""


@backends([*TOLD, "local"])
def test_it_says_what_it_is(backend: Backend) -> None:
    provider = backend.make()
    assert provider.name
    assert provider.model
    assert provider.traits.images or provider.traits.small
    provider.close()


@backends([*TOLD, "local"])
def test_the_pieces_of_the_text_make_up_the_reply(backend: Backend) -> None:
    pieces: list[str] = []
    provider = backend.make("text")
    reply = provider.complete(backend.request(tools=False), on_text=pieces.append)
    provider.close()
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text
    assert reply.finish_reason == "stop"
    if not isinstance(backend, Embedded):
        assert reply.text == "one \ntwo\n"


@backends(TOLD)
def test_code_comes_as_a_tool_call_with_an_id(backend: Backend) -> None:
    provider = backend.make("code")
    reply = provider.complete(backend.request(), on_text=quiet)
    provider.close()
    assert (reply.text, reply.finish_reason) == ("See:", "tool_calls")
    assert [call.name for call in reply.tool_calls] == ["python"]
    assert reply.tool_calls[0].id
    assert json.loads(reply.tool_calls[0].arguments) == {"code": CODE}


@backends(TOLD)
def test_the_result_of_a_call_goes_back_and_the_conversation_goes_on(backend: Backend) -> None:
    provider = backend.make("code", "text")
    request = backend.request()
    first = provider.complete(request, on_text=quiet)
    said = Message("assistant", first.text, tool_calls=first.tool_calls)
    result = Message("tool", "hi ✓\n", tool_call_id=first.tool_calls[0].id)
    messages = (*request.messages, said, result)
    last = provider.complete(ModelRequest(messages, (PYTHON,), deadline_s=60), on_text=quiet)
    provider.close()
    assert last.text == "one \ntwo\n"


@backends([*TOLD, "local"])
def test_code_comes_as_a_fenced_block_where_no_tool_is_offered(backend: Backend) -> None:
    provider = backend.make("code")
    reply = provider.complete(backend.request(tools=False), on_text=quiet)
    provider.close()
    assert reply.tool_calls == ()
    if isinstance(backend, Embedded):
        assert "```python\n" in reply.text
    else:
        assert reply.text == f"See:\n```python\n{CODE}\n```"


@backends([*TOLD, "local"])
def test_tokens_are_counted(backend: Backend) -> None:
    if isinstance(backend, Scripted):
        return  # its script says what it likes
    provider = backend.make("text")
    usage = provider.complete(backend.request(tools=False), on_text=quiet).usage
    provider.close()
    assert usage.input_tokens
    assert usage.output_tokens
    assert usage.cost_usd in ((0.0,) if isinstance(backend, Embedded) else (None,))


@backends(TOLD)
def test_one_call_is_one_attempt_and_the_next_one_works(backend: Backend) -> None:
    provider = backend.make("rate", "text")
    with pytest.raises(ProviderRateLimited) as caught:
        provider.complete(backend.request(), on_text=quiet)
    assert caught.value.retryable
    assert caught.value.retry_after == 2.0
    assert provider.complete(backend.request(), on_text=quiet).text == "one \ntwo\n"
    provider.close()


@backends([*TOLD, "local"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_the_hook_raises_comes_through(backend: Backend, error: type[BaseException]) -> None:
    def fail(text: str) -> None:
        raise error("ours")

    provider = backend.make("text", "text")
    request = backend.request(tools=False)
    with pytest.raises(error, match="ours"):
        provider.complete(request, on_text=fail)
    assert provider.complete(request, on_text=quiet).text
    provider.close()


@backends([*TOLD, "local"])
def test_it_can_be_closed_twice(backend: Backend) -> None:
    provider = backend.make("text")
    provider.complete(backend.request(tools=False), on_text=quiet)
    provider.close()
    provider.close()


@backends([*TOLD, "local"])
def test_the_servers_models_are_listed(backend: Backend) -> None:
    provider = backend.make()
    names = list(provider.models()) if backend.listed else [provider.model]
    provider.close()
    assert provider.model in names
