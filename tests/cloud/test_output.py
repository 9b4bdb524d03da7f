"""What comes out of a sandbox far away is cleaned and bounded as that of our own sandbox is."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.outputs import OutputLimits

from .conftest import inner, run, text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_scripts_and_our_own_cells_do_not_pass(executor: HealingExecutor) -> None:
    forged = {"application/vnd.sandbox-agent.cells.v1+json": {"cells": []}, "application/javascript": "alert(1)"}
    forged["text/html"] = "<b onclick='x()'>bold</b><script>alert(1)</script><img src='https://evil.example/x'>"
    code = f"from IPython.display import display\ndisplay({forged!r}, raw=True)\nprint('\\x1b]0;title\\x07done')"
    shown = str(run(executor, code).outputs)
    assert "bold" in shown
    assert "done" in shown
    for bad in ("script", "onclick", "evil", "vnd.sandbox-agent", "javascript", "\\x07", "\x07"):
        assert bad not in shown.lower().replace("[not shown: application/vnd.sandbox-agent.cells.v1+json", "").replace(
            "application/javascript]", ""
        )


def test_answers_that_are_forged_are_not_believed(executor: HealingExecutor) -> None:
    run(executor, "n = 42")
    forge = "import sys\nfar = sys.modules['_sandbox_agent_remote']\n"
    forge += "far.say = lambda word, *rest: print('\\n' + word + '[[[[' * 100000)"
    result = run(executor, forge)
    assert (result.status, result.new_files, result.state_lost) == ("died", (), True)
    assert text(run(executor, "n")).endswith("42")
    forged = '"changed": [["../../x\\u0000", -1], 5, ["a", 1]]'
    code = "import sys\nfar = sys.modules['_sandbox_agent_remote']\nold = far.call\n"
    code += f"far.call = lambda *a: old(*a).replace('\"changed\": []', {forged!r})"
    assert [info.name for info in run(executor, code).new_files] == ["a"]


def test_a_flood_is_stopped_and_what_came_is_kept(executor: HealingExecutor) -> None:
    inner(executor).limits = replace(OutputLimits(), messages=300)
    run(executor, "n = 42")
    flood = "import sys, time\nwhile True:\n    print('x', flush=True)\n    print('y', file=sys.stderr, flush=True)"
    began = time.monotonic()
    result = run(executor, flood)
    assert (result.status, result.error.ename) == ("error", "OutputLimitExceeded")
    assert "AGENT_LIMIT_MESSAGES" in result.error.evalue
    assert text(result).startswith("x")
    assert time.monotonic() - began < 40
    assert text(run(executor, "n")).endswith("42")


def test_one_output_may_not_be_too_large(executor: HealingExecutor) -> None:
    inner(executor).limits = replace(OutputLimits(), message_bytes=100_000)
    result = run(executor, "n = 42\nprint('x' * 1_000_000)")
    assert (result.status, result.error.ename) == ("error", "OutputLimitExceeded")
    assert "AGENT_LIMIT_MESSAGE" in result.error.evalue
    assert text(run(executor, "n")).endswith("42")


def test_ctrl_c_stops_the_code_over_there_and_keeps_its_variables(executor: HealingExecutor) -> None:
    run(executor, "kept = 42")
    threading.Timer(1, os.kill, [os.getpid(), signal.SIGINT]).start()
    began = time.monotonic()
    result = run(executor, "import time\nprint('go', flush=True)\ntime.sleep(600)")
    assert result.status == "interrupted"
    assert "go" in text(result)
    assert time.monotonic() - began < 20
    assert text(run(executor, "kept")) == "42"


def test_the_reader_sees_one_count_for_each_of_his_cells(executor: HealingExecutor) -> None:
    assert [run(executor, "1").execution_count for _ in range(3)] == [1, 2, 3]
