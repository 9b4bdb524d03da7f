"""What all providers over HTTP share: one attempt through an SDK's client, its stream, and what its failures mean.

The SDKs' own `create` methods are not used: they walk all messages to transform them, build objects of each chunk, and
drop the connection with the end of the stream unread, so that each turn would pay a new handshake. `post` of the same
client gives the request, its authentication and its errors, and the events are read here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ..errors import ProviderError, ProviderModelNotFound
from ..ledger import prices
from ..types import JSON, ModelReply, ModelRequest, ModelTraits, TextHook, Usage, no_text
from . import refusals
from .asked import Asked, Server
from .cleaning import Redactor, clean
from .events import events_of
from .failure import Failure
from .failures import classify
from .suggest import suggestion
from .transport import CONNECT_TIMEOUT_S, Deadline, failure_of, http_client, transport_errors
from .wirelog import WireLog

if TYPE_CHECKING:
    import httpx2

LISTING_TIMEOUT_S = 30.0
SUGGESTION_TIMEOUT_S = 5.0
"""An error waits no longer for the names that it might suggest."""


class Client(Protocol):
    """What is used of an SDK's client."""

    def close(self) -> None: ...


class RawStream(Protocol):
    """What is used of an SDK's stream."""

    @property
    def response(self) -> httpx2.Response: ...

    def close(self) -> None: ...


class Builder(Protocol):
    """Puts the events of one stream together."""

    seen: bool
    """Whether any event was one of a reply."""
    begun: bool
    """Whether a first token came."""
    model: str
    """The model's name that the server says; may be empty."""

    @property
    def over(self) -> bool:
        """Whether the reply has come to its end, as far as the server says so."""

    def feed(self, event: Mapping[str, object]) -> tuple[str, str]:
        """Take one event in; returns its piece of the text and of the model's reasoning."""

    def rest(self) -> tuple[str, str]:
        """What of both was held back until the end."""

    def reply(self, *, earlier_calls: int) -> ModelReply:
        """The whole reply."""


