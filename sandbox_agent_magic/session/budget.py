"""The gate that keeps the budgets: of a cell, of a notebook, of a day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from ..ledger import Entry, Ledger, Total, dollars, money
from ..settings import Settings
from ..types import Usage, Verdict

PriceHook = Callable[[Usage], float | None]
"""US dollars for some tokens of the model that is asked; None where its price is unknown."""


@dataclass(frozen=True, slots=True)
class Cap:
    """One budget that is set."""

    scope: str
    """`this cell`, `this notebook`, `today`."""
    usd: float | None
    tokens: int | None
    usd_setting: str
    """As shown, with where its value came from."""
    tokens_setting: str


class BudgetGate:
    """Lets requests pass while the budgets allow, and enters what each of them used into the ledger.

    Other notebooks spend from the same day's budget: the ledger is read before each request, so that a budget is
    overrun by no more than the requests that are under way at that moment.

    Args:
        settings: hold the budgets.
        ledger: what was spent before, and where this run's requests are entered.
        price: of the model that is asked.
        entry: makes this run's entry from a request's usage.
        notebook: whose budget counts.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        price: PriceHook,
        entry: Callable[[Usage], Entry],
        notebook: str,
    ) -> None:
        self._ledger = ledger
        self._price = price
        self._entry = entry
        self._notebook = notebook
        self._caps = caps_of(settings)
        self._run = Total.of()

    def spent(self, usage: Usage) -> None:
        """A request was answered."""
        self._run += Total.of(usage)
        self._ledger.enter(self._entry(usage))

    def allow_request(self, estimate: Usage) -> Verdict:
        """Whether a request of about this size stays within every budget."""
        for cap in self._caps:
            reason = self._objection(cap, self._spent(cap), estimate)
            if reason:
                return Verdict(False, reason)
        return Verdict(True)

    def allow_code(self, code: str) -> Verdict:  # noqa: ARG002
        """Consent to the local executor is asked for before a run begins."""
        return Verdict(True)

    def _spent(self, cap: Cap) -> Total:
        if cap.scope == "this cell":
            return self._run
        if cap.scope == "this notebook":
            return self._ledger.spent(notebook=self._notebook)
        return self._ledger.spent(day=date.today().isoformat())

    def _cost(self, estimate: Usage) -> float | None:
        """About what a request costs: by list price, else what this run's requests have cost on average so far."""
        cost = self._price(estimate)
        if cost is None and self._run.cost_usd is not None and not self._run.unpriced:
            return self._run.cost_usd / self._run.requests
        return cost

    def _objection(self, cap: Cap, spent: Total, estimate: Usage) -> str:
        """Why the request must not be sent; empty if it may."""
        if cap.tokens is not None and spent.tokens + estimate.input_tokens + estimate.output_tokens > cap.tokens:
            return (
                f"The token budget of {cap.scope} ({cap.tokens:,}, {cap.tokens_setting}) is reached: "
                f"{spent.tokens:,} used, and the next request takes about {estimate.input_tokens:,}."
            )
        if cap.usd is None:
            return ""
        cost, used = self._cost(estimate), spent.cost_usd or 0.0
        if cost is None and self._run.unpriced and cap.tokens is None:
            tokens = cap.tokens_setting.partition(" ")[0]
            return (
                f"The budget of {cap.scope} (${cap.usd:g}, {cap.usd_setting}) cannot be kept: nobody says what this "
                f"model costs. Set {tokens} as well, or leave the budget out."
            )
        if used + (cost or 0.0) > cap.usd or (used >= cap.usd and cost != 0):
            about = f", and the next request costs about {dollars(cost)}" if cost else ""
            return (
                f"The budget of {cap.scope} (${cap.usd:g}, {cap.usd_setting}) is reached: {dollars(used)} spent{about}."
            )
        return ""


def caps_of(settings: Settings) -> list[Cap]:
    """The budgets that are set."""

    def shown(name: str) -> str:
        source = settings.source(name)
        return f"{name} {'given as an option' if source == 'argument' else f'from {source}'}"

    caps = [
        Cap(
            scope,
            getattr(settings, f"{prefix}_usd".lower()),
            getattr(settings, f"{prefix}_tokens".lower()),
            shown(f"{prefix}_USD"),
            shown(f"{prefix}_TOKENS"),
        )
        for scope, prefix in (
            ("this cell", "AGENT_BUDGET"),
            ("this notebook", "AGENT_NOTEBOOK_BUDGET"),
            ("today", "AGENT_DAY_BUDGET"),
        )
    ]
    return [cap for cap in caps if cap.usd is not None or cap.tokens is not None]


def budget_notes(settings: Settings, ledger: Ledger, notebook: str) -> list[str]:
    """A line on each budget of a notebook or a day, and how much of it is spent."""
    totals = {
        "this notebook": ledger.spent(notebook=notebook),
        "today": ledger.spent(day=date.today().isoformat()),
    }
    lines = []
    for cap in caps_of(settings):
        if cap.scope in totals:
            spent = totals[cap.scope]
            if cap.usd is not None:
                lines.append(f"Budget of {cap.scope}: {money(spent)} of ${cap.usd:g} spent ({cap.usd_setting}).")
            if cap.tokens is not None:
                lines.append(
                    f"Budget of {cap.scope}: {spent.tokens:,} of {cap.tokens:,} tokens ({cap.tokens_setting})."
                )
    return lines
