"""The loop, with a scripted model and code that really runs (in this process)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic.agent import Agent
from sandbox_agent_magic.errors import ProviderAuthError, ProviderError, ProviderRateLimited
from sandbox_agent_magic.executors.local import LocalExecutor
from sandbox_agent_magic.prompts import unanswered_calls
from sandbox_agent_magic.providers.scripted import ScriptedProvider
from sandbox_agent_magic.types import (
    Event,
    Limits,
    Message,
    ModelReply,
    ModelRequest,
    ModelTraits,
    RetryScheduled,
    RunFinished,
    RunResult,
    StepFinished,
    TextStreamed,
    ToolCall,
    Usage,
    Verdict,
)

ORDINARY = ModelTraits()
DEFAULTS = Limits()
SMALL = ModelTraits(small=True, images=False, label="may be wrong")


class Yes:
    """A gate that lets everything pass."""

    def allow_request(self, estimate: Usage) -> Verdict:
        return Verdict(True)

    def allow_code(self, code: str) -> Verdict:
        return Verdict(True)


class Bench:
    """A scripted model, an executor, and what happened."""

    def __init__(self, executor: LocalExecutor) -> None:
        self.executor = executor
        self.conversation: list[Message] = []
        self.events: list[Event] = []
        self.slept: list[float] = []
        self.provider = ScriptedProvider([])

    def run(
        self,
        *steps: ModelReply | ProviderError | Callable[[ModelRequest], ModelReply],
        traits: ModelTraits = ORDINARY,
        limits: Limits = DEFAULTS,
        gate: Yes | None = None,
        prompt: str = "Do it.",
    ) -> RunResult:
        self.provider = ScriptedProvider(steps, traits=traits)
        agent = Agent(self.provider, self.executor, limits=limits, temperature=0.0, sleep=self.slept.append)
        return agent.run(prompt, self.conversation, emit=self.events.append, gate=gate or Yes())

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    yield Bench(LocalExecutor(InteractiveShell.instance()))
    InteractiveShell.clear_instance()


def code(source: str, text: str = "", call_id: str = "c") -> ModelReply:
    import json

    call = ToolCall(call_id, "python", json.dumps({"code": source}))
    return ModelReply(text, (call,), "tool_calls", Usage(100, 0, 10))


def say(text: str, reason: str = "stop") -> ModelReply:
    return ModelReply(text, finish_reason=reason, usage=Usage(50, 0, 5))


def test_code_runs_and_its_output_leads_to_the_answer(bench: Bench) -> None:
    result = bench.run(code("print(sum(range(1, 101)))", "I sum."), say("It is 5050."))
    assert (result.status, result.answer, result.requests) == ("completed", "It is 5050.", 2)
    assert result.steps[0].explanation == "I sum."
    assert result.usage == Usage(150, 0, 15)
    assert bench.provider.requests[1].messages[-1] == Message("tool", "5050", tool_call_id="c")
    assert isinstance(bench.events[-1], RunFinished)


def test_an_error_goes_back_to_the_model_and_it_may_try_again(bench: Bench) -> None:
    result = bench.run(code("1/0"), code("print('ok')", call_id="d"), say("Done."))
    assert [step.result.status for step in result.steps] == ["error", "ok"]
    assert "ZeroDivisionError" in bench.provider.requests[1].messages[-1].text


def test_each_request_begins_with_the_one_before(bench: Bench) -> None:
    bench.run(code("1"), code("2", call_id="d"), say("One."))
    bench.run(say("Two."), prompt="And now?")
    requests = bench.provider.requests
    assert requests[0].messages[1:-1] == tuple(bench.conversation[:-2])
    assert bench.conversation[-1].text == "Two."


def test_fenced_code_runs_where_the_model_has_no_tools(bench: Bench) -> None:
    result = bench.run(say("Look:\n```python\nprint(6 * 7)\n```"), say("42."))
    assert result.steps[0].code == "print(6 * 7)"
    assert bench.provider.requests[1].messages[-1] == Message("user", "Output:\n42")


def test_fences_in_an_answer_are_not_run_once_tools_were_called(bench: Bench) -> None:
    result = bench.run(code("1"), say("Use it so:\n```python\n1/0\n```"))
    assert result.status == "completed"
    assert len(result.steps) == 1


def test_after_a_failed_piece_the_rest_of_the_reply_is_not_run(bench: Bench) -> None:
    reply = replace(code("1/0"), tool_calls=(*code("1/0").tool_calls, *code("print(2)", call_id="d").tool_calls))
    result = bench.run(reply, say("Stopped."))
    assert len(result.steps) == 1
    assert bench.provider.requests[1].messages[-1].text == "Not run, because the code before it failed."


def test_the_model_turns_are_bounded(bench: Bench) -> None:
    result = bench.run(*(code(f"x = {i}", call_id=str(i)) for i in range(9)), limits=Limits(max_iterations=3))
    assert (result.status, len(result.steps)) == ("limit", 3)
    assert "MAX_ITERATIONS" in result.reason


def test_the_same_failing_code_three_times_ends_the_run(bench: Bench) -> None:
    result = bench.run(*(code("1/0", call_id=str(i)) for i in range(9)))
    assert (result.status, len(result.steps)) == ("stuck", 3)


class No(Yes):
    """A gate that lets no request pass."""

    def allow_request(self, estimate: Usage) -> Verdict:
        return Verdict(False, "Not now.")


def test_a_request_that_was_not_sent_leaves_nothing_in_the_conversation(bench: Bench) -> None:
    result = bench.run(say("Never."), gate=No())
    assert (result.status, result.reason) == ("budget", "Not now.")
    assert bench.conversation == []


def test_pictures_go_with_the_result_of_the_call_that_showed_them(bench: Bench) -> None:
    show = "from IPython.display import display; display({'image/png': 'AAAA', 'text/plain': 'p'}, raw=True)"
    bench.run(code(show), say("Seen."))
    result = bench.provider.requests[1].messages[-1]
    assert (result.role, [image.data for image in result.images]) == ("tool", ["AAAA"])


def test_a_failed_request_is_sent_again_in_sight_of_the_reader(bench: Bench) -> None:
    limited = ProviderRateLimited("Too many requests.", provider="scripted", model="m", retry_after=7.0)
    result = bench.run(limited, limited, say("There."))
    assert result.answer == "There."
    assert bench.slept == [7.0, 7.0]
    assert [event.attempt for event in bench.of(RetryScheduled) if isinstance(event, RetryScheduled)] == [1, 2]
    assert result.requests == 3


def test_retries_are_bounded_and_the_conversation_is_as_before(bench: Bench) -> None:
    limited = ProviderRateLimited("Too many requests.", provider="scripted", model="m")
    with pytest.raises(ProviderRateLimited):
        bench.run(*[limited] * 9, limits=Limits(max_retry=2))
    assert len(bench.slept) == 2
    assert bench.conversation == []


def test_a_wait_longer_than_the_request_may_take_is_not_begun(bench: Bench) -> None:
    limited = ProviderRateLimited("Too many requests.", provider="scripted", model="m", retry_after=3600.0)
    with pytest.raises(ProviderRateLimited):
        bench.run(limited, say("never"))
    assert bench.slept == []


def test_a_bad_key_is_not_tried_twice(bench: Bench) -> None:
    with pytest.raises(ProviderAuthError):
        bench.run(ProviderAuthError("Bad key.", provider="scripted", model="m"), say("never"))
    assert len(bench.provider.requests) == 1


def test_an_interrupt_while_the_model_writes_ends_the_run_and_keeps_its_steps(bench: Bench) -> None:
    def stop(_: ModelRequest) -> ModelReply:
        raise KeyboardInterrupt

    result = bench.run(code("print(1)"), stop)
    assert (result.status, len(result.steps)) == ("interrupted", 1)
    assert unanswered_calls(bench.conversation) == []
    assert bench.run(say("Fine."), prompt="Again").status == "completed"


def test_an_interrupt_of_the_code_ends_the_run(bench: Bench) -> None:
    result = bench.run(code("raise KeyboardInterrupt"), say("never"))
    assert result.status == "interrupted"
    assert unanswered_calls(bench.conversation) == []


def test_a_gate_can_stop_a_request_and_refuse_code(bench: Bench) -> None:
    class Closed(Yes):
        def allow_request(self, estimate: Usage) -> Verdict:
            return Verdict(len(bench.events) == 0 and estimate.input_tokens > 100, "The budget is used up.")

    assert bench.run(say("never"), gate=Closed(), prompt="x" * 1000).status == "completed"
    result = bench.run(say("never"), gate=Closed())
    assert (result.status, result.reason) == ("budget", "The budget is used up.")

    class NoCode(Yes):
        def allow_code(self, code: str) -> Verdict:
            return Verdict(False, "the reader said no")

    result = bench.run(code("print(1)"), say("I could not."), gate=NoCode())
    assert result.steps == ()
    assert bench.provider.requests[1].messages[-1].text == "Not run: the reader said no"


def test_ten_long_outputs_cost_less_than_250_kb_in_all(bench: Bench) -> None:
    steps = [code(f"print('x' * 20_000 + '{i}')", call_id=str(i)) for i in range(10)]
    bench.run(*steps, say("Done."))
    sent = sum(len(message.text) for request in bench.provider.requests for message in request.messages)
    assert sent <= 230_000  # the rest is JSON around it


def test_a_reply_cut_at_its_length_is_not_run(bench: Bench) -> None:
    cut = replace(code("print('half"), finish_reason="length")
    result = bench.run(cut, say("I give up."))
    assert result.steps == ()
    assert "cut" in bench.provider.requests[1].messages[-1].text


def test_an_empty_reply_is_asked_again(bench: Bench) -> None:
    assert bench.run(say(""), say("Here.")).answer == "Here."


def test_a_filtered_reply_is_no_answer(bench: Bench) -> None:
    result = bench.run(say("I", "content_filter"))
    assert (result.status, result.answer) == ("failed", "I")


def test_a_small_model_is_done_after_code_that_worked(bench: Bench) -> None:
    result = bench.run(say("```python\nprint(5050)\n```"), say("It is 5050.\n```python\n1/0\n```"), traits=SMALL)
    assert (result.status, result.answer, len(result.steps)) == ("completed", "It is 5050.", 1)
    assert result.label == "may be wrong"
    assert bench.provider.requests[0].tools == ()


def test_a_small_model_is_not_asked_about_a_table_or_a_picture(bench: Bench) -> None:
    result = bench.run(say("```python\nprint('a\\nb')\n```"), traits=SMALL)
    assert (result.status, result.answer, result.requests) == ("completed", "```text\na\nb\n```", 1)
    picture = "from IPython.display import Image, display\ndisplay(Image(data=b'\\x89PNG', format='png'))"
    result = bench.run(say(f"```python\n{picture}\n```"), traits=SMALL)
    assert result.answer == "The picture is in the output above."
    assert bench.conversation[-1].role == "assistant"


def test_a_small_model_gets_warmer_after_a_failure(bench: Bench) -> None:
    bench.run(say("```python\n1/0\n```"), say("```python\nprint(1)\n```"), say("1"), traits=SMALL)
    temperatures = [request.temperature for request in bench.provider.requests]
    assert temperatures[0] == 0.0
    assert (temperatures[1] or 0) > 0.0


def test_events_tell_the_whole_story(bench: Bench) -> None:
    bench.run(code("print(1)", "Look."), say("One."))
    kinds = [kind for kind, _ in itertools.groupby(type(event).__name__ for event in bench.events)]
    assert kinds == [
        "RequestSent",
        "TextStreamed",
        "ReplyReceived",
        "CodeProposed",
        "OutputReceived",
        "StepFinished",
        "RequestSent",
        "TextStreamed",
        "ReplyReceived",
        "RunFinished",
    ]
    assert bench.of(StepFinished)
    assert bench.of(TextStreamed)
