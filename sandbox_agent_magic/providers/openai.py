"""OpenAI, and every server that speaks its chat completions (LiteLLM proxy, Ollama, vLLM, llama.cpp, OpenRouter)."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ..errors import ProviderError
from ..types import JSON, ModelReply, ModelRequest, ModelTraits, TextHook
from . import refusals
from .chat import ReplyBuilder, messages_json, tools_json
from .failure import Failure
from .failures import Asked, classify
from .transport import CONNECT_TIMEOUT_S, BadReply, Deadline, failure_of, http_client, transport_errors

if TYPE_CHECKING:
    import httpx2
    import openai

PLACEHOLDER_KEY = "no-key"
"""For a server that needs none; the SDK insists on one."""

OPENAI_URL = "https://api.openai.com/v1"

_SETTINGS = {
    "azure": ("AZURE_OPENAI_API_KEY", "AZURE_API_BASE", "AZURE_DEPLOYMENT_NAME"),
    "local": ("", "", "AGENT_LOCAL_MODEL"),
}
"""Provider to the settings of its key, address and model, for errors; `openai` unless listed."""


class OpenAIProvider:
    """One model of one server, through the openai SDK. Holds a connection between calls; `close` ends it.

    Not for two threads at once.

    Args:
        name: the provider's name, as in `-p`.
        model: the model's name, as the server knows it.
        base_url: the server's address, up to and with `/v1`; None is OpenAI's own.
        api_key: the key. Never shown.
        key_source: where the key came from, for errors, such as `.env`.
        traits: how to speak with the model.
        trust_env: whether the environment's proxies and certificates count; never for a server on loopback.
        extra_body: further fields of each request, such as a seed.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: str | None,
        api_key: str,
        key_source: str = "",
        traits: ModelTraits = ModelTraits(),  # noqa: B008  (frozen)
        trust_env: bool = True,
        extra_body: Mapping[str, JSON] | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.traits = traits
        self.base_url = base_url or OPENAI_URL
        self._api_key = api_key
        self._trust_env = trust_env
        self._extra_body = dict(extra_body or {})
        self._deadline = Deadline()
        self._client: openai.OpenAI | None = None
        self._secrets = _secrets(api_key, self.base_url)
        key, url, model_setting = _SETTINGS.get(name, ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MODEL"))
        self._asked = Asked(
            provider=name,
            model=model,
            server=_shown_server(self.base_url) if url else "The model's own server",
            key=_shown_key(key, api_key, key_source) if key else "",
            url_setting=url,
            model_setting=model_setting,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, model={self.model!r}, server={self._asked.server!r})"

    def complete(self, request: ModelRequest, *, on_text: TextHook) -> ModelReply:
        """Send `request`, pass the text on as it streams in, and return the whole reply.

        One attempt, but for parameters that the server refuses: those are left out at once, and ever after.

        Raises:
            ProviderError: the request failed.
        """
        builder = ReplyBuilder()
        # on_text is called out here, where nothing is translated: its errors are ours, not the provider's.
        with closing(self._chunks(request)) as chunks:
            for chunk in chunks:
                piece = builder.feed(chunk)
                if piece:
                    on_text(piece)
        if not builder.seen:
            raise self._error(Failure("reply", "it ended without a word"), request.deadline_s)
        if not builder.finish_reason and builder.usage is None:
            raise self._error(Failure("cut", "the reply ended in the middle"), request.deadline_s)
        return builder.reply(earlier_calls=sum(len(message.tool_calls) for message in request.messages))

    def models(self) -> Sequence[str]:
        """Names of the models that the server offers.

        Raises:
            ProviderError: the server could not be asked.
        """
        timeout_s = 30.0
        failure: Failure | None = None
        listing: object = None
        self._deadline.start(timeout_s)
        try:
            client = self._connect()
            listing = client.get("/models", cast_to=object, options={"timeout": _timeout(timeout_s)})
        except _sdk_errors() as exc:
            failure = failure_of(exc, self._secrets)
        rows = listing.get("data") if isinstance(listing, dict) else None
        if failure is None and not isinstance(rows, list):
            failure = Failure("reply", "no list of models")
        if failure is not None or not isinstance(rows, list):
            raise self._error(failure or Failure("reply", ""), timeout_s)
        return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]

    def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # ---- one request ----------------------------------------------------------------------------------------------

    def _chunks(self, request: ModelRequest) -> Generator[Mapping[str, object]]:
        """The chunks of the reply. All that is foreign is called, and its errors translated, in here."""
        errors = _sdk_errors()
        self._deadline.start(request.deadline_s)
        while True:
            body, optional = self._body(request)
            failure: Failure | None = None
            begun = False
            try:
                for chunk in self._stream(body, request.deadline_s):
                    if chunk.get("error") or chunk.get("object") == "error":
                        failure = Failure.of_body(chunk, status=None, secrets=self._secrets)
                        break
                    begun = True
                    yield chunk
            except errors as exc:
                failure = failure_of(exc, self._secrets)
            if failure is None:
                return
            refused = None if begun else refusals.refused_parameter(failure, optional, self.model)
            if refused is None:
                raise self._error(failure, request.deadline_s)
            refusals.learn(self.base_url, self.model, refused)

    def _stream(self, body: dict[str, JSON], timeout_s: float) -> Iterator[Mapping[str, object]]:
        import openai

        # Not `chat.completions.create`: it walks all messages to transform them, and builds objects of each chunk.
        # Its `Stream` also drops the connection at [DONE] with the end unread, so each turn would pay a new handshake.
        with self._connect().post(
            "/chat/completions",
            cast_to=object,
            body=body,
            options={"timeout": _timeout(timeout_s)},
            stream=True,
            stream_cls=openai.Stream[object],
        ) as stream:
            response = stream.response
            if re.search("json|html", response.headers.get("content-type", "")):
                yield _object(response.read())  # a server that does not stream, or a page
                return
            for data in self._events(response):
                yield _object(data)

    def _events(self, response: httpx2.Response) -> Iterator[bytes]:
        """The `data` of each server-sent event."""
        pieces = response.iter_bytes()
        rest = b""
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                data = line[5:].strip() if line.startswith(b"data:") else b""
                if data == b"[DONE]":
                    self._drain(pieces)
                    return
                if data:
                    yield data
        data = rest[5:].strip() if rest.startswith(b"data:") else b""
        if data and data != b"[DONE]":
            yield data

    def _drain(self, pieces: Iterator[bytes]) -> None:
        """Read what is left, so that the connection can be used again; not at any price, the reply is complete."""
        import httpx2

        self._deadline.shorten(0.5)
        with suppress(httpx2.HTTPError, BadReply):
            for _ in pieces:
                pass

    def _body(self, request: ModelRequest) -> tuple[dict[str, JSON], list[str]]:
        """The request's JSON (messages last: what precedes them stays the same), and what of it could be left out."""
        refused = refusals.refused(self.base_url, self.model)
        wished: dict[str, JSON] = {"stream_options": {"include_usage": True}}
        if request.temperature is not None:
            wished["temperature"] = request.temperature
        if request.max_output_tokens is not None:
            name = "max_tokens" if "max_tokens" not in refused else refusals.RENAMED["max_tokens"]
            wished[name] = request.max_output_tokens
        wished.update(self._extra_body)
        if request.tools:
            wished["tools"] = tools_json(request.tools)
        wished = {name: value for name, value in wished.items() if name not in refused}
        images = self.traits.images and "image_url" not in refused
        messages = messages_json(
            request.messages,
            fenced="tools" not in wished,
            note="tools" not in wished and bool(request.tools),
            images=images,
        )
        optional = list(wished)
        if images and any(message.images for message in request.messages):
            optional.insert(0, "image_url")
        return {"model": self.model, "stream": True, **wished, "messages": messages}, optional

    def _error(self, failure: Failure, timeout_s: float) -> ProviderError:
        return classify(failure, replace(self._asked, timeout_s=timeout_s))

    # ---- the client -----------------------------------------------------------------------------------------------

    def _connect(self) -> openai.OpenAI:
        if self._client is None:
            self._client = self._make_client(http_client(self._deadline, trust_env=self._trust_env))
        return self._client

    def _make_client(self, http: httpx2.Client) -> openai.OpenAI:
        import openai

        client = openai.OpenAI(api_key=self._api_key, base_url=self.base_url, max_retries=0, http_client=http)
        # What the SDK took from the environment: it was meant for another address than the one of our settings.
        client.organization = client.project = client.admin_api_key = None
        client._custom_headers = {}
        return client


def _sdk_errors() -> tuple[type[Exception], ...]:
    import openai

    return (openai.OpenAIError, *transport_errors())


def _timeout(seconds: float) -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(seconds, connect=CONNECT_TIMEOUT_S)


def _object(data: bytes) -> Mapping[str, object]:
    """One JSON object.

    Raises:
        BadReply: it is not one; the text says how it begins.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadReply(f"it begins with {data[:200].decode('utf-8', 'replace')!r}")
    return value


def _secrets(api_key: str, base_url: str) -> tuple[str, ...]:
    try:
        password = unquote(urlsplit(base_url).password or "")
    except ValueError:
        password = ""
    return tuple(secret for secret in (api_key, password) if secret and secret != PLACEHOLDER_KEY)


def _shown_server(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        return f"{host}:{parts.port}" if parts.port else host or "The model server"
    except ValueError:
        return "The model server"


def _shown_key(setting: str, key: str, source: str) -> str:
    if key == PLACEHOLDER_KEY or not key:
        return f"{setting} is not set"
    ending = f", ends in ...{key[-4:]}" if len(key) >= 12 and key.isprintable() else ""
    return f"{setting} from {source}{ending}" if source else f"{setting}{ending}"
