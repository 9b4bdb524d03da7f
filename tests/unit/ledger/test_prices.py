"""List prices: for whom there is one, and that none is made up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox_agent_magic.ledger import prices
from sandbox_agent_magic.types import Usage

MILLION = Usage(1_000_000, 0, 0)
OPENAI = "https://api.openai.com/v1"
LOOPBACK = "http://127.0.0.1:4000/v1"


@pytest.mark.parametrize(
    ("model", "base_url", "vendor"),
    [
        ("gpt-4o", OPENAI, ""),
        ("gpt-4o-2024-08-06", OPENAI, ""),
        ("gpt-4o", "https://x.openai.azure.com", ""),
        ("gpt-4o", "https://models.company.example", "azure"),
        ("claude-sonnet-5-5", "https://api.anthropic.com", ""),
        ("openai/gpt-4o", "https://openrouter.ai/api/v1", ""),
        ("openai/gpt-4o", LOOPBACK, ""),
        ("anthropic/claude-sonnet-4-5", LOOPBACK, ""),
    ],
)
def test_a_listed_model_has_a_price(model: str, base_url: str, vendor: str) -> None:
    cost = prices.cost(MILLION, model, base_url=base_url, vendor=vendor)
    assert cost is not None
    assert 0.1 < cost < 100


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("gpt-99-nobody-has-it", OPENAI),
        ("gpt-4o", LOOPBACK),
        ("llama3.2", "http://localhost:11434/v1"),
        ("my-deployment", "https://x.openai.azure.com"),
        ("scripted/plain", LOOPBACK),
        ("", OPENAI),
    ],
)
def test_what_has_no_price_gets_none(model: str, base_url: str) -> None:
    assert prices.cost(MILLION, model, base_url=base_url) is None


def test_cached_tokens_are_cheaper_and_written_ones_dearer() -> None:
    def cost(usage: Usage) -> float:
        found = prices.cost(usage, "claude-sonnet-4-5", base_url="https://api.anthropic.com")
        assert found is not None
        return found

    plain, cached = cost(MILLION), cost(Usage(1_000_000, 1_000_000, 0))
    written = cost(Usage(1_000_000, 0, 0, cache_write_tokens=1_000_000))
    assert cached < plain < written


def test_nothing_used_costs_nothing_that_could_be_said() -> None:
    assert prices.cost(Usage(), "gpt-4o", base_url=OPENAI) is None


def test_prices_need_no_network_and_are_loaded_on_first_use() -> None:
    code = (
        "import sys, socket\n"
        "import sandbox_agent_magic.session\n"
        "assert 'genai_prices' not in sys.modules\n"
        "socket.socket.connect = lambda *a: sys.exit('it asked the network')\n"
        "from sandbox_agent_magic.ledger.prices import cost\n"
        "from sandbox_agent_magic.types import Usage\n"
        f"assert cost(Usage(1, 0, 1), 'gpt-4o', base_url={OPENAI!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
