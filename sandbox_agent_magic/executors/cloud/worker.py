"""SDKs block: each of their calls runs in a thread, and whoever waits for it can be interrupted and has a bound."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ...types import Output
from .engine import CloudEngine, CloudFailure

T = TypeVar("T")
_QUEUED = 256
"""Outputs that wait to be taken; then the far side waits."""
_LOOK_S = 0.25
_JOIN_S = 5.0


class Call(Generic[T]):
    """One call of an SDK, begun."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: list[T] = []
        self._failure: BaseException | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, name="sandbox-agent-cloud", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self._value.append(self._function())
        except CloudFailure as failure:
            # Without the SDK's exception behind it, whose frames hold the key.
            failure.__context__ = failure.__cause__ = None
            self._failure = failure.with_traceback(None)
        except BaseException as failure:  # carried to whoever waits
            self._failure = failure
        finally:
            self.ended.set()

    def result(self, timeout_s: float) -> T:
        """What it returned or raised; CloudFailure `late` if that takes too long."""
        end = time.monotonic() + timeout_s
        while not self.ended.wait(min(_LOOK_S, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise CloudFailure("late", f"no answer for {timeout_s:g} seconds")
        self.thread.join(_JOIN_S)
        if self._failure is not None:
            raise self._failure
        return self._value[0]


def bounded(function: Callable[[], T], timeout_s: float) -> T:
    """Call `function` in a thread. Raises what it raises, and CloudFailure `late`."""
    try:
        call = Call(function)
    except RuntimeError:  # Python is about to end, and takes no new threads
        return function()
    return call.result(timeout_s)


class _Stopped(BaseException):
    """Ends an SDK's loop over outputs from within; no SDK catches it."""


class Run:
    """Code that runs in a sandbox, in a thread; its outputs wait in a queue that has an end."""

    def __init__(self, engine: CloudEngine, code: str, timeout_s: float) -> None:
        self._outputs: queue.Queue[Output | None] = queue.Queue(_QUEUED)
        self._stopped = False
        self._over = False
        self.received = 0
        """Outputs so far."""
        self.failed = False
        """Whether one of those that were taken is an exception; noted by whoever takes them."""
        self._call: Call[None] = Call(lambda: self._work(engine, code, timeout_s))

    def take(self, deadline: float) -> Output | None:
        """The next output, or None: the deadline has passed, or it has ended (see `ended`)."""
        try:
            output = self._outputs.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        self._over = self._over or output is None
        return output

    @property
    def ended(self) -> bool:
        """Whether it ended and all of its outputs were taken."""
        return self._over or (self._call.ended.is_set() and self._outputs.empty())

    def finish(self) -> None:
        """What the run raised, if it failed. Only once it has ended."""
        with contextlib.suppress(_Stopped):
            self._call.result(_JOIN_S)

    def stop(self) -> None:
        """Take no more outputs: the thread ends at the next one, or when the far side does."""
        self._stopped = True

    def _work(self, engine: CloudEngine, code: str, timeout_s: float) -> None:
        try:
            engine.run(code, on_output=self._put, timeout_s=timeout_s)
        finally:
            while not self._stopped:  # wakes whoever waits
                try:
                    self._outputs.put(None, timeout=_LOOK_S)
                    break
                except queue.Full:
                    continue

    def _put(self, output: Output) -> None:
        self.received += 1
        while True:
            if self._stopped:
                raise _Stopped
            try:
                self._outputs.put(output, timeout=_LOOK_S)
                return
            except queue.Full:
                continue
