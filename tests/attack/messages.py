"""Attacks on the host by the kernel's own messages, which code in the sandbox can forge and sign."""

from __future__ import annotations

import time
from collections.abc import Callable

from sandbox_agent_magic.outputs import CELLS_MIMETYPE
from sandbox_agent_magic.types import ExecutionResult
from tests.support.sandbox import run, text

from .room import Attack, Escaped, Room

PREPARE = """
import json
kernel = get_ipython().kernel
parent, session = kernel.get_parent(), kernel.session
def say(kind, content, parent=parent, **more): session.send(kernel.iopub_socket, kind, content, parent=parent, **more)
def raw(*frames): kernel.iopub_socket.send_multipart(list(frames))
def pack(value): return json.dumps(value, default=str).encode()
def signed(*parts): raw(b'<IDS|MSG>', session.sign(list(parts)), *parts)
header = lambda kind: pack({**parent['header'], 'msg_type': kind})
own = pack(parent['header'])
"""


def _message(name: str, code: str, *, without: str = "forged", flood: bool = False) -> Attack:
    """The messages must neither appear nor disturb what is printed after them."""

    def attempt(room: Room) -> str:
        started = time.monotonic()
        result = run(room.sandbox, f"{PREPARE}\n{code}\nprint('genuine')")
        took = time.monotonic() - started
        # After a flood the host does not wait for the rest of it.
        if result.status != "ok" or ("genuine" not in text(result) and not flood):
            raise Escaped(f"status {result.status}: {text(result)[:200]}")
        if without in text(result).replace("not shown", ""):
            raise Escaped(f"it was taken: {text(result)[:200]}")
        if took > 15:
            raise Escaped(f"it took {took:.1f} s")
        return "dropped"

    return Attack("messages", name, attempt)


def _result(name: str, code: str, check: Callable[[ExecutionResult], str]) -> Attack:
    def attempt(room: Room) -> str:
        result = run(room.sandbox, f"{PREPARE}\n{code}")
        return check(result)

    return Attack("messages", name, attempt)


def _limit_named(result: ExecutionResult) -> str:
    if result.error is None or "LimitExceeded" not in result.error.ename:
        raise Escaped(f"status {result.status}, {result.error}")
    return f"{result.error.ename}: {result.error.evalue[:80]}"


def _bounded(result: ExecutionResult) -> str:
    kept = len(result.outputs)
    if kept > 1_100:
        raise Escaped(f"{kept} outputs kept")
    return f"{kept} outputs kept" + (f", {result.error.ename}" if result.error else "")


def _not_shown(result: ExecutionResult) -> str:
    shown = [output for output in result.outputs if output["output_type"] == "display_data"]
    if any(CELLS_MIMETYPE in output["data"] for output in shown if output["output_type"] == "display_data"):
        raise Escaped("the cells came through")
    if "not shown" not in text(result):
        raise Escaped("the reader is not told")
    return "dropped and named"


def _plain_reply(result: ExecutionResult) -> str:
    if "forged" in repr(result):
        raise Escaped("the payload came through")
    return "payloads are not read"


CELL = {"cell_type": "code", "source": "import os; os.system('id')", "metadata": {}, "id": "a"}
NEST = "deep = []\nfor _ in range(900): deep = [deep]\n"

