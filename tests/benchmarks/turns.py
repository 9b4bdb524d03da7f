"""CPU time of one model turn in the reader's process, with 200 streamed chunks, beside each plain SDK."""

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

from sandbox_agent_magic.outputs import CELLS_MIMETYPE

from .plain_kernel import PlainKernel
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
def _null_executor() -> Iterator[str]:
    """An executor that costs nothing, installed as anybody's would be; gives the folder for `sys.path`."""
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "bench_null-0.dist-info")
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-null\nVersion: 0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        Path(folder, "bench_null.py").write_text(NULL_EXECUTOR)
        yield folder


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The scripted model in a process of its own; gives its address."""
    says = " ".join(["word"] * CHUNKS)
    script = [{"text": says, "code": "x = 1", "chunks": CHUNKS}] * (TURNS - 1) + [{"text": says, "chunks": CHUNKS}]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(script, file)
        file.flush()
        command = [sys.executable, "-m", "tests.support.model_server", "--script", file.name, "--cycle"]
        where = Path(__file__).parents[2]
        with subprocess.Popen(command, cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield f"http://127.0.0.1:{int(process.stdout.readline())}"
            finally:
                process.terminate()


def _plain_openai(url: str) -> None:
    """The same conversation by the plainest loop over the SDK, its text displayed ten times a second."""
    import openai
    from IPython.display import display

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="bench", max_retries=0)
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


def _plain_anthropic(url: str) -> None:
    """The same by the plainest loop over Anthropic's SDK."""
    import anthropic
    from IPython.display import display

    client = anthropic.Anthropic(base_url=url, api_key="bench", max_retries=0)
    messages: list[dict[str, object]] = [{"role": "user", "content": "Go on."}]
    tools = [{"name": "python", "input_schema": {"type": "object", "properties": {}}}]
    handle = display({"text/plain": ""}, raw=True, display_id=True)
    for _ in range(TURNS):
        text, drawn = "", 0.0
        calls: dict[int, dict[str, str]] = {}
        stream = client.messages.create(
            model="scripted",
            max_tokens=1_000,
            messages=messages,
            tools=tools,
            stream=True,  # type: ignore[arg-type]
        )
        for event in stream:
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                calls[event.index] = {"id": event.content_block.id, "name": event.content_block.name, "input": ""}
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                text += event.delta.text
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                calls[event.index]["input"] += event.delta.partial_json
            if time.monotonic() - drawn >= 0.1:
                drawn = time.monotonic()
                handle.update({"text/plain": text}, raw=True)
        handle.update({"text/plain": text}, raw=True)
        uses = [{"type": "tool_use", **call, "input": json.loads(call["input"])} for call in calls.values()]
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}, *uses]})
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "1"} for call in calls.values()]
        messages += [{"role": "user", "content": results}] if results else []
    client.close()


PLAIN = {"openai": _plain_openai, "anthropic": _plain_anthropic}


def _cpu_ms(job: Callable[[], None]) -> float:
    begun = time.process_time()
    job()
    return (time.process_time() - begun) * 1000 / TURNS


def inside_kernel(name: str, url: str, rounds: int) -> None:
    """Called in a kernel, whose displays go out over zmq: print the CPU milliseconds per turn of both sides."""
    from IPython import get_ipython

    shell = get_ipython()
    os.environ |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "bench", "MAX_ITERATIONS": str(TURNS)}
    os.environ |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "bench"}
    shell.run_line_magic("load_ext", "sandbox_agent_magic")

    def ours() -> None:
        shell.run_line_magic("agent", "reset")
        shell.run_cell_magic("agent", f"-p {name} -m scripted -e bench-null", "Go on.")

    plain = partial(PLAIN[name], url)
    pairs = [(_cpu_ms(plain), _cpu_ms(ours)) for _ in range(rounds + 1)][1:]  # the first holds the imports
    print("MEASURED", *(median(side) for side in zip(*pairs, strict=True)))


def cpu_per_turn(rounds: int) -> list[Row]:
    """Both sides in one kernel, once for each SDK; their displays are received here."""
    return [_cpu_per_turn(name, rounds) for name in PLAIN]


def _cpu_per_turn(name: str, rounds: int) -> Row:
    with _null_executor() as folder, _server() as url, PlainKernel() as kernel:
        where = str(Path(__file__).parents[2])
        messages = kernel.execute(
            f"import sys; sys.path[:0] = {[folder, where]!r}\n"
            f"from tests.benchmarks.turns import inside_kernel\ninside_kernel({name!r}, {url!r}, {rounds})"
        )
    contents = [message["content"] for message in messages]
    text = "".join(content["text"] for content in contents if content.get("name") == "stdout")
    if "MEASURED" not in text:
        raise RuntimeError(
            next((content["evalue"] for content in contents if "evalue" in content), text or "no output")
        )
    published = json.dumps(contents, default=str).count(CELLS_MIMETYPE)
    if published < (rounds + 1) * (TURNS - 1):
        raise RuntimeError(f"only {published} cells were displayed")
    floor, mine = (float(word) for word in text.split("MEASURED")[1].split())
    return Row(f"CPU of one model turn, {name}, {CHUNKS} chunks, displayed", mine, 1.5, "ms", floor, "ratio")
