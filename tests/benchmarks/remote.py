"""Kernels of Jupyter servers: what a cell costs over the bare web socket, and a class of 30 on Enterprise Gateway."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import pytest
import websocket

from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.executors.remote import RemoteExecutor, Target
from sandbox_agent_magic.outputs import text_of
from sandbox_agent_magic.types import Output
from tests.support.jupyter_servers import Server, jupyter

from .report import Row

CODE = "1 + 1"
KINDS = ("server", "gateway", "enterprise")
CLASS = 30
PATIENCE_S = 60.0

STEPS = (
    "import pandas as pd\ndata = pd.DataFrame({'x': range(1_000)})\ndata['y'] = data.x * {student}\nint(data.y.sum())",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot(data.x, data.y)\nplt.show()",
    "total = int(data.y.max())\nprint('student', {student}, total)",
)
"""Of each student: a table, a picture, and a result of what the first step left behind."""


class BareSocket:
    """The floor: the same client library, and the least that runs a cell.

    Args:
        server: where.
        hurries: acknowledges at once, as ours does; otherwise the operating system takes its 40 ms.
    """

    def __init__(self, server: Server, *, hurries: bool) -> None:
        self._server = server
        self._hurries = hurries
        self._id: str = json.loads(server.ask("POST", "api/kernels", b"{}"))["id"]
        self._socket = websocket.create_connection(
            f"ws{server.url.removeprefix('http')}/api/kernels/{self._id}/channels?session_id={secrets.token_hex(8)}",
            header=[f"Authorization: token {server.token}"],
            timeout=PATIENCE_S,
        )

    def execute(self, code: str) -> None:
        """Run `code` and wait for its reply and for the kernel to be idle."""
        request_id = secrets.token_hex(16)
        header = {"msg_id": request_id, "msg_type": "execute_request", "session": "bench", "username": "", "date": ""}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = {"channel": "shell", "header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}}
        self._socket.send(json.dumps({**message, "content": content, "buffers": []}))
        replied = idle = False
        while not (replied and idle):
            if self._hurries and hasattr(socket, "TCP_QUICKACK"):
                self._socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            answer = json.loads(self._socket.recv())
            if answer["parent_header"].get("msg_id") == request_id:
                replied = replied or answer["msg_type"] == "execute_reply"
                idle = idle or answer["content"].get("execution_state") == "idle"

    def close(self) -> None:
        """End the kernel."""
        self._socket.close()
        self._server.ask("DELETE", f"api/kernels/{self._id}")


def overhead(rounds: int) -> list[Row]:
    """Milliseconds of a cell over the bare web socket, on each kind of server; the sides take turns."""
    rows: list[Row] = []
    for kind in KINDS:
        try:
            rows += _overhead(kind, 20 * rounds)
        except pytest.skip.Exception as missing:  # of this server; the others can be measured
            print(f"    left out: {kind}. {missing}", file=sys.stderr, flush=True)
    return rows


def _overhead(kind: str, rounds: int) -> list[Row]:
    with jupyter(kind) as server:
        hurried, plain = BareSocket(server, hurries=True), BareSocket(server, hurries=False)
        executor = HealingExecutor(RemoteExecutor(Target(server.url, server.token)))
        sides: dict[str, Callable[[], object]] = {
            "hurried": lambda: hurried.execute(CODE),
            "plain": lambda: plain.execute(CODE),
            "ours": lambda: executor.execute(CODE, timeout_s=PATIENCE_S, on_output=_ignore),
        }
        theirs = _kernel_client(server)
        if theirs is not None:
            sides["theirs"] = lambda: theirs(CODE)
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds + 5):
            for name, work in sides.items():
                begun = time.perf_counter()
                work()
                if turn >= 5:
                    taken[name].append((time.perf_counter() - begun) * 1000)
        for each in (hurried, plain):
            each.close()
        executor.shutdown()
    ms = {name: median(values) for name, values in taken.items()}
    rows = [
        Row(f"remote, {kind}: a cell over the bare web socket", ms["ours"], 5, "ms", ms["plain"], "over"),
        Row(f"remote, {kind}: the same, acknowledged at once", ms["ours"], 5, "ms", ms["hurried"], "over"),
    ]
    if "theirs" in ms:
        rows.append(Row(f"remote, {kind}: over jupyter-kernel-client", ms["ours"], 5, "ms", ms["theirs"], "over"))
    return rows


def _kernel_client(server: Server) -> Callable[[str], object] | None:
    """jupyter-kernel-client's `execute`, where that is installed."""
    try:
        from jupyter_kernel_client import JupyterKernelClient
    except ImportError:
        return None
    client = JupyterKernelClient(
        server_url=server.url, token=server.token, headers={"Authorization": f"token {server.token}"}
    )
    client.start()
    execute: Callable[[str], object] = client.execute
    return execute


