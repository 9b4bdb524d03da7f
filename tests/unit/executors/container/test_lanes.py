"""The host's end of a container's pipes, fed with anything: nothing raises, hangs or grows, and true bytes arrive."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_agent_magic.executors.container.lanes import Lanes, Lines, frame, read_exactly
from sandbox_agent_magic.executors.container.relay import HEADER, PIECE_BYTES


@dataclass
class Pipes:
    """Lanes with both far ends of their pipes in our hands."""

    lanes: Lanes
    to_host: io.FileIO
    from_host: io.FileIO
    ended: threading.Event = field(default_factory=threading.Event)

    def heard(self) -> tuple[int, bytes]:
        """The next frame that the host sent."""
        number, size = HEADER.unpack(read_exactly(self.from_host, HEADER.size))
        return number, read_exactly(self.from_host, size)


@contextlib.contextmanager
def pipes() -> Iterator[Pipes]:
    failures: list[object] = []
    hook, threading.excepthook = threading.excepthook, failures.append
    (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
    ended = threading.Event()
    stdin, to_host = (io.FileIO(descriptor, "wb") for descriptor in (our_in, their_out))
    stdout, from_host = (io.FileIO(descriptor, "rb") for descriptor in (our_out, their_in))
    made = Pipes(Lanes(stdin, stdout, on_end=ended.set), to_host, from_host, ended)
    made.lanes.start(b"first")
    assert read_exactly(made.from_host, 5) == b"first"
    try:
        yield made
    finally:
        made.to_host.close()
        made.lanes.close()
        made.lanes.join()
        made.from_host.close()
        threading.excepthook = hook
    assert ended.wait(5)
    assert failures == []


def test_bytes_of_each_lane_go_both_ways_and_its_end_is_told() -> None:
    with pipes() as ends:
        shell, iopub = ends.lanes.open("shell"), ends.lanes.open("iopub")
        assert ends.heard() == (0, json.dumps({"open": [1, "shell"]}).encode())
        assert ends.heard() == (0, json.dumps({"open": [2, "iopub"]}).encode())
        shell.sendall(b"to the kernel")
        assert ends.heard() == (1, b"to the kernel")
        ends.to_host.write(frame(2, b"from ") + frame(1, b"reply") + frame(2, b"the kernel"))
        assert shell.recv(100) == b"reply"
        assert _receive(iopub, 15) == b"from the kernel"
        ends.to_host.write(frame(2, b""))
        assert iopub.recv(100) == b""
        shell.close()
        frames = [ends.heard(), ends.heard()]
        assert (1, b"") in frames
        iopub.close()


def test_an_order_is_sent_although_nobody_reads_a_lane() -> None:
    with pipes() as ends:
        lane = ends.lanes.open("iopub")
        ends.heard()
        flood = threading.Thread(target=_flood, args=(ends.to_host,), daemon=True)
        flood.start()
        time.sleep(0.2)
        ends.lanes.order({"interrupt": True})
        assert ends.heard() == (0, b'{"interrupt": true}')
        lane.close()


def test_what_nobody_reads_waits_in_the_container() -> None:
    with pipes() as ends:
        lane = ends.lanes.open("iopub")
        ends.heard()
        written = [0]
        threading.Thread(target=_flood, args=(ends.to_host, written), daemon=True).start()
        time.sleep(0.5)
        held = written[0]
        time.sleep(0.5)
        assert written[0] == held < 4 << 20
        lane.close()


def test_frames_of_lanes_that_nobody_opened_are_dropped() -> None:
    with pipes() as ends:
        lane = ends.lanes.open("shell")
        ends.to_host.write(frame(7, b"forged") + frame(0, b'{"report": {}}') + frame(1, b"genuine"))
        assert lane.recv(100) == b"genuine"
        lane.close()


def test_a_frame_over_the_size_ends_the_connection() -> None:
    with pipes() as ends:
        lane = ends.lanes.open("shell")
        ends.to_host.write(HEADER.pack(1, PIECE_BYTES + 1))
        assert lane.recv(100) == b""
        assert ends.ended.wait(5)
        lane.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200) | st.builds(frame, st.integers(0, 3), st.binary(max_size=50)), max_size=8))
def test_anything_may_come(pieces: list[bytes]) -> None:
    with pipes() as ends:
        lane = ends.lanes.open("shell")
        lane.settimeout(5)
        for piece in pieces:
            with contextlib.suppress(BrokenPipeError):
                ends.to_host.write(piece)
        ends.to_host.close()
        while lane.recv(4096):
            pass
        lane.close()


@pytest.mark.parametrize("cut", range(1, HEADER.size + 5))
def test_a_frame_that_is_cut_off_is_an_end(cut: int) -> None:
    with pipes() as ends:
        lane = ends.lanes.open("shell")
        ends.to_host.write(frame(1, b"whole") + frame(1, b"cut off")[:cut])
        ends.to_host.close()
        assert _receive(lane, 5) == b"whole"
        assert lane.recv(100) == b""
        lane.close()


# ---- stderr ---------------------------------------------------------------------------------------------------------


def lines(content: bytes) -> tuple[list[object], str]:
    """What is taken for the relay's, and the last of the other words."""
    reader, writer = os.pipe()
    heard: list[object] = []
    found = Lines(io.BufferedReader(io.FileIO(reader)), "word", heard.append)
    with open(writer, "wb") as file:
        file.write(content)
    found.join()
    return heard, found.words()


def test_the_relays_lines_are_told_from_the_engines() -> None:
    content = b'Error: no such image\nword {"report": {}}\n{"report": "forged"}\nwords {"a": 1}\nword [1]\nword {\n'
    assert lines(content) == ([{"report": {}}], 'words {"a": 1}')


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"word ", b"\n", b"word {}\n", b"[" * 3000]), max_size=8))
def test_any_line_may_come(pieces: list[bytes]) -> None:
    heard, words = lines(b"".join(pieces))
    assert all(isinstance(each, dict) for each in heard)
    assert len(words) <= 4096


def test_lines_without_end_do_not_fill_the_memory() -> None:
    heard, words = lines(b"x" * (3 << 20))
    assert (heard, len(words)) == ([], 4096)


def _flood(file: io.FileIO, written: list[int] | None = None) -> None:
    piece = frame(1, b"x" * 10_000)
    with contextlib.suppress(OSError, ValueError):
        for _ in range(2000):
            file.write(piece)
            if written is not None:
                written[0] += len(piece)


def _receive(lane: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (piece := lane.recv(size - len(content))):
        content += piece
    return content
