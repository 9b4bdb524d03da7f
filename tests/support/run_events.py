"""Steps and results of made-up runs, for the tests of the displays."""

from __future__ import annotations

from sandbox_agent_magic.types import ErrorInfo, ExecutionResult, Output, RunResult, Step, Usage

HOSTILE = "<script>alert(1)</script>\x1b]0;title\x07\x1b[2J"
WORKED = Step(1, "print(5)", ExecutionResult("ok", ({"output_type": "stream", "name": "stdout", "text": "5\n"},)))
ERROR = ErrorInfo("E", HOSTILE, (HOSTILE,))
SHOWN: Output = {"output_type": "error", "ename": "E", "evalue": HOSTILE, "traceback": [HOSTILE]}
FAILED = Step(1, HOSTILE, ExecutionResult("error", (SHOWN,), error=ERROR), HOSTILE)
RESULT = RunResult(
    "completed", "5", (FAILED,), Usage(1200, 200, 30, 0.0125), provider="openai", model="m", executor="sandbox"
)
INTERRUPTED = RunResult("interrupted", "", (), reason="Interrupted by the reader.")