def _ignore(_: Output) -> None:
    """An output hook for who needs none."""


# ---- a class --------------------------------------------------------------------------------------------------------


@dataclass
class Student:
    """What became of one of them; seconds."""

    number: int
    start_s: float = 0.0
    steps_s: list[float] = field(default_factory=list)
    wrong: str = ""
    """Empty if all results are right."""


@dataclass(frozen=True)
class Report:
    """A class, once all its kernels stood at the same time."""

    students: Sequence[Student]
    wall_s: float
    pss_mb: float
    """Of one kernel, median: its share of pages that are shared."""
    rss_mb: float
    server_mb: float
    server_cpu_s: float
    """Of the server itself, for all starts and cells."""
    files: int
    """That the server has open, for each kernel."""

    @property
    def lost(self) -> list[Student]:
        """Those without the right results."""
        return [student for student in self.students if student.wrong]


def class_of(count: int, server: Server) -> Report:
    """All press Run at once; each has a kernel of its own, and keeps it until the last one is through."""
    target = Target(server.url, server.token, environment=(("KERNEL_USERNAME", "student"),), start_s=600)
    executors = [HealingExecutor(RemoteExecutor(target)) for _ in range(count)]
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    before, files_before = process.cpu_times(), process.num_fds()
    begun = time.perf_counter()
    try:
        with ThreadPoolExecutor(count) as pool:
            students = list(pool.map(_work, range(1, count + 1), executors))
        wall_s = time.perf_counter() - begun
        pss, rss = zip(*map(_memory_mb, server.kernel_pids()), strict=True)
        times, files = process.cpu_times(), process.num_fds()
        return Report(
            students,
            wall_s,
            median(pss),
            median(rss),
            _memory_mb(process.pid)[0],
            times.user + times.system - before.user - before.system,
            (files - files_before) // count,
        )
    finally:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda executor: executor.shutdown(), executors))


def _work(number: int, executor: HealingExecutor) -> Student:
    student = Student(number)
    begun = time.perf_counter()
    try:
        executor.execute("", timeout_s=PATIENCE_S, on_output=_ignore)
        student.start_s = time.perf_counter() - begun
        expected = (str(number * 499_500), "image/png", f"student {number} {number * 999}")
        for code, wanted in zip(STEPS, expected, strict=True):
            begun = time.perf_counter()
            code = code.replace("{student}", str(number))
            result = executor.execute(code, timeout_s=600, on_output=_ignore)
            student.steps_s.append(time.perf_counter() - begun)
            kinds = [kind for output in result.outputs for kind in output.get("data", {})]  # type: ignore[attr-defined]
            if result.status != "ok" or not (wanted in kinds or wanted in text_of(result.outputs)):
                student.wrong = f"{result.status}: {text_of(result.outputs)[-200:]}"
                break
    except Exception as error:
        student.wrong = f"{type(error).__name__}: {error}"
    return student


def _memory_mb(pid: int) -> tuple[float, float]:
    """Share of all its pages (PSS), and all its pages (RSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return sizes["Pss"] / 1000, sizes["Rss"] / 1000


def school_class() -> list[Row]:
    """30 kernels at once on this machine's Enterprise Gateway."""
    with jupyter("enterprise") as server:
        report = class_of(CLASS, server)
        left = len(server.kernels())
    starts = [student.start_s for student in report.students]
    steps = [sum(student.steps_s) for student in report.students if not student.wrong]
    for student in report.lost:
        print(f"student {student.number}: {student.wrong}")
    name = f"class of {CLASS} on Enterprise Gateway"
    return [
        Row(f"{name}: runs lost", len(report.lost), 0, kind="exact"),
        Row(f"{name}: kernels left behind", left, 0, kind="exact"),
        Row(f"{name}: kernel start, median", median(starts), 120, "s"),
        Row(f"{name}: kernel start, worst", max(starts), 120, "s"),
        Row(f"{name}: three steps, median", median(steps), 120, "s"),
        Row(f"{name}: all {CLASS} through", report.wall_s, 300, "s"),
        Row(f"{name}: memory of a kernel (PSS)", report.pss_mb, 150, "MB"),
        Row(f"{name}: memory of a kernel (RSS)", report.rss_mb, 250, "MB"),
        Row(f"{name}: memory of the gateway (PSS)", report.server_mb, 300, "MB"),
        Row(f"{name}: CPU of the gateway, for each kernel", report.server_cpu_s / CLASS, 1, "s"),
        Row(f"{name}: open files of the gateway, for each kernel", report.files, 60),
    ]
