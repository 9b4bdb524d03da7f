"""The loop: conversation -> provider -> code -> executor -> result back into the conversation.

It knows only values and Protocols: no provider, no executor, no notebook. Retries of a request live here, in sight of
the reader. Whatever happens, the conversation is left in a state that a provider accepts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import ProviderBudgetExceeded, SandboxAgentError
from ..outputs import images_of, text_of
from ..prompts import (
    CodeBlock,
    code_blocks,
    prose,
    result_text,
    small_answer,
    small_question,
    system_prompt,
    unanswered_calls,
)
from ..types import (
    CodeProposed,
    EmitHook,
    ExecutionResult,
    Executor,
    Gate,
    Image,
    Limits,
    Message,
    ModelReply,
    Output,
    OutputReceived,
    Provider,
    RunFinished,
    RunResult,
    Step,
    StepFinished,
    Usage,
)
from .progress import Progress, Stop
from .request import Asker

_STUCK_AFTER = 3
"""The same code failing this often in a row will not work the next time either."""


class Agent:
    """One provider and one executor at work.

    Args:
        provider: asked for code and answers.
        executor: runs the code.
        limits: bounds of each run.
        temperature: of the requests; a small model's rises after a failure, since greedy decoding repeats its mistake.
        system_message: the reader's addition to the system prompt.
        clock: seconds, monotonic.
        sleep: waits some seconds between attempts.
    """

    def __init__(
        self,
        provider: Provider,
        executor: Executor,
        *,
        limits: Limits,
        temperature: float | None = None,
        system_message: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._provider = provider
        self._executor = executor
        self._limits = limits
        self._temperature = temperature
        self._clock = clock
        self._asker = Asker(provider, limits, clock=clock, sleep=sleep)
        self._system = Message(
            "system",
            system_prompt(provider.traits, isolated=executor.capabilities.isolated, extra=system_message),
        )

    def run(
        self, prompt: str, conversation: list[Message], *, emit: EmitHook, gate: Gate, run_id: str = ""
    ) -> RunResult:
        """Work on `prompt` until an answer, a limit or an interrupt.

        Args:
            prompt: the request, with what the model is to know about files.
            conversation: earlier messages; this run's are appended as they come to be.
            emit: told of everything as it happens.
            gate: asked before each request and each piece of code.
            run_id: put into the result.

        Raises:
            ProviderError: a request failed, and its retries too. A budget that the server keeps is no error but an end.
            ExecutorError: the executor failed (not the code).
        """
        began = self._clock()
        start = len(conversation)
        progress = Progress()
        conversation.append(Message("user", prompt))
        stop: Stop
        try:
            while True:
                self._turn(conversation, progress, emit, gate)
        except Stop as exc:
            stop = exc
        except KeyboardInterrupt:
            stop = Stop("interrupted", reason="Interrupted by the reader.")
        except ProviderBudgetExceeded as exc:
            stop = Stop("budget", reason=" ".join(exc.lines()))
        except SandboxAgentError:
            if not progress.turns:
                del conversation[start:]  # nothing happened: running the cell again must not ask twice
            raise
        finally:
            _mend(conversation)
        if stop.status == "budget" and not progress.turns:
            del conversation[start:]
        result = RunResult(
            status=stop.status,
            answer=stop.answer,
            steps=tuple(progress.steps),
            usage=progress.usage,
            files=tuple({f.name: f for step in progress.steps for f in step.result.new_files}.values()),
            reason=stop.reason,
            provider=self._provider.name,
            model=self._provider.model,
            executor=_described(self._executor),
            label=self._provider.traits.label,
            run_id=run_id,
            requests=progress.requests,
            duration_s=self._clock() - began,
        )
        emit(RunFinished(result))
        return result

    # ---- one turn of the model ----------------------------------------------------------------------------------

    def _turn(self, conversation: list[Message], progress: Progress, emit: EmitHook, gate: Gate) -> None:
        """One request and what its reply asks for. Ends the run by raising `Stop`."""
        if progress.turns >= self._limits.max_iterations:
            raise Stop(
                "limit",
                reason=f"No answer after {progress.turns} model turns (MAX_ITERATIONS, --max-iterations).",
            )
        reply = self._asker.ask(
            (self._system, *conversation),
            temperature=self._temperature_now(progress),
            turn=progress.turns + 1,
            emit=emit,
            gate=gate,
            on_attempt=progress.count_request,
        )
        if isinstance(reply, str):
            raise Stop("budget", reason=reply)
        progress.turns += 1
        progress.usage += reply.usage
        progress.used_tools = progress.used_tools or bool(reply.tool_calls)
        conversation.append(Message("assistant", reply.text, tool_calls=reply.tool_calls))
        small = self._provider.traits.small
        if progress.answering:
            raise Stop("completed", answer=prose(reply.text) or text_of(progress.steps[-1].result.outputs))
        blocks = code_blocks(reply, fences=small or not progress.used_tools, small=small)
        if reply.finish_reason == "length" and blocks:
            conversation.extend(_unrun(blocks, "Not run: the reply was cut at the model's length limit. Be shorter."))
            return
        if not blocks:
            self._finish(reply, conversation)
            return
        self._run_blocks(reply, blocks, conversation, progress, emit, gate)

    def _finish(self, reply: ModelReply, conversation: list[Message]) -> None:
        """A reply without code is the answer; an empty one is asked again."""
        if reply.finish_reason == "content_filter":
            raise Stop("failed", answer=reply.text, reason="The provider's content filter stopped the reply.")
        if reply.finish_reason == "length":
            raise Stop("limit", answer=reply.text, reason="The answer was cut at the model's length limit.")
        if not reply.text.strip():
            conversation[-1] = Message("assistant", "(nothing)")
            conversation.append(Message("user", "Your reply was empty. Go on, or give the answer."))
            return
        raise Stop("completed", answer=reply.text.strip())

    def _run_blocks(
        self,
        reply: ModelReply,
        blocks: tuple[CodeBlock, ...],
        conversation: list[Message],
        progress: Progress,
        emit: EmitHook,
        gate: Gate,
    ) -> None:
        """Run a reply's code in order; after one that failed, the rest is not run."""
        failed = False
        explanation = prose(reply.text) if reply.tool_calls or not self._provider.traits.small else ""
        texts: list[str] = []
        pictures: list[ExecutionResult] = []
        for number, block in enumerate(blocks):
            images: tuple[Image, ...] = ()
            if failed:
                text = "Not run, because the code before it failed."
            elif block.problem:
                text, failed = block.problem, True
            elif not (verdict := gate.allow_code(block.code)).allowed:
                text, failed = f"Not run: {verdict.reason}", True
            else:
                first = number == 0
                result = self._step(
                    block, explanation if first else "", reply.usage if first else Usage(), progress, emit
                )
                failed = result.status != "ok"
                images = self._images([result])
                text = result_text(result, max_bytes=self._limits.model_output_bytes // len(blocks))
                pictures.append(result)
            texts.append(text)
            if block.call_id is not None:
                conversation.append(Message("tool", text, images=images, tool_call_id=block.call_id))
            if progress.steps and progress.steps[-1].result.status == "interrupted":
                raise Stop("interrupted", reason="Interrupted by the reader.")
        progress.failures = progress.failures + 1 if failed else 0
        self._check_stuck(progress)
        self._report(conversation, texts, pictures, progress, failed=failed, by_tools=bool(reply.tool_calls))

    def _report(
        self,
        conversation: list[Message],
        texts: list[str],
        results: list[ExecutionResult],
        progress: Progress,
        *,
        failed: bool,
        by_tools: bool,
    ) -> None:
        """Tell the model what its code did; results of tools are in the conversation already, with their pictures."""
        if self._provider.traits.small and not failed:
            self._ask_small(conversation, texts, results, progress)
        elif not by_tools:
            text = "Output:\n" + "\n\n".join(texts)
            conversation.append(Message("user", text, images=self._images(results)))

    def _images(self, results: list[ExecutionResult]) -> tuple[Image, ...]:
        """The pictures that code showed, where the model can see."""
        shown = results if self._provider.traits.images else []
        return tuple(image for result in shown for image in images_of(result.outputs))

    def _ask_small(
        self, conversation: list[Message], texts: list[str], results: list[ExecutionResult], progress: Progress
    ) -> None:
        """A small model's code worked: take the output as the answer, or have one line put into words."""
        conversation.append(Message("user", small_question("\n".join(texts))))
        outputs = [output for result in results for output in result.outputs]
        answer = small_answer(text_of(outputs), pictures=bool(images_of(outputs)))
        if answer is not None:
            conversation.append(Message("assistant", answer))
            raise Stop("completed", answer=answer)
        progress.answering = True

    def _step(
        self, block: CodeBlock, explanation: str, usage: Usage, progress: Progress, emit: EmitHook
    ) -> ExecutionResult:
        index = len(progress.steps) + 1
        emit(CodeProposed(index, block.code))

        def on_output(output: Output) -> None:
            emit(OutputReceived(index, output))

        result = self._executor.execute(block.code, timeout_s=self._limits.cell_timeout_s, on_output=on_output)
        step = Step(index, block.code, result, explanation, usage)
        progress.steps.append(step)
        emit(StepFinished(step))
        return result

    def _check_stuck(self, progress: Progress) -> None:
        last = progress.steps[-_STUCK_AFTER:]
        same = len({step.code for step in last}) == 1
        if len(last) == _STUCK_AFTER and same and all(step.result.status != "ok" for step in last):
            raise Stop("stuck", reason=f"The model wrote the same failing code {_STUCK_AFTER} times.")

    def _temperature_now(self, progress: Progress) -> float | None:
        if self._temperature is None or not self._provider.traits.small or not progress.failures:
            return self._temperature
        return min(1.0, self._temperature + 0.3 * progress.failures)


def _unrun(blocks: tuple[CodeBlock, ...], text: str) -> list[Message]:
    """Replies to code that was not run, one for each call, or one message for fenced code."""
    calls = [Message("tool", text, tool_call_id=block.call_id) for block in blocks if block.call_id is not None]
    return calls or [Message("user", text)]


def _mend(conversation: list[Message]) -> None:
    """Answer calls that were left open, so that a provider accepts the conversation next time."""
    for call_id in unanswered_calls(conversation):
        conversation.append(Message("tool", "Interrupted before it ran.", tool_call_id=call_id))


def _described(executor: Executor) -> str:
    label = executor.capabilities.label
    return f"{executor.name} ({label})" if label else executor.name
