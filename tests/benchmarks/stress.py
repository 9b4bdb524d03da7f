"""Code that prints without end, runs without end, and readers who press Stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.outputs import text_of
from tests.support.model_server import ModelServer, Reply

from .report import Row
from .sandbox_times import ignore
from .traffic import ask, open_session

PRINT_100_MB = "line = 'x' * 99\nfor _ in range(1_000_000):\n    print(line)"
ENDLESS = {
    "endless loop": "while True:\n    pass",
    "endless loop that ignores interrupts": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    ),
}
TIMEOUT_S = 2.0


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def loud_code() -> list[Row]:
    """100 MB printed by one step."""
    replies = [Reply(code=PRINT_100_MB), Reply("It printed a lot.")]
    with ModelServer([Reply(code="1"), Reply("Warm.")]) as server:
        ask(server, "Warm up.")
    with ModelServer(replies) as server:
        _forget_peak()
        before = _peak_mb()
        result = ask(server, "Print 100 MB.", cell_timeout_s=300)
        extra = _peak_mb() - before
        largest = max(len(request.raw) for request in server.seen)
        told = "cut" in text_of(result.steps[0].result.outputs)
    return [
        Row("100 MB printed: extra memory here", extra, 20, "MB"),
        Row("100 MB printed: largest request to the model", largest / 1000, 10, "kB"),
        Row("100 MB printed: the reader is told of the cut", float(told), 1, kind="exact"),
    ]


def endless_code() -> list[Row]:
    """Seconds by which the end of a step is late, and whether the next one runs."""
    rows = []
    for name, code in ENDLESS.items():
        executor = SandboxExecutor()
        try:
            executor.start()
            executor.execute("1", timeout_s=60, on_output=ignore)
            begun = time.perf_counter()
            result = executor.execute(code, timeout_s=TIMEOUT_S, on_output=ignore)
            late = time.perf_counter() - begun - TIMEOUT_S
            after = executor.execute("1", timeout_s=60, on_output=ignore)
        finally:
            executor.shutdown()
        if (result.status, after.status) not in {("timeout", "ok"), ("died", "ok")}:
            raise RuntimeError(f"{name} ended as {result.status}, the next step as {after.status}")
        rows.append(Row(f"{name}: seconds over the time limit", late, 3, "s"))
    return rows


def _interrupted(work: Callable[[], object], ready: Callable[[], bool], settle_s: float) -> float:
    """Press Ctrl-C `settle_s` after `ready`; return the seconds from there to the end of `work`."""
    pressed: list[float] = []

    def press() -> None:
        deadline = time.monotonic() + 60
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(settle_s)
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        ended = time.perf_counter()
        thread.join()
    if ended < pressed[0]:
        raise RuntimeError("it ended before Ctrl-C was pressed")
    return ended - pressed[0]


def _was_asked(server: ModelServer) -> bool:
    return bool(server.seen)


def ctrl_c() -> list[Row]:
    """Seconds from Ctrl-C to the prompt, in each state; and the processes left once the session is closed."""
    slow = Reply(" ".join(["word"] * 500), delay_s=0.05)
    loop = Reply(code=ENDLESS["endless loop"])
    states = {
        "the model streams": (slow, 1.0),
        "the model is silent": (Reply("x", delay_s=30), 1.0),
        "code runs": (loop, 3.0),
        "the sandbox starts": (loop, 0.05),
    }
    rows = []
    for name, (reply, settle_s) in states.items():
        with ModelServer(reply) as server, open_session(server) as session:
            late = _interrupted(partial(session.ask, "Go on."), partial(_was_asked, server), settle_s)
        rows.append(Row(f"Ctrl-C while {name}", late, 1, "s"))
    left = [child.name() for child in psutil.Process().children(recursive=True)]
    rows.append(Row("processes left when sessions are closed", len(left), 0, kind="exact"))
    return rows
