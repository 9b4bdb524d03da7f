"""One question to the model, with the retries that the reader can see."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from ..errors import ProviderError
from ..prompts import tools
from ..types import (
    EmitHook,
    Gate,
    Limits,
    Message,
    ModelReply,
    ModelRequest,
    Provider,
    ReasoningStreamed,
    ReplyReceived,
    RequestSent,
    RetryScheduled,
    TextStreamed,
    Usage,
)

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_BYTES_PER_TOKEN = 4
"""Rough size of a token of English text or code, for the estimate that a gate gets before a request."""
_TOKENS_PER_PICTURE = 1_500
"""What a large picture counts (Anthropic documents width times height / 750, and at most about this)."""
_TOKENS_PER_REPLY = 300
"""What a reply with a piece of code writes, roughly."""


class Asker:
    """Sends requests to one provider within the limits.

    Args:
        provider: one attempt per call, no retries of its own.
        limits: `max_retry`, `request_timeout_s` and `idle_timeout_s` are used here.
        clock: seconds, monotonic.
        sleep: waits some seconds between attempts.
    """

    def __init__(
        self,
        provider: Provider,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._provider = provider
        self._limits = limits
        self._clock = clock
        self._sleep = sleep

    def ask(
        self,
        messages: tuple[Message, ...],
        *,
        temperature: float | None,
        turn: int,
        emit: EmitHook,
        gate: Gate,
        on_attempt: Callable[[], None],
    ) -> ModelReply | str:
        """The model's reply, or the gate's reason why nothing was sent.

        Raises:
            ProviderError: the last attempt's failure, where another one is not worth it or not allowed.
        """
        deadline = self._clock() + self._limits.request_timeout_s
        attempt = 0
        while True:
            request = ModelRequest(
                messages=messages,
                tools=tools(self._provider.traits),
                temperature=temperature,
                deadline_s=max(0.1, deadline - self._clock()),
                idle_s=self._limits.idle_timeout_s,
            )
            verdict = gate.allow_request(_estimate(request))
            if not verdict.allowed:
                return verdict.reason
            attempt += 1
            on_attempt()
            emit(RequestSent(turn, attempt))
            try:
                reply = self._provider.complete(
                    request,
                    on_text=lambda text: emit(TextStreamed(text)),
                    on_reasoning=lambda text: emit(ReasoningStreamed(text)),
                )
                emit(ReplyReceived(turn, reply.usage))
                return reply
            except ProviderError as exc:
                wait = _wait_before_next(attempt, exc)
                if not exc.retryable or attempt > self._limits.max_retry or self._clock() + wait >= deadline:
                    _say_why_not_again(exc, attempt, wait, self._limits)
                    raise
                reason = exc.message
            self._wait(attempt, wait, reason, emit)

    def _wait(self, attempt: int, seconds: float, reason: str, emit: EmitHook) -> None:
        """Let the time until the next attempt pass, in sight of the reader."""
        emit(RetryScheduled(attempt, seconds, reason))
        self._sleep(seconds)


def _estimate(request: ModelRequest) -> Usage:
    """About how much a request reads and its reply writes."""
    size = sum(len(message.text) for message in request.messages)
    size += sum(len(call.arguments) for message in request.messages for call in message.tool_calls)
    pictures = sum(len(message.images) for message in request.messages)
    return Usage(
        input_tokens=size // _BYTES_PER_TOKEN + pictures * _TOKENS_PER_PICTURE, output_tokens=_TOKENS_PER_REPLY
    )


def _say_why_not_again(exc: ProviderError, attempt: int, wait: float, limits: Limits) -> None:
    """Add to the error what became of its retries."""
    if exc.retryable and attempt <= limits.max_retry and exc.retry_after:
        exc.why += f" It asks to wait {wait:,.0f} s, longer than REQUEST_TIMEOUT leaves."
    elif attempt > 1:
        exc.why += f" Tried {attempt} times."


def _wait_before_next(attempt: int, exc: ProviderError) -> float:
    """Seconds before the next attempt: the server's wish, else doubling with jitter so that clients spread."""
    if exc.retry_after is not None:
        return max(0.0, exc.retry_after)
    doubled: float = _FIRST_WAIT_S * 2 ** (attempt - 1)
    return min(_LONGEST_WAIT_S, doubled) * random.uniform(1.0, 1.25)  # noqa: S311
