"""Which failed steps a later step cannot do without."""

from __future__ import annotations

import pytest

from sandbox_agent_magic.notebook.keep import bound_names, free_names, needed_failures
from sandbox_agent_magic.types import ExecutionResult, FileInfo, Step


def step(index: int, code: str, status: str = "error", files: tuple[str, ...] = ()) -> Step:
    written = tuple(FileInfo(name, 1) for name in files)
    return Step(index, code, ExecutionResult(status, new_files=written))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import a.b, c as d\nfrom e import f", {"a", "d", "f"}),
        ("x, (y, *z) = 1, (2, 3)\nfor i in x: pass", {"x", "y", "z", "i"}),
        ("def f(a):\n    inner = 1\nclass C:\n    attr = 1", {"f", "C"}),
        ("with open('x') as handle: data = handle.read()", {"handle", "data"}),
        ("(n := 3)", {"n"}),
        ("x = (", set()),
        ("%matplotlib inline\n!ls\nq = 1", {"q"}),
    ],
)
def test_bound_names(code: str, names: set[str]) -> None:
    assert bound_names(code) == names


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import pandas as pd\npd.read_csv('x')", set()),
        ("df = df.dropna()", {"df"}),
        ("total += 1", {"total"}),
        ("def f(a):\n    b = a\n    return b + outside", {"outside"}),
        ("[v * k for v in values]", {"k", "values"}),
        ("print(len(x))", {"print", "len", "x"}),
    ],
)
def test_free_names(code: str, names: set[str]) -> None:
    assert free_names(code) == names


def test_a_failed_step_is_needed_when_a_name_it_bound_is_read() -> None:
    failed = step(1, "import math\nx = 3\n1/0")
    assert needed_failures(step(2, "print(x)", "ok"), [failed]) == [failed]


def test_a_failed_step_is_not_needed_when_the_later_one_binds_the_name_itself() -> None:
    failed = step(1, "import pandas as pd\ndf = pd.read('x')")
    assert needed_failures(step(2, "import pandas as pd\ndf = pd.DataFrame()\ndf", "ok"), [failed]) == []


def test_what_a_needed_step_needs_is_needed_too() -> None:
    first, second = step(1, "a = 1\n1/0"), step(2, "b = a\n1/0")
    assert needed_failures(step(3, "print(b)", "ok"), [first, second]) == [first, second]


def test_a_file_that_a_failed_step_wrote_is_something_to_need() -> None:
    failed = step(1, "open('out.csv','w')\n1/0", files=("out.csv",))
    assert needed_failures(step(2, "open('out.csv').read()", "ok"), [failed]) == [failed]
