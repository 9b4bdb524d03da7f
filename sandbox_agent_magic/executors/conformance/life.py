"""Promises about processes: death, restart, two at a time, the end. Each check's docstring is the promise."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from ... import scratch
from .room import Room, expect, expect_refusal, expect_status, names, text


def survives_death(room: Room) -> None:
    """Code that ends its own process is a result that says so; the next code runs, the files are still there."""
    if not room.can.own_process:
        return
    if room.can.files:
        room.executor.put_file(room.write("source", b"still"), "still.txt")
    room.run("doomed = 1")
    # The kernel's own sender needs a moment: what is printed in the last one may go down with it.
    result = room.run("import os, time\nprint('last words', flush=True)\ntime.sleep(1)\nos._exit(1)", timeout_s=60)
    expect_status(result, "died")
    expect(result.error is not None, "the result carries no error")
    expect("last words" in text(result), "what was printed before is lost")
    after = room.run("doomed")
    expect(after.error is not None and after.error.ename == "NameError", f"after a death: {after.status}")
    expect(result.state_lost or after.state_lost, "nobody says that the state was lost")
    expect(not room.run("1").state_lost, "the loss is said more than once")
    if room.can.files:
        expect(room.value("open('still.txt').read()") == "'still'", "the files are gone")


def restarts(room: Room) -> None:
    """`restart` gives fresh variables and keeps the files, or is refused."""
    if not room.can.own_process:
        expect_refusal(room.executor.restart, "a restart")
        return
    if room.can.files:
        room.executor.put_file(room.write("source", b"still"), "stays.txt")
    room.run("old = 1")
    room.executor.restart()
    expect(room.value("old") == "NameError", "a variable survived")
    if room.can.files:
        expect(room.value("open('stays.txt').read()") == "'still'", "the files are gone")


def stands_beside_another(room: Room) -> None:
    """Two executors at a time do not share variables or files, unless it is the reader's own process."""
    other = room.make()
    try:
        room.run("whose = 'first'")
        other.start()
        seen = room.value("whose", executor=other)
        if not room.can.own_process:
            expect(seen == "'first'", "it says that it is the reader's process, and does not see its variables")
            return
        expect(seen == "NameError", "the second sees the first one's variables")
        room.run("whose = 'second'", executor=other)
        expect(room.value("whose") == "'first'", "the second changes the first one's variables")
        if room.can.files:
            other.put_file(room.write("source", b"x"), "of-the-second.txt")
            expect("of-the-second.txt" not in names(list(room.executor.list_files())), "files are shared")
    finally:
        other.shutdown()
    expect(room.value("whose") == "'first'", "ending the second ends the first")


def leaves_nothing(room: Room) -> None:
    """`shutdown` may be called twice, and leaves no process, thread, folder or open file here."""
    before = _traces()
    executor = room.make()
    executor.start()
    executor.execute("1 + 1", timeout_s=60, on_output=lambda _: None)
    executor.shutdown()
    executor.shutdown()
    end = time.monotonic() + 10
    while (left := _traces() - before) and time.monotonic() < end:
        time.sleep(0.1)
    expect(not left, f"it left {', '.join(sorted(left))[:300]}")
    room.make().shutdown()  # one that was never started


def _traces() -> set[str]:
    """What this process has open: child processes, threads, folders of ours, descriptors by what they lead to."""
    found = {f"thread {thread.name}" for thread in threading.enumerate()}
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {f"process {pid}" for pid in task.read_text().split()}
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(f"descriptor of {os.readlink(descriptor)}")
    found |= {f"folder {path}" for path in scratch.mine()}
    return found
