"""The same notebook everywhere: notebooks to run in each way, and what has to come out alike."""

from __future__ import annotations

import json
import re
from typing import Any

import nbformat

from tests.support.scripted_notebook import answer, step, waiting

SCENARIOS: dict[str, list[dict[str, object]]] = {
    "sum": [step("total = sum(range(1, 101))\nprint(total)\ntotal"), answer("The sum is **5050**.")],
    "plot": [step("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"), answer("It rises, then falls.")],
    "two steps with an error in between": [
        step("x = 40"),
        step("1/0"),
        step("x + 2"),
        answer("42"),
    ],
    "a file": [step("with open('table.csv', 'w') as file:\n    file.write('a,b\\n1,2\\n')"), answer("It is written.")],
}
INTERRUPTED = [step("print('first')"), step(waiting("never") + "'second'"), answer("never")]
"""Stopped while the second step runs."""


def normalised(notebook: nbformat.NotebookNode, *, agent_outputs: bool = True) -> list[dict[str, Any]]:
    """The cells without what differs from run to run: ids, run ids, times, durations.

    Args:
        notebook: one that was run.
        agent_outputs: whether what the agent cells themselves show counts too.
    """
    cells = json.loads(json.dumps(notebook.cells))
    numbers = {cell["id"]: f"cell {number}" for number, cell in enumerate(cells)}
    runs: dict[str, str] = {}
    for cell in cells:
        metadata = cell["metadata"]
        cell["id"] = numbers[cell["id"]]
        metadata.pop("execution", None)  # nbclient's own record of times
        metadata.pop("trusted", None)
        if "sandbox_agent_inserted" in metadata:
            metadata["sandbox_agent_inserted"] = [numbers[name] for name in metadata["sandbox_agent_inserted"]]
        if "sandbox_agent" in metadata:
            note = metadata["sandbox_agent"]
            note["run"] = runs.setdefault(note["run"], f"run {len(runs)}")
            note["agent_cell"] = numbers[note["agent_cell"]]
        if cell["source"].startswith("%%agent"):
            cell["outputs"] = [_without_times(output) for output in cell["outputs"]] if agent_outputs else []
    return list(cells)


def _without_times(output: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.sub(r"\d+\.\d s\b", "N s", json.dumps(output)))
    return found
