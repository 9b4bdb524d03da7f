"""What the reader sees of costs, and the budgets that end a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic import Session
from sandbox_agent_magic.errors import ProviderQuotaExceeded, SandboxAgentError, UsageError
from sandbox_agent_magic.types import RunResult, Usage
from tests.support.model_server import ModelServer, Reply


@pytest.fixture(autouse=True)
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a book of costs of its own for each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def turns(count: int, cost_usd: float | None = 0.1, tokens: int = 100) -> list[dict[str, object]]:
    """Replies that each run code, and a last one that answers."""
    usage: dict[str, object] = {"input_tokens": tokens, "output_tokens": 10}
    if cost_usd is not None:
        usage["cost_usd"] = cost_usd
    codes: list[dict[str, object]] = [{"code": f"print({n})", "usage": usage} for n in range(count - 1)]
    return [*codes, {"text": "Done.", "usage": usage}]


def run(replies: Sequence[dict[str, object]], *, notebook: str = "n.ipynb", **settings: object) -> RunResult:
    Path("script.json").write_text(json.dumps(replies))
    with Session(notebook=Path(notebook).resolve(), provider="scripted", model="script.json", **settings) as session:
        return session.ask("Go on.")


def test_a_run_that_stays_within_its_budgets_is_not_touched() -> None:
    result = run(turns(3), agent_budget_usd=1, agent_notebook_budget_usd=2, agent_day_budget_usd=3)
    assert result.status == "completed"
    assert result.usage.cost_usd == pytest.approx(0.3)


def test_the_budget_of_a_cell_ends_the_run_and_keeps_its_work() -> None:
    result = run(turns(9), agent_budget_usd=0.25)
    assert (result.status, result.requests) == ("budget", 2)
    assert [step.result.status for step in result.steps] == ["ok"] * 2
    assert result.reason == (
        "The budget of this cell ($0.25, AGENT_BUDGET_USD given as an option) is reached: $0.2000 spent, "
        "and the next request costs about $0.1000."
    )


def test_where_there_is_no_list_price_the_next_request_is_estimated_by_the_ones_before() -> None:
    result = run(turns(9), agent_budget_usd=0.45)
    assert (result.status, result.requests) == ("budget", 4)
    assert "the next request costs about $0.1" in result.reason
    assert result.usage.cost_usd is not None
    assert result.usage.cost_usd <= 0.45


def test_the_budget_of_a_notebook_counts_its_earlier_runs_but_not_another_notebook() -> None:
    assert run(turns(2), agent_notebook_budget_usd=0.25).status == "completed"
    assert run(turns(2), agent_notebook_budget_usd=0.25, notebook="other.ipynb").status == "completed"
    assert run(turns(2), agent_notebook_budget_usd=0.25).status == "budget"


def test_the_budget_of_a_day_counts_all_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_DAY_BUDGET_USD", "0.3")
    assert run(turns(2), notebook="a.ipynb").status == "completed"
    result = run(turns(2), notebook="b.ipynb")
    assert (result.status, result.requests) == ("budget", 1)
    assert "today ($0.3, AGENT_DAY_BUDGET_USD from environment)" in result.reason


def test_where_the_price_is_unknown_a_budget_of_tokens_holds() -> None:
    result = run(turns(9, cost_usd=None), agent_budget_usd=1, agent_budget_tokens=900)
    assert result.status == "budget"
    assert "token budget of this cell (900, AGENT_BUDGET_TOKENS" in result.reason
    assert 0 < result.usage.input_tokens + result.usage.output_tokens <= 900


def test_a_budget_in_money_that_cannot_be_kept_ends_the_run_and_says_why() -> None:
    result = run(turns(9, cost_usd=None), agent_budget_usd=1)
    assert (result.status, result.requests) == ("budget", 1)
    assert "nobody says what this model costs" in result.reason
    assert "AGENT_BUDGET_TOKENS" in result.reason


def test_a_request_that_would_overrun_the_budget_is_not_sent() -> None:
    def ask(prompt: str) -> RunResult:
        with Session(agent_provider="openai", openai_api_key="k", model="gpt-4o", agent_budget_usd=0.01) as session:
            return session.ask(prompt)

    # By list price 40,000 characters cost $0.025, and nothing has to be sent to know it.
    result = ask("Read this: " + "word " * 8_000)
    assert (result.status, result.requests) == ("budget", 0)
    assert result.usage == Usage()
    assert "next request costs about $0.0" in result.reason


def test_the_budget_that_a_proxy_keeps_ends_the_run_too_with_what_it_has_done() -> None:
    over = Reply(status=429, body={"error": {"message": "Budget has been exceeded!", "type": "budget_exceeded"}})
    with (
        ModelServer([Reply(code="print(1)"), over]) as server,
        Session(openai_base_url=server.url, openai_api_key="k", max_retry=5) as session,
    ):
        result = session.ask("Go on.")
        assert len(server.seen) == 2
    assert (result.status, len(result.steps)) == ("budget", 1)
    assert "budget of the key" in result.reason


def test_a_used_up_quota_is_an_error_and_not_retried() -> None:
    over = Reply(
        status=429, body={"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    )
    with ModelServer(over) as server, Session(openai_base_url=server.url, openai_api_key="k", max_retry=5) as session:
        with pytest.raises(ProviderQuotaExceeded):
            session.ask("Go on.")
        assert len(server.seen) == 1


def test_a_book_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").write_text("in the way")
    assert run(turns(2), agent_day_budget_usd=1).status == "completed"
    assert "book of costs" in capsys.readouterr().err


# ---- typed in a notebook ----------------------------------------------------------------------------------------


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "sandbox_agent_magic")
    yield made
    made.run_line_magic("unload_ext", "sandbox_agent_magic")
    InteractiveShell.clear_instance()


def test_a_budget_is_given_with_the_cell(shell: InteractiveShell) -> None:
    Path("script.json").write_text(json.dumps(turns(9)))
    shell.run_cell_magic("agent", "-p scripted -m script.json --budget 0.15 -o r", "Go on.")
    assert shell.user_ns["r"].status == "budget"


def test_a_budget_that_is_no_number_is_one_clear_error(shell: InteractiveShell) -> None:
    with pytest.raises(SandboxAgentError) as caught:
        shell.run_cell_magic("agent", "-p scripted -m script.json --budget lots", "Go on.")
    assert "AGENT_BUDGET_USD" in caught.value.lines()[0]


def test_costs_are_shown_by_cell_model_notebook_and_day(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_DAY_BUDGET_USD", "5")
    Path("script.json").write_text(json.dumps(turns(2)))
    shell.run_cell_magic("agent", "-p scripted -m script.json", "Go on.")
    capsys.readouterr()
    for by in ("", "--by cell", "--by model", "--by notebook", "--by day"):
        shell.run_line_magic("agent", f"cost {by}")
        shown = capsys.readouterr().out
        assert "$0.2000" in shown
        assert "█" in shown
        assert "Budget of today: $0.2000 of $5 spent (AGENT_DAY_BUDGET_USD from environment)." in shown


@pytest.mark.parametrize("words", ["--by", "--by hour", "now", "--by day more"])
def test_a_mistake_in_the_cost_line_is_one_clear_error(shell: InteractiveShell, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shell.run_line_magic("agent", f"cost {words}")
    assert "--by cell|model|notebook|day" in caught.value.hint


@pytest.mark.parametrize("words", ["all", "-p", "-m x"])
def test_a_mistake_in_the_models_line_is_one_clear_error(shell: InteractiveShell, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        shell.run_line_magic("agent", f"models {words}")
    assert "%agent models [-p PROVIDER]" in caught.value.hint


def test_the_servers_models_are_listed_and_the_current_one_is_marked(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(Reply(), models=["b", "a"]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("MODEL", "b")
        shell.run_line_magic("agent", "models")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.root)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        listed = capsys.readouterr().out
        shell.run_line_magic("agent", "models -p anthropic")
        assert "2 models of anthropic" in capsys.readouterr().out
    assert listed.splitlines() == [
        "  a",
        "* b",
        "2 models of openai; the one in use: b. Another one: -m NAME",
    ]
