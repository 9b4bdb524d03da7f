"""What the model is told, and what code is read out of its replies."""

from __future__ import annotations

import json

from sandbox_agent_magic import prompts
from sandbox_agent_magic.types import ErrorInfo, ExecutionResult, Message, ModelReply, ModelTraits, ToolCall

FENCED = "I sum.\n```python\nprint(1)\n```\nThen\n```py\nprint(2)\n```\n```text\nno code\n```"


def call(arguments: str, name: str = "python") -> ModelReply:
    return ModelReply("", (ToolCall("c1", name, arguments),))


def test_the_system_prompt_and_the_tool_stay_under_their_budget() -> None:
    tool = prompts.PYTHON_TOOL
    schema = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    text = prompts.system_prompt(ModelTraits(), isolated=True, extra=None)
    assert len(text.encode()) + len(json.dumps({"type": "function", "function": schema})) <= 1500
    assert len(prompts.system_prompt(ModelTraits(small=True), isolated=True, extra=None).encode()) <= 500


def test_a_readers_braces_are_data() -> None:
    assert "{x} %s {0}" in prompts.system_prompt(ModelTraits(), isolated=False, extra="{x} %s {0}")


def test_every_fenced_python_block_is_code_and_other_blocks_are_not() -> None:
    blocks = prompts.code_blocks(ModelReply(FENCED), fences=True)
    assert [block.code for block in blocks] == ["print(1)", "print(2)"]


def test_a_fence_is_an_explanation_once_the_model_calls_tools() -> None:
    assert prompts.code_blocks(ModelReply(FENCED), fences=False) == ()


def test_a_tool_call_brings_its_code() -> None:
    assert prompts.code_blocks(call('{"code": "x = 1\\n"}'), fences=True)[0].code == "x = 1"


def test_broken_arguments_are_a_problem_that_the_model_is_told() -> None:
    for bad in ("", "{", "[]", '{"code": 3}', '{"source": "x"}', "null", "[" * 100_000):
        block = prompts.code_blocks(call(bad), fences=True)[0]
        assert "JSON" in block.problem
        assert block.call_id == "c1"


def test_a_tool_that_does_not_exist_is_a_problem_that_the_model_is_told() -> None:
    assert "no tool 'bash'" in prompts.code_blocks(call("{}", "bash"), fences=True)[0].problem


def test_a_small_model_may_forget_the_language_or_the_fence() -> None:
    assert prompts.code_blocks(ModelReply("```\nprint(1)\n```"), fences=True, small=True)[0].code == "print(1)"
    assert prompts.code_blocks(ModelReply("print(1)"), fences=True, small=True)[0].code == "print(1)"
    assert prompts.code_blocks(ModelReply("The answer is 3."), fences=True, small=True) == ()


def test_a_fence_that_is_not_closed_runs_to_the_end() -> None:
    assert prompts.code_blocks(ModelReply("```python\nprint(1)\n"), fences=True)[0].code == "print(1)"


def test_prose_is_what_stands_outside_the_fences() -> None:
    assert prompts.prose("Before.\n```python\nx\n```\nAfter.") == "Before.\n\nAfter."


def test_a_result_for_the_model_fits_and_says_what_happened() -> None:
    result = ExecutionResult(
        "timeout",
        ({"output_type": "stream", "name": "stdout", "text": "y" * 10_000},),
        error=ErrorInfo("TimeoutError", "too long", ("frame",) * 500),
        state_lost=True,
    )
    text = prompts.result_text(result, max_bytes=1000)
    assert len(text.encode()) < 1100
    assert "ran too long" in text
    assert "restarted" in text


def test_no_output_is_said() -> None:
    assert prompts.result_text(ExecutionResult("ok"), max_bytes=100) == "(no output)"


def test_unanswered_calls_are_found_even_when_ids_come_again() -> None:
    asked = Message("assistant", "", tool_calls=(ToolCall("c", "python", "{}"), ToolCall("d", "python", "{}")))
    answered = [asked, Message("tool", "1", tool_call_id="c"), Message("tool", "2", tool_call_id="d")]
    assert prompts.unanswered_calls(answered) == []
    assert prompts.unanswered_calls([*answered, asked, Message("tool", "1", tool_call_id="c")]) == ["d"]
