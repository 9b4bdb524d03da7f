"""The message filter, fed with anything: it never raises, and takes only what answers the request."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox_agent_magic.executors.channel import KernelChannel
from sandbox_agent_magic.executors.execution import Execution
from sandbox_agent_magic.outputs import OutputCollector
from sandbox_agent_magic.types import Output

KEY = b"known to the sandbox"
REQUEST = "the request"

KEYS = [
    "name",
    "text",
    "data",
    "metadata",
    "ename",
    "evalue",
    "traceback",
    "execution_state",
    "status",
    "wait",
    "text/html",
    "text/plain",
    "image/png",
    "execution_count",
    "msg_id",
    "msg_type",
    "x",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
KINDS = [
    "stream",
    "display_data",
    "execute_result",
    "error",
    "status",
    "clear_output",
    "comm_open",
    "input_request",
    "x",
]


@pytest.fixture(scope="module")
def channel() -> Iterator[KernelChannel]:
    made = KernelChannel("ipc:///nowhere/shell", "ipc:///nowhere/iopub", KEY)
    yield made
    made.close()


def dumped(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@given(st.lists(st.binary(max_size=30) | st.just(b"<IDS|MSG>"), max_size=9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_bytes_of_any_kind_are_no_message(channel: KernelChannel, frames: list[bytes]) -> None:
    assert channel._parse("iopub", frames) is None


@given(JSON, JSON, JSON, JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_signed_json_of_any_shape_never_raises(
    channel: KernelChannel, header: object, parent: object, metadata: object, content: object
) -> None:
    parts = [dumped(part) for part in (header, parent, metadata, content)]
    channel._parse("iopub", [b"<IDS|MSG>", channel._sign(parts), *parts])


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans(), JSON), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_well_formed_messages_of_any_content_become_outputs_that_can_be_saved_or_nothing(
    channel: KernelChannel, messages: list[tuple[str, bool, object]]
) -> None:
    seen: list[Output] = []
    collector = OutputCollector(seen.append)
    execution = Execution(REQUEST, collector, timeout_s=1)
    for kind, ours, content in messages:
        header = {"msg_type": kind, "msg_id": "a", "date": "2026-01-01T00:00:00Z"}
        parts = [dumped(part) for part in (header, {"msg_id": REQUEST if ours else "another"}, {}, content)]
        message = channel._parse("iopub", [b"<IDS|MSG>", channel._sign(parts), *parts])
        if message is not None:
            execution.take(message)
    json.dumps(collector.finish(), allow_nan=False).encode()
    if not any(ours for _, ours, _ in messages):
        assert seen == []
    assert execution.replied_at is None
