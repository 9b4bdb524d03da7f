"""The code of a run as one cell."""

from __future__ import annotations

from sandbox_agent_magic.notebook.cells import CellPlan
from sandbox_agent_magic.notebook.inline import NextInputWriter, joined
from sandbox_agent_magic.types import JSON, ExecutionResult, RunResult, Step

WORKED = Step(1, "x = 1", ExecutionResult("ok"))


def test_steps_are_joined_under_one_sandbox_line() -> None:
    assert joined(["%%sandbox\nx = 1\n", "%%sandbox\n\nprint(x)"]) == "%%sandbox\nx = 1\n\nprint(x)"


def test_code_of_the_readers_own_kernel_is_joined_bare() -> None:
    assert joined(["x = 1", "print(x)"]) == "x = 1\n\nprint(x)"


def test_a_cell_magic_of_the_code_itself_cannot_be_joined_so_the_last_step_stands_alone() -> None:
    assert joined(["%%sandbox\nx = 1", "%%sandbox\n%%time\nprint(x)"]) == "%%sandbox\n%%time\nprint(x)"
    assert joined(["%%sandbox\n%%time\nx = 1"]) == "%%sandbox\n%%time\nx = 1"
    assert joined(["%%time\nx = 1", "y = 2"]) == "y = 2"


def test_interrupted_the_code_is_shown_where_a_notebook_would_not_take_it() -> None:
    offered: list[str] = []
    shown: list[dict[str, JSON]] = []
    for publish in (lambda bundle, _: shown.append(bundle), None):
        writer = NextInputWriter(offered.append, publish)
        for cell in CellPlan("run", keep="ok", cell_magic="%%sandbox", provenance={}).step(WORKED):
            writer.add(cell)
        writer.finish(RunResult("interrupted", ""))
    assert [bundle["text/plain"] for bundle in shown] == ["%%sandbox\nx = 1"]
    assert offered == ["%%sandbox\nx = 1"]  # a terminal takes it all the same


def test_without_code_nothing_is_offered() -> None:
    offered: list[str] = []
    NextInputWriter(offered.append).finish(RunResult("completed", "42"))
    assert offered == []
