"""OpenAI, and every server that speaks its chat completions (LiteLLM proxy, Ollama, vLLM, llama.cpp, OpenRouter)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from ..types import JSON, ModelRequest, ModelTraits
from . import refusals
from .asked import Server
from .chat import ReplyBuilder, messages_json, tools_json
from .http import HTTPProvider, RawStream
from .wirelog import WireLog

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIProvider(HTTPProvider):
    """One model of one server, through the openai SDK.

    Args:
        name: the provider's name, as in `-p`.
        model: the model's name, as the server knows it.
        server: its address up to and with `/v1`, and its key.
        traits: how to speak with the model.
        extra_body: further fields of each request, such as a seed.
        log: where requests and replies are written, if anywhere.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        server: Server,
        traits: ModelTraits = ModelTraits(),  # noqa: B008  (frozen)
        extra_body: Mapping[str, JSON] | None = None,
        log: WireLog | None = None,
    ) -> None:
        super().__init__(name, model, server, traits=traits, log=log)
        self._extra_body = dict(extra_body or {})

    def _builder(self) -> ReplyBuilder:
        return ReplyBuilder()

    def _post(self, body: dict[str, JSON], timeout: httpx2.Timeout) -> RawStream:
        import openai

        return self._sdk().post(
            "/chat/completions",
            cast_to=object,
            body=body,
            options={"timeout": timeout},
            stream=True,
            stream_cls=openai.Stream[object],
        )

    def _get(self, path: str, timeout: httpx2.Timeout) -> object:
        return self._sdk().get(path, cast_to=object, options={"timeout": timeout})

    def _body(self, request: ModelRequest) -> tuple[dict[str, JSON], list[str]]:
        refused = refusals.refused(self.base_url, self.model)
        wished: dict[str, JSON] = {"stream_options": {"include_usage": True}}
        if request.temperature is not None:
            wished["temperature"] = request.temperature
        if request.max_output_tokens is not None:
            name = "max_tokens" if "max_tokens" not in refused else refusals.RENAMED["max_tokens"]
            limit = refusals.learned_output_limit(self.base_url, self.model)
            wished[name] = min(request.max_output_tokens, limit or request.max_output_tokens)
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

    # ---- the client -----------------------------------------------------------------------------------------------

    def _sdk(self) -> openai.OpenAI:
        if self._client is None:
            self._client = client = self._make_client(self._http())
            # What the SDK took from the environment: it was meant for another address than the one of our settings.
            client.organization = client.project = client.admin_api_key = None
            client._custom_headers = {}
            return client
        return cast("openai.OpenAI", self._client)

    def _make_client(self, http: httpx2.Client) -> openai.OpenAI:
        import openai

        return openai.OpenAI(api_key=self._server.api_key, base_url=self.base_url, max_retries=0, http_client=http)

    def _sdk_error(self) -> type[Exception]:
        import openai

        return openai.OpenAIError
