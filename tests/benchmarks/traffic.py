"""What goes over the wire: requests, bytes, and whether each request repeats the one before it to the byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

from sandbox_agent_magic import Session
from sandbox_agent_magic.types import RunResult
from tests.support.model_server import ModelServer, Reply, Seen

from .report import Row

SUM_1_TO_100 = "Calculate the sum of numbers from 1 to 100"
PRINT_20_KB = (
    "print('\\n'.join(f'row {n}: {n * n}' for n in range({start}, {start} + 1_000))[:20_000].ljust(20_000, '.'))"
)


def open_session(server: ModelServer, *, cell_timeout_s: float = 120) -> Session:
    """A session with a scripted model and a real sandbox."""
    return Session(
        agent_provider="openai",
        openai_base_url=server.url,
        openai_api_key="bench",
        model="scripted",
        agent_executor="sandbox",
        agent_cell_timeout=cell_timeout_s,
    )


def ask(server: ModelServer, prompt: str, *, cell_timeout_s: float = 120) -> RunResult:
    """One job in a session of its own."""
    with open_session(server, cell_timeout_s=cell_timeout_s) as session:
        return session.ask(prompt)


def messages_bytes(request: Seen) -> bytes:
    """The raw bytes of a request's messages, without the bracket that closes the list."""
    text = request.raw.decode()
    start = text.index("[", text.index('"messages"'))
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[start : end - 1].encode()


def broken_prefixes(requests: Sequence[Seen]) -> int:
    """How many requests do not begin with all of the messages of the one before."""
    bodies = [messages_bytes(request) for request in requests]
    return sum(not later.startswith(earlier) for earlier, later in pairwise(bodies))


def small_job() -> list[Row]:
    """The least that a question costs."""
    replies = [Reply(code="print(sum(range(1, 101)))"), Reply("The sum is 5050.")]
    with ModelServer(replies) as server:
        result = ask(server, SUM_1_TO_100)
        if result.status != "completed":
            raise RuntimeError(f"ended as {result.status}: {result.reason}")
        sent = sum(len(request.raw) for request in server.seen)
        return [
            Row("sum of 1 to 100: requests", len(server.seen), 2, kind="exact"),
            Row("sum of 1 to 100: sent", sent / 1000, 4, "kB"),
        ]


def long_job() -> list[Row]:
    """Ten turns that print 20 kB each."""
    turns = [Reply(code=PRINT_20_KB.replace("{start}", str(turn * 1_000))) for turn in range(9)]
    with ModelServer([*turns, Reply("Done.")]) as server:
        result = ask(server, "Print a lot, ten times.")
        if len(server.seen) != 10 or any(step.result.status != "ok" for step in result.steps):
            raise RuntimeError(f"{len(server.seen)} requests, ended as {result.status}: {result.reason}")
        sent = sum(len(request.raw) for request in server.seen)
        return [
            Row("10 turns, 20 kB of output each: sent", sent / 1000, 250, "kB"),
            Row("10 turns: requests that break the prefix", broken_prefixes(server.seen), 0, kind="exact"),
        ]
