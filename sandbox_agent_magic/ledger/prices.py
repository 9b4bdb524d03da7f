"""What tokens cost where the server does not say: list prices, from data that is installed, without a request."""

from __future__ import annotations

from ..types import Usage

_PROVIDERS = {
    "openai": "openai",
    "text-completion-openai": "openai",
    "azure": "azure",
    "azure_ai": "azure",
    "anthropic": "anthropic",
    "bedrock": "aws",
    "gemini": "google",
    "vertex_ai": "google",
    "groq": "groq",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "xai": "x-ai",
    "perplexity": "perplexity",
    "cerebras": "cerebras",
}
"""How LiteLLM names a vendor before the model's name, and how the price list does."""


def cost(usage: Usage, model: str, *, base_url: str, vendor: str = "") -> float | None:
    """US dollars by list price; None where there is none for this model at this address.

    The address decides whose price it is: the same name at a server of one's own costs what nobody but its owner knows.

    Args:
        usage: the tokens.
        model: the model's name; LiteLLM's `vendor/model` is understood if no vendor is known otherwise.
        base_url: the server's address.
        vendor: as the price list names it, where the address does not tell.
    """
    if not usage.input_tokens and not usage.output_tokens:
        return None
    # Importing takes 0.14 s of CPU, so it waits for the first reply.
    import genai_prices

    prefix, _, rest = model.partition("/")
    if not vendor and rest and prefix in _PROVIDERS and not _is_listed(base_url):
        vendor, model = _PROVIDERS[prefix], rest
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        if vendor:
            return float(genai_prices.calc_price(tokens, model, provider_id=vendor).total_price)
        return float(genai_prices.calc_price(tokens, model, provider_api_url=base_url).total_price)
    except (LookupError, ValueError):
        return None


def _is_listed(base_url: str) -> bool:
    """Whether the price list knows this address: then the whole name is that server's own."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        get_snapshot().find_provider(None, None, base_url)
    except LookupError:
        return False
    return True
