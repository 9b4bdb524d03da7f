"""Anthropic, and every server that speaks its messages (a LiteLLM proxy does)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..types import JSON, ModelRequest, ModelTraits
from . import refusals
from .asked import Server
from .http import HTTPProvider, RawStream
from .messages import CACHE_CONTROL, MessageBuilder, messages_json, system_json, tools_json
from .wirelog import WireLog

if TYPE_CHECKING:
    import anthropic
    import httpx2

ANTHROPIC_URL = "https://api.anthropic.com"
MAX_OUTPUT_TOKENS = 16_384
"""The API wants a bound. Enough for an answer with long code; a model that can write less says so, and is heard."""


class AnthropicProvider(HTTPProvider):
    """One model, through the anthropic SDK.

    Args:
        model: the model's name.
        server: its address, without `/v1`, and its key.
        log: where requests and replies are written, if anywhere.
    """

    def __init__(self, *, model: str, server: Server, log: WireLog | None = None) -> None:
        super().__init__("anthropic", model, server, traits=ModelTraits(), log=log)

    def _builder(self) -> MessageBuilder:
        return MessageBuilder()

    def _post(self, body: dict[str, JSON], timeout: httpx2.Timeout) -> RawStream:
        import anthropic

        return self._sdk().post(
            "/v1/messages",
            cast_to=object,
            body=body,
            options={"timeout": timeout},
            stream=True,
            stream_cls=anthropic.Stream[object],
        )

    def _get(self, path: str, timeout: httpx2.Timeout) -> object:
        return self._sdk().get(f"/v1{path}?limit=1000", cast_to=object, options={"timeout": timeout})

    def _body(self, request: ModelRequest) -> tuple[dict[str, JSON], list[str]]:
        refused = refusals.refused(self.base_url, self.model)
        limit = refusals.learned_output_limit(self.base_url, self.model) or MAX_OUTPUT_TOKENS
        # The server puts its mark at the end of each request by itself, so that the bytes before it stay the same.
        wished: dict[str, JSON] = {"cache_control": CACHE_CONTROL}
        if request.temperature is not None:
            wished["temperature"] = request.temperature
        if request.tools:
            wished["tools"] = tools_json(request.tools)
        wished = {name: value for name, value in wished.items() if name not in refused}
        marks = "cache_control_blocks" not in refused
        fenced = "tools" not in wished
        system = system_json(request.messages, note=fenced and bool(request.tools), cache=marks)
        images = self.traits.images and "image_url" not in refused
        messages = messages_json(
            request.messages, fenced=fenced, images=images, mark_last=marks and "cache_control" not in wished
        )
        optional = list(wished)
        if images and any(message.images for message in request.messages):
            optional.insert(0, "image_url")
        if marks and "cache_control" not in wished:
            optional.append("cache_control_blocks")
        body: dict[str, JSON] = {"model": self.model, "stream": True, **wished}
        body["max_tokens"] = min(request.max_output_tokens or limit, limit)
        return {**body, **({"system": system} if system else {}), "messages": messages}, optional

    # ---- the client -----------------------------------------------------------------------------------------------

    def _sdk(self) -> anthropic.Anthropic:
        import anthropic

        if self._client is None:
            self._client = client = anthropic.Anthropic(
                api_key=self._server.api_key, base_url=self.base_url, max_retries=0, http_client=self._http()
            )
            # What the SDK took from the environment: it was meant for another address than the one of our settings.
            client._custom_headers = {}
        return cast("anthropic.Anthropic", self._client)

    def _sdk_error(self) -> type[Exception]:
        import anthropic

        return anthropic.AnthropicError