ATTACKS = [
    _message(
        "a wrong signature",
        "raw(b'<IDS|MSG>', b'0' * 64, header('stream'), own, b'{}', pack({'name': 'stdout', 'text': 'forged'}))",
    ),
    _message("no signature", "raw(b'<IDS|MSG>', b'', header('stream'), own, b'{}', pack({'text': 'forged'}))"),
    _message("no delimiter", "raw(b'forged'); raw(b''); raw(b'<IDS|MSG>')"),
    _message("broken JSON", "signed(b'{', b'{', b'{', b'forged')"),
    _message("JSON that is no object", "signed(b'[]', b'3', b'null', pack('forged'))"),
    _message("JSON nested without end", "signed(b'[' * 100_000, own, b'{}', b'{}')"),
    _message("text that is no UTF-8", "signed(header('stream'), own, b'{}', b'{\"text\": \"\\xff\\xfe odd\"}')"),
    _message("numbers without end", "signed(header('stream'), own, b'{}', b'{\"text\": ' + b'9' * 100_000 + b'}')"),
    _message(
        "a parent of another request",
        "say('stream', {'name': 'stdout', 'text': 'forged'}, parent={'header': {**parent['header'], 'msg_id': 'x'}})",
    ),
    _message("no parent", "say('stream', {'name': 'stdout', 'text': 'forged'}, parent={})"),
    _message(
        "a parent that is no text", "signed(header('stream'), pack({'msg_id': [1]}), b'{}', pack({'text': 'forged'}))"
    ),
    _message("a comm", "say('comm_open', {'comm_id': 'a', 'target_name': 'jupyter.widget', 'data': {'x': 'forged'}})"),
    _message("a comm's message", "say('comm_msg', {'comm_id': 'a', 'data': {'x': 'forged'}})"),
    _message("a request for the reader's input", "say('input_request', {'prompt': 'forged', 'password': True})"),
    _message("a debugger's event", "say('debug_event', {'event': 'forged'})"),
    _message("a request to shut down", "say('shutdown_reply', {'restart': False, 'x': 'forged'})"),
    _message("an execution in the reader's name", "say('execute_input', {'code': 'forged', 'execution_count': 1})"),
    _message(
        "an update of another display",
        "say('update_display_data', {'data': {'text/plain': 'forged'}, "
        "'metadata': {}, 'transient': {'display_id': 'a'}})",
    ),
    _message("a type that nobody knows", "say('forged', {'text': 'forged'})"),
    _message(
        "contents of wrong types",
        "for kind, content in [('stream', {'text': 5}), ('display_data', {'data': 7}), "
        "('error', {'traceback': 3}), ('status', {}), ('execute_result', {'data': None})]: say(kind, content)",
    ),
    _message("buffers", "say('display_data', {'data': {}, 'metadata': {}}, buffers=[b'forged' * 1000])"),
    _message(
        "a pickle",
        "import pickle; say('display_data', {'data': {'application/x-python-pickle': 'forged'}, "
        "'metadata': {}}, buffers=[pickle.dumps(print)])",
        without="forged ",
    ),
    _message(
        "metadata that nests and grows",
        f"{NEST}say('display_data', {{'data': {{'text/plain': 'x'}}, 'metadata': "
        "{'image/png': {'width': 10**30, 'height': -1}, 'forged': deep}})",
    ),
    _message(
        "an output nested without end",
        f"{NEST}say('display_data', {{'data': {{'application/json': deep}}, 'metadata': {{}}}})",
    ),
    _message(
        "terminal escapes", "print('\\x1b]0;forged\\x07\\x1b]52;c;Zm9yZ2Vk\\x07\\x1b[2J\\x1b]8;;http://forged\\x07')"
    ),
    _message("an early end", "say('status', {'execution_state': 'idle'}); say('execute_reply', {'status': 'forged'})"),
    _message("a flood of broken messages", "for _ in range(20_000): raw(b'<IDS|MSG>', b'', b'forged')", flood=True),
    _message(
        "a flood of status messages", "for _ in range(4_000): say('status', {'execution_state': 'busy'})", flood=True
    ),
    _result(
        "a flood of displays",
        "for n in range(5_000): say('display_data', {'data': {'text/plain': str(n)}, 'metadata': {}})",
        _bounded,
    ),
    _result(
        "a flood of errors",
        "for n in range(5_000): say('error', {'ename': 'E', 'evalue': '', 'traceback': []})",
        _bounded,
    ),
    _result(
        "a message of 20 MB",
        "say('display_data', {'data': {'text/plain': 'x' * 20_000_000}, 'metadata': {}})",
        _limit_named,
    ),
    _result("a payload that writes the next cell", "get_ipython().set_next_input('forged')", _plain_reply),
    _result(
        "our own cells, by display",
        f"from IPython.display import publish_display_data\n"
        f"publish_display_data({{{CELLS_MIMETYPE!r}: {{'version': 1, 'cells': [{CELL!r}]}}}})",
        _not_shown,
    ),
    _result(
        "our own cells, by a forged message",
        f"say('display_data', {{'data': {{{CELLS_MIMETYPE!r}: {{'cells': "
        f"[{CELL!r}]}}, 'text/plain': 'x'}}, 'metadata': {{}}}})",
        _not_shown,
    ),
    _result(
        "our own cells, as a result",
        f"say('execute_result', {{'data': {{{CELLS_MIMETYPE!r}: {{'cells': "
        f"[{CELL!r}]}}}}, 'metadata': {{}}, 'execution_count': 1}})",
        _not_shown,
    ),
]
