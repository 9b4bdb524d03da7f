"""How long the sandbox takes, cold and warm, beside a plain kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.types import Output

from .plain_kernel import PlainKernel
from .report import Row

CODE = "1 + 1"


def ignore(output: Output) -> None:
    """An output hook for who needs none."""


def elapsed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _cold_plain() -> float:
    begun = time.perf_counter()
    with PlainKernel() as kernel:
        kernel.execute(CODE)
        return time.perf_counter() - begun


def _cold_sandbox() -> float:
    begun = time.perf_counter()
    executor = SandboxExecutor()
    try:
        executor.start()
        result = executor.execute(CODE, timeout_s=60, on_output=ignore)
        took = time.perf_counter() - begun
    finally:
        executor.shutdown()
    if result.status != "ok":
        raise RuntimeError(f"the sandbox answered {result.status}")
    return took


def cold_start(rounds: int) -> list[Row]:
    """From nothing to the first result. The two sides take turns, so that a busy moment hits both."""
    _cold_plain(), _cold_sandbox()  # page cache and bytecode
    pairs = [(_cold_plain(), _cold_sandbox()) for _ in range(rounds)]
    floor, ours = (median(side) for side in zip(*pairs, strict=True))
    return [Row("sandbox: cold start to first result", ours, 1.3, "s", floor, "ratio")]


def warm_execute(rounds: int) -> list[Row]:
    """One `execute` in a kernel that is up."""
    executor = SandboxExecutor()
    plain: list[float] = []
    sandboxed: list[float] = []
    with PlainKernel() as kernel:
        try:
            executor.start()
            for turn in range(rounds + 5):
                pair = (
                    elapsed(lambda: kernel.execute(CODE)),
                    elapsed(lambda: executor.execute(CODE, timeout_s=60, on_output=ignore)),
                )
                if turn >= 5:
                    plain.append(pair[0] * 1000)
                    sandboxed.append(pair[1] * 1000)
        finally:
            executor.shutdown()
    return [Row("sandbox: warm execute", median(sandboxed), 1.25, "ms", median(plain), "ratio")]
