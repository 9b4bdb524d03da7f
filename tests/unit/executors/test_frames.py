"""The wire format: what a real ZeroMQ socket sends arrives, and nothing that a hostile one sends raises or grows."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_agent_magic.executors.channel import KernelChannel
from sandbox_agent_magic.executors.frames import FrameSocket, ProtocolError

GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x03PUB"


def received(ours: FrameSocket, count: int) -> list[list[bytes]]:
    """The next `count` messages."""
    found: list[list[bytes]] = []
    deadline = time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        found += ours.receive()
        time.sleep(0.001)
    return found


def test_messages_of_all_sizes_go_both_ways_with_a_real_zeromq_socket(tmp_path: Path) -> None:
    context = zmq.Context()
    theirs = context.socket(zmq.ROUTER)
    theirs.linger = 0
    theirs.bind(f"ipc://{tmp_path}/s")
    ours = FrameSocket(f"ipc://{tmp_path}/s", "DEALER", max_bytes=4 << 20)
    try:
        sizes = [0, 1, 255, 256, 70_000, 3 << 20]
        ours.send([b"x" * size for size in sizes])
        while not theirs.poll(10):
            list(ours.receive())
            ours.flush()
        identity, *frames = theirs.recv_multipart()
        assert [len(frame) for frame in frames] == sizes
        theirs.send_multipart([identity, *frames])
        theirs.send_multipart([identity, b"y" * (5 << 20)])
        theirs.send_multipart([identity, b"after"])
        assert received(ours, 2) == [frames, [b"after"]]
        assert ours.oversized_bytes > 5 << 20
    finally:
        ours.close()
        context.destroy(linger=0)


@contextmanager
def hostile(folder: Path, kind: str = "SUB") -> Iterator[tuple[socket.socket, FrameSocket]]:
    """A socket that says what it likes, and ours connected to it."""
    path = folder / "hostile"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        ours = FrameSocket(f"ipc://{path}", kind, max_bytes=10_000)
        theirs, _ = listener.accept()
        with theirs:
            yield theirs, ours
        ours.close()


@pytest.mark.parametrize("start", [b"", GREETING, GREETING + READY])
def test_any_bytes_end_as_messages_within_the_size_or_as_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, start: bytes
) -> None:
    folder = tmp_path_factory.mktemp("s")

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.binary(max_size=300), max_size=6))
    def check(pieces: list[bytes]) -> None:
        with hostile(folder) as (theirs, ours):
            for piece in [start, *pieces]:
                theirs.sendall(piece)
                try:
                    for message in ours.receive():
                        assert sum(map(len, message)) <= 10_000
                except ProtocolError:
                    return

    check()


def test_a_closed_connection_is_noticed(tmp_path: Path) -> None:
    with hostile(tmp_path) as (theirs, ours):
        theirs.close()
        with pytest.raises(ProtocolError):
            list(ours.receive())


def test_a_channel_to_nobody_is_broken_and_raises_nothing(tmp_path: Path) -> None:
    channel = KernelChannel(f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b", b"key")
    assert channel.broken
    channel.request("kernel_info_request", {})
    assert list(channel.receive()) == []
    channel.close()
