"""Build notebook cells, in nbformat 4.5's schema, from the steps of a run."""

from __future__ import annotations

import hashlib
import re
import secrets

from ..outputs import clean_markdown
from ..types import JSON, KeepPolicy, NotebookCell, RunResult, Step
from .keep import needed_failures


class CellPlan:
    """Decides, step by step, which cells a run leaves in the notebook, and builds them.

    Args:
        run_id: of the run.
        keep: `ok` keeps the steps that worked and the failed ones these need; `all` keeps every step; `final` keeps the
            last step that worked and what it needs.
        cell_magic: first line of a cell whose code ran elsewhere, such as `%%sandbox`; empty for the reader's kernel.
        provenance: put into each cell's metadata beside the run and the step.
    """

    def __init__(self, run_id: str, *, keep: KeepPolicy, cell_magic: str, provenance: dict[str, JSON]) -> None:
        self._run_id = run_id
        self._keep = keep
        self._cell_magic = cell_magic
        self._provenance = provenance
        self._held: list[Step] = []
        """Steps that became no cell so far."""

    def step(self, step: Step) -> list[NotebookCell]:
        """The cells that may be inserted now that `step` has ended."""
        worked = step.result.status == "ok"
        if self._keep == "all":
            return [self._code_cell(step)]
        if self._keep == "final" or not worked:
            self._held.append(step)
            return []
        wanted = needed_failures(step, self._held)
        self._held = [held for held in self._held if held not in wanted]
        return [self._code_cell(each) for each in (*wanted, step)]

    def finish(self, result: RunResult) -> list[NotebookCell]:
        """The last cells: with `final` the code that counts, then the answer as a markdown cell."""
        cells: list[NotebookCell] = []
        if self._keep == "final":
            last = next((step for step in reversed(self._held) if step.result.status == "ok"), None)
            if last is not None:
                cells += [self._code_cell(each) for each in (*needed_failures(last, self._held), last)]
        if result.answer:
            label = f"\n\n*({result.label})*" if result.label else ""
            cells.append(self._cell("markdown", clean_markdown(result.answer) + label, None, usage=result.usage))
        return cells

    def _code_cell(self, step: Step) -> NotebookCell:
        source = f"{self._cell_magic}\n{step.code}" if self._cell_magic else step.code
        cell = self._cell("code", source, step.index, usage=step.usage)
        if step.result.status != "ok":
            cell["metadata"]["tags"] = ["raises-exception"]
        cell["outputs"] = list(step.result.outputs)
        cell["execution_count"] = step.result.execution_count
        return cell

    def _cell(self, kind: str, source: str, step: int | None, *, usage: object) -> NotebookCell:
        tokens = {name: getattr(usage, name) for name in ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")}
        provenance: dict[str, JSON] = {
            "run": self._run_id,
            "step": step,
            **self._provenance,
            "usage": tokens,
            "source_sha256": source_digest(source),
        }
        return {
            "cell_type": "code" if kind == "code" else "markdown",
            "id": secrets.token_hex(8),
            "source": source,
            "metadata": {"sandbox_agent": provenance},
        }


def source_digest(source: str) -> str:
    """Tells whether the reader has edited an inserted cell."""
    return hashlib.sha256(source.encode("utf-8", "replace")).hexdigest()[:16]


def fenced(text: str, language: str = "") -> str:
    """`text` as a fenced block whose fence no line of it can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
