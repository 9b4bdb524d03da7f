"""The embedded model: no key, and no network after its file was fetched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import model_store
from ..errors import ProviderError, ProviderTimeout, ProviderUnavailable
from ..types import JSON, ModelReply, ModelRequest, ModelTraits, TextHook, Usage, no_text
from . import local_server
from .asked import Server, SettingNames
from .openai import OpenAIProvider

TRAITS = ModelTraits(small=True, images=False, label="small local model, may be wrong")

_NAMES = SettingNames(key="", url="", model="AGENT_LOCAL_MODEL")
_DYING_S = 0.5
_MOST_TOKENS = 1024
"""Of one reply: some pages of code. A small model may repeat itself without end: that was seen to go on until
REQUEST_TIMEOUT, and the requests of all other notebooks, which the server answers one by one, failed with it."""


class LocalProvider:
    """Asks a model of the model store through a server on loopback that all notebooks of the user share.

    The server is started by the first request and goes on without us; it ends by itself when idle.

    Args:
        model: the value of AGENT_LOCAL_MODEL: a listed name, or the path of a .gguf file.
        threads: of the server; one for each core if None.
        idle_s: seconds without a request after which the server ends.
        seed: of the sampling; None leaves it to chance.
    """

    def __init__(self, *, model: str, threads: int | None, idle_s: float, seed: int | None = None) -> None:
        self.name = "local"
        self.model = Path(model).stem if model.lower().endswith(".gguf") else model
        self.traits = TRAITS
        self._wanted = model
        self._threads = threads
        self._idle_s = idle_s
        self._extra_body: dict[str, JSON] = {"cache_prompt": True}
        if seed is not None:
            self._extra_body["seed"] = seed
        self._client: OpenAIProvider | None = None
        self._server: local_server.Server | None = None

    def __repr__(self) -> str:
        return f"LocalProvider(model={self.model!r})"

    def complete(self, request: ModelRequest, *, on_text: TextHook, on_reasoning: TextHook = no_text) -> ModelReply:
        """Send `request`, pass the text on as it streams in, and return the whole reply.

        A server that is gone is started again, once, unless text has been streamed already.

        Raises:
            ModelStoreError: the model's file is not here.
            MissingDependencyError: xllamacpp is not installed.
            ProviderError: the request failed, or the server cannot be started.
        """
        path = model_store.resolve(self._wanted)
        end = time.monotonic() + request.deadline_s
        pieces = 0

        def counted(text: str) -> None:
            nonlocal pieces
            pieces += 1
            on_text(text)

        for attempt in (1, 2):
            client = self._connect(path, end - time.monotonic())
            left_s = end - time.monotonic()
            if left_s <= 0:
                break
            failure: ProviderError
            most = min(request.max_output_tokens or _MOST_TOKENS, _MOST_TOKENS)
            bounded = replace(request, deadline_s=left_s, max_output_tokens=most)
            try:
                reply = client.complete(bounded, on_text=counted, on_reasoning=on_reasoning)
                return replace(reply, usage=replace(reply.usage, cost_usd=self.cost_of(reply.usage)))
            except ProviderError as exc:
                failure = exc
            if failure.status is not None or self._still_there(path):
                raise failure
            self.close()
            if attempt == 2 or pieces:
                raise self._crashed(path)
        raise ProviderTimeout(
            "The server of the embedded model had no time left to answer.",
            provider=self.name,
            model=self.model,
            why=f"The request may take {request.deadline_s:.0f} seconds, and loading the model took them.",
            hint="Send it again: the model is loaded now.",
        )

    def models(self) -> Sequence[str]:
        """The model of this provider, and the listed ones that are on this machine."""
        here = (info.name for info in model_store.known() if model_store.installed(info.name))
        return tuple(dict.fromkeys((self.model, *here)))

    def cost_of(self, _usage: Usage) -> float:
        """Nothing: it is the reader's own machine."""
        return 0.0

    def close(self) -> None:
        """Close the connection. The server goes on: other notebooks may use it."""
        client, self._client, self._server = self._client, None, None
        if client is not None:
            client.close()

    def _connect(self, path: Path, timeout_s: float) -> OpenAIProvider:
        server = local_server.ensure(
            path, threads=self._threads, idle_s=self._idle_s, timeout_s=min(timeout_s, local_server.START_S)
        )
        if self._client is None or server != self._server:
            self.close()
            self._server = server
            self._client = OpenAIProvider(
                name=self.name,
                model=self.model,
                server=Server(server.base_url, server.key, _NAMES, trust_env=False),
                traits=self.traits,
                extra_body=self._extra_body,
            )
        return self._client

    def _still_there(self, path: Path) -> bool:
        """Whether the server lives on after a failure. A dying process needs a moment to be gone."""
        end = time.monotonic() + _DYING_S
        while local_server.is_alive(path, threads=self._threads):
            if time.monotonic() > end:
                return True
            time.sleep(0.05)
        return False

    def _crashed(self, path: Path) -> ProviderUnavailable:
        return ProviderUnavailable(
            "The server of the embedded model ended while it worked on the request.",
            provider=self.name,
            model=self.model,
            retryable=True,
            why=local_server.last_words(path, threads=self._threads)
            or "It left no reason; too little memory is the usual one.",
            hint="Send it again, or set AGENT_LOCAL_MODEL to a smaller model.",
        )
