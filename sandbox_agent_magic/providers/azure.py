"""Azure OpenAI: the chat completions of OpenAI, asked of a deployment at an endpoint of one's own."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import ProviderError
from ..types import ModelTraits
from .asked import Server
from .openai import OpenAIProvider
from .wirelog import WireLog

if TYPE_CHECKING:
    import httpx2
    import openai

_LISTING_VERSION = "2022-12-01"
"""The last version of the service's own API that lists a resource's deployments; later ones leave that to Azure's
management, which wants other credentials than the key."""


class AzureProvider(OpenAIProvider):
    """One deployment, through the openai SDK's AzureOpenAI.

    Args:
        deployment: its name; the service is asked for it by the address, and it takes the place of the model's name.
        server: the endpoint, such as `https://NAME.openai.azure.com`, and its key.
        api_version: of the service, such as `2024-10-21`.
        log: where requests and replies are written, if anywhere.
    """

    _vendor = "azure"

    def __init__(self, *, deployment: str, server: Server, api_version: str, log: WireLog | None = None) -> None:
        super().__init__(name="azure", model=deployment, server=server, traits=ModelTraits(), log=log)
        self._api_version = api_version

    def _names(self, timeout_s: float) -> list[str]:
        """The deployments where the service lists them, else the models that it could deploy."""
        with suppress(ProviderError):
            return self._listed(f"/deployments?api-version={_LISTING_VERSION}", timeout_s)
        self.close()  # a server that has just failed may be about to drop the connection
        return super()._names(timeout_s)

    def _make_client(self, http: httpx2.Client) -> openai.OpenAI:
        import openai

        return openai.AzureOpenAI(
            api_key=self._server.api_key,
            azure_endpoint=self.base_url,
            api_version=self._api_version,
            max_retries=0,
            http_client=http,
        )
