"""One question to the model, with the retries that the reader can see."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from ..errors import ProviderError, ProviderRateLimited
from ..prompts import tools
from ..types import (
    EmitHook,
    Gate,
    Limits,
    Message,
    ModelReply,
    ModelRequest,
    Provider,
    RequestSent,
    RetryScheduled,
    TextStreamed,
    Usage,
)

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_BYTES_PER_TOKEN = 4
"""Rough size of a token of English text or code, for the estimate that a gate gets before a request."""


class Asker:
    """Sends requests to one provider within the limits.

    Args:
        provider: one attempt per call, no retries of its own.
        limits: `max_retry` and `request_timeout_s` are used here.
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
            )
            estimate = Usage(input_tokens=sum(len(message.text) for message in messages) // _BYTES_PER_TOKEN)
            verdict = gate.allow_request(estimate)
            if not verdict.allowed:
                return verdict.reason
            attempt += 1
            on_attempt()
            emit(RequestSent(turn, attempt))
            try:
                return self._provider.complete(request, on_text=lambda text: emit(TextStreamed(text)))
            except ProviderError as exc:
                wait = _wait_before_next(attempt, exc)
                if not exc.retryable or attempt > self._limits.max_retry or self._clock() + wait >= deadline:
                    raise
                reason = exc.message
            emit(RetryScheduled(attempt, wait, reason))
            self._sleep(wait)


def _wait_before_next(attempt: int, exc: ProviderError) -> float:
    """Seconds before the next attempt: the server's wish, else doubling with jitter so that clients spread."""
    if isinstance(exc, ProviderRateLimited) and exc.retry_after is not None:
        return max(0.0, exc.retry_after)
    doubled: float = _FIRST_WAIT_S * 2 ** (attempt - 1)
    return min(_LONGEST_WAIT_S, doubled) * random.uniform(1.0, 1.25)  # noqa: S311