class HTTPProvider(ABC):
    """One model of one server. Holds a connection between calls; `close` ends it. Not for two threads at once."""

    _vendor = ""
    """Whose prices hold, where the address does not tell."""

    def __init__(
        self, name: str, model: str, server: Server, *, traits: ModelTraits, log: WireLog | None = None
    ) -> None:
        self.name = name
        self.model = model
        self.traits = traits
        self.base_url = server.base_url
        self._server = server
        self._deadline = Deadline()
        self._client: Client | None = None
        self._log = log
        self._asked = Asked.of(name, model, server)
        self._answered_by = ""
        """The model's name that the server gave; a proxy or a deployment may know it by another than we do."""
        self._proxied = False
        """Whether a LiteLLM proxy answered."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, model={self.model!r}, server={self._asked.server!r})"

    def complete(self, request: ModelRequest, *, on_text: TextHook, on_reasoning: TextHook = no_text) -> ModelReply:
        """Send `request`, pass the text on as it streams in, and return the whole reply.

        One attempt, but for parameters that the server refuses: those are left out at once, and ever after.

        Raises:
            ProviderError: the request failed.
        """
        builder = self._builder()
        begun = False
        text, thoughts = Redactor(self._server.secrets), Redactor(self._server.secrets)

        def pass_on(piece: str, thought: str) -> None:
            if piece and (piece := text.feed(piece)):
                on_text(piece)
            if thought and (thought := thoughts.feed(thought)):
                on_reasoning(thought)

        # The hooks are called out here, where nothing is translated: their errors are ours, not the provider's.
        with closing(self._events(request)) as events:
            for event in events:
                said = builder.feed(event)
                if builder.begun and not begun:
                    begun = True
                    self._deadline.token()
                pass_on(*said)
        pass_on(*builder.rest())
        if held := text.rest():
            on_text(held)
        if not builder.seen:
            raise self._error(Failure("reply", "it ended without a word"), request)
        if not builder.over:
            raise self._error(Failure("cut", "the reply ended in the middle"), request)
        if not self._proxied:
            self._answered_by = builder.model
        reply = self._cleaned(builder.reply(earlier_calls=sum(len(m.tool_calls) for m in request.messages)))
        if self._log is not None:
            self._log.reply(self._asked, reply)
        return reply

    def models(self) -> Sequence[str]:
        """Names of the models that the server offers.

        Raises:
            ProviderError: the server could not be asked.
        """
        return self._names(LISTING_TIMEOUT_S)

    def cost_of(self, usage: Usage) -> float | None:
        """What `usage` costs by list price, US dollars; None where there is none for this model at this server."""
        vendor = "" if self._proxied else self._vendor
        return prices.cost(usage, self._answered_by or self.model, base_url=self.base_url, vendor=vendor)

    def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # ---- what each provider says for itself -----------------------------------------------------------------------

    @abstractmethod
    def _builder(self) -> Builder:
        """For the events of one reply."""

    @abstractmethod
    def _body(self, request: ModelRequest) -> tuple[dict[str, JSON], list[str]]:
        """The request's JSON (messages last: what precedes them stays the same), and what of it could be left out."""

    @abstractmethod
    def _post(self, body: dict[str, JSON], timeout: httpx2.Timeout) -> RawStream:
        """Send `body`; the SDK raises for the status of an error."""

    @abstractmethod
    def _get(self, path: str, timeout: httpx2.Timeout) -> object:
        """Ask for `path`, as parsed JSON."""

    @abstractmethod
    def _sdk_error(self) -> type[Exception]:
        """Base of what the SDK raises."""

    # ---- one request ----------------------------------------------------------------------------------------------

    def _events(self, request: ModelRequest) -> Generator[Mapping[str, object]]:
        """The events of the reply. All that is foreign is called, and its errors translated, in here."""
        key = self._server.api_key
        if not (key.isascii() and key.isprintable()):
            # One SDK raises for it, with the key in the exception, and the other sends bytes that nobody expects.
            raise self._error(Failure("key", "it holds a character that cannot stand in a header"), request)
        errors = self._errors()
        self._deadline.start(request.deadline_s, idle_s=request.idle_s)
        while True:
            body, optional = self._body(request)
            if self._log is not None:
                self._log.request(self._asked, body)
            failure: Failure | None = None
            begun = False
            try:
                for event in self._stream(body):
                    if event.get("error") or event.get("object") == "error":
                        failure = Failure.of_body(event, status=None, secrets=self._server.secrets)
                        break
                    begun = True
                    yield event
            except errors as exc:
                failure = failure_of(exc, self._server.secrets)
            if failure is None:
                return
            if begun or not self._learn(failure, body, optional):
                raise self._error(failure, request)

    def _learn(self, failure: Failure, body: Mapping[str, JSON], optional: Sequence[str]) -> bool:
        """Whether the server refused a parameter that the next try is to do without."""
        limit = refusals.output_limit(failure)
        sent = body.get("max_tokens") or body.get("max_completion_tokens")
        if limit and isinstance(sent, int) and limit < sent:
            refusals.learn_output_limit(self.base_url, self.model, limit)
            return True
        refused = refusals.refused_parameter(failure, optional, self.model)
        if refused is not None:
            refusals.learn(self.base_url, self.model, refused)
        return refused is not None

    def _stream(self, body: dict[str, JSON]) -> Iterator[Mapping[str, object]]:
        with closing(self._post(body, _timeout(self._deadline.left_s()))) as stream:
            headers = stream.response.headers
            self._proxied = "x-litellm-version" in headers
            self._answered_by = headers.get("x-litellm-model-name", "")
            yield from events_of(stream.response, self._deadline)

    def _cleaned(self, reply: ModelReply) -> ModelReply:
        """Without our key, should the server say it, and with what it cost."""
        hide = Redactor(self._server.secrets)
        calls = tuple(replace(call, arguments=hide.arguments(call.arguments)) for call in reply.tool_calls)
        return replace(reply, text=hide.whole(reply.text), tool_calls=calls, usage=self._priced(reply.usage))

    # ---- failures and listings --------------------------------------------------------------------------------------

    def _error(self, failure: Failure, request: ModelRequest) -> ProviderError:
        asked = replace(self._asked, timeout_s=request.deadline_s, idle_s=request.idle_s)
        error = classify(failure, asked)
        if self._log is not None:
            self._log.failure(self._asked, failure)
        if isinstance(error, ProviderModelNotFound):
            error.hint = self._suggest(error.hint)
        return error

    def _suggest(self, hint: str) -> str:
        """The hint, with what the server has instead; asking it may fail, and then the hint stays as it is."""
        try:
            names = self._names(SUGGESTION_TIMEOUT_S)
        except ProviderError:
            names = []
        return suggestion(self.model, names, provider=self.name, server=self._asked.server) or hint

    def _names(self, timeout_s: float) -> list[str]:
        return self._listed("/models", timeout_s)

    def _listed(self, path: str, timeout_s: float) -> list[str]:
        failure: Failure | None = None
        listing: object = None
        self._deadline.start(timeout_s)
        try:
            listing = self._get(path, _timeout(timeout_s))
        except self._errors() as exc:
            failure = failure_of(exc, self._server.secrets)
        rows = listing.get("data") if isinstance(listing, dict) else None
        if failure is None and not isinstance(rows, list):
            failure = Failure("reply", "no list of models")
        if failure is not None or not isinstance(rows, list):
            raise classify(failure or Failure("reply", ""), replace(self._asked, timeout_s=timeout_s))
        return [
            clean(row["id"], self._server.secrets)
            for row in rows
            if isinstance(row, dict) and isinstance(row.get("id"), str)
        ]

    def _http(self) -> httpx2.Client:
        return http_client(self._deadline, trust_env=self._server.trust_env)

    def _errors(self) -> tuple[type[Exception], ...]:
        return (self._sdk_error(), *transport_errors())

    def _priced(self, usage: Usage) -> Usage:
        """The server's own figure, else the list price of what it says it asked."""
        # LiteLLM says 0 of a model whose price it does not know.
        if usage.cost_usd or (usage.cost_usd is not None and not self._proxied):
            return usage
        return replace(usage, cost_usd=self.cost_of(usage))


def _timeout(seconds: float) -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(seconds, connect=CONNECT_TIMEOUT_S)
