"""CPU time of one model turn in the reader's process, with 200 streamed chunks, beside the plain SDK."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

from tests.support import model_server

from .report import Row

CHUNKS = 200
TURNS = 10
NULL_EXECUTOR = '''
from sandbox_agent_magic.types import Capabilities, ExecutionResult

class NullExecutor:
    """Runs nothing, at once."""

    name = "bench-null"
    capabilities = Capabilities(isolated=True)
    def start(self): pass
    def execute(self, code, *, timeout_s, on_output):
        return ExecutionResult("ok", ({"output_type": "stream", "name": "stdout", "text": "1\\n"},), 1)
    def interrupt(self): pass
    def restart(self): pass
    def shutdown(self): pass
    def put_file(self, source, name): raise NotImplementedError
    def get_file(self, name, destination): raise NotImplementedError
    def list_files(self): return []
    def install(self, packages): pass
'''
ENTRY_POINTS = "[sandbox_agent_magic.executors]\nbench-null = bench_null:NullExecutor\n"
TOOLS = [{"type": "function", "function": {"name": "python", "parameters": {"type": "object", "properties": {}}}}]


@contextlib.contextmanager
def _null_executor() -> Iterator[None]:
    """An executor that costs nothing, installed as anybody's would be."""
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "bench_null-0.dist-info")
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-null\nVersion: 0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        Path(folder, "bench_null.py").write_text(NULL_EXECUTOR)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The scripted model in a process of its own; gives its address."""
    says = " ".join(["word"] * CHUNKS)
    script = [{"text": says, "code": "x = 1", "chunks": CHUNKS}] * (TURNS - 1) + [{"text": says, "chunks": CHUNKS}]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(script, file)
        file.flush()
        command = [sys.executable, model_server.__file__, "--script", file.name, "--cycle"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
            finally:
                process.terminate()


def _plain_job(url: str) -> None:
    """The same conversation by the plainest loop over the SDK, its text displayed ten times a second."""
    import openai
    from IPython.display import display

    client = openai.OpenAI(base_url=url, api_key="bench", max_retries=0)
    messages: list[dict[str, object]] = [{"role": "user", "content": "Go on."}]
    handle = display({"text/plain": ""}, raw=True, display_id=True)
    for _ in range(TURNS):
        text, drawn = "", 0.0
        calls: dict[int, dict[str, str]] = {}
        stream = client.chat.completions.create(model="scripted", messages=messages, tools=TOOLS, stream=True)  # type: ignore[arg-type]
        for chunk in stream:
            delta = chunk.choices[0].delta  # type: ignore[union-attr]
            text += delta.content or ""
            for call in delta.tool_calls or []:
                assert call.function is not None
                new = {"id": call.id or "", "name": call.function.name or "", "arguments": ""}
                calls.setdefault(call.index, new)["arguments"] += call.function.arguments or ""
            if time.monotonic() - drawn >= 0.1:
                drawn = time.monotonic()
                handle.update({"text/plain": text}, raw=True)
        handle.update({"text/plain": text}, raw=True)
        functions = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls.values()
        ]
        messages.append({"role": "assistant", "content": text, **({"tool_calls": functions} if functions else {})})
        messages += [{"role": "tool", "tool_call_id": c["id"], "content": "1"} for c in calls.values()]
    client.close()


def _cpu_ms(job: Callable[[], None]) -> float:
    begun = time.process_time()
    job()
    return (time.process_time() - begun) * 1000 / TURNS


def cpu_per_turn(rounds: int) -> list[Row]:
    """Both sides in one InteractiveShell whose displays go to the same sink."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    sink = CapturingDisplayPublisher()
    with _null_executor(), _server() as url, patch.object(shell, "display_pub", sink):
        settings = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "bench", "MAX_ITERATIONS": "50"}
        with patch.dict(os.environ, settings):
            shell.run_line_magic("load_ext", "sandbox_agent_magic")

            def ours() -> None:
                shell.run_line_magic("agent", "reset")
                sink.outputs.clear()
                shell.run_cell_magic("agent", "-p openai -m scripted -e bench-null", "Go on.")
                if len(sink.outputs) < TURNS:
                    raise RuntimeError(f"only {len(sink.outputs)} displays: the job did not run")

            plain = partial(_plain_job, url)
            pairs = [(_cpu_ms(plain), _cpu_ms(ours)) for _ in range(rounds + 1)][1:]  # the first holds the imports
            shell.run_line_magic("unload_ext", "sandbox_agent_magic")
    floor, mine = (median(side) for side in zip(*pairs, strict=True))
    return [Row(f"CPU of one model turn, {CHUNKS} chunks, displayed", mine, 1.5, "ms", floor, "ratio")]
