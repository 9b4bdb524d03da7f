"""Promises about files and packages. Each check's docstring is the promise."""

from __future__ import annotations

import hashlib
import random
from functools import partial

from ...errors import UsageError, WorkspaceError
from .room import Room, expect, expect_refusal, expect_status, names

_BIG = 20 << 20
_ODD_NAMES = ("plain.csv", "two words (1).txt", "naïve ✓ 漢字.bin", "it's 100% a+b #1 & c;d=e?.txt", ".hidden")


def moves_files(room: Room) -> None:
    """Files go in and come out byte for byte, whatever their names; others are refused."""
    if not room.can.files:
        expect_refusal(room.executor.list_files, "listing files")
        return
    for name in _ODD_NAMES:
        content = name.encode() + bytes(range(256)) + b"\r\n\0"
        info = room.executor.put_file(room.write("source", content), name)
        expect((info.name, info.size) == (name, len(content)), f"{name}: put as {info}")
        expect(room.value(f"open({name!r}, 'rb').read().hex()") == repr(content.hex()), f"{name}: the code reads other")
        back = room.folder / "back"
        room.executor.get_file(name, back)
        expect(back.read_bytes() == content, f"{name}: other bytes come back")
    room.executor.put_file(room.write("source", b""), "empty")
    expect(room.value("open('empty', 'rb').read()") == "b''", "an empty file is not empty")
    expect_refusal(lambda: room.executor.get_file("none.txt", room.folder / "x"), "no such file", kind=WorkspaceError)
    for name in ("../out.txt", "/out.txt", ""):
        source = room.write("source", b"out")
        expect_refusal(partial(room.executor.put_file, source, name), f"the name {name!r}", kind=WorkspaceError)


def moves_big_files(room: Room) -> None:
    """A file of 20 MB goes in and out, and how far it is can be told."""
    if not room.can.files:
        return
    content = random.Random(7).randbytes(_BIG)  # noqa: S311 - bytes that do not compress, the same each time
    digest = hashlib.sha256(content).hexdigest()
    told: list[tuple[int, int]] = []
    room.executor.put_file(room.write("big", content), "big.bin", on_progress=lambda *n: told.append(n))
    found = room.value("import hashlib\nhashlib.sha256(open('big.bin', 'rb').read()).hexdigest()")
    expect(found == repr(digest), "the code reads other bytes")
    expect(not told or told[-1] == (_BIG, _BIG), f"the last progress is {told[-1:]}")
    back = room.folder / "big-back"
    room.executor.get_file("big.bin", back)
    expect(hashlib.sha256(back.read_bytes()).hexdigest() == digest, "other bytes come back")


def tells_of_files(room: Room) -> None:
    """A file that code writes or changes is told in its result, and listed."""
    if not room.can.files:
        return
    result = room.run("with open('made.txt', 'w') as f:\n    _ = f.write('12345')")
    expect(names(list(result.new_files)) == {"made.txt": 5}, f"new files: {result.new_files}")
    expect(names(list(room.executor.list_files())).get("made.txt") == 5, "it is not listed")
    result = room.run("with open('made.txt', 'a') as f:\n    _ = f.write('678')")
    expect(names(list(result.new_files)) == {"made.txt": 8}, f"changed files: {result.new_files}")
    expect(not room.run("1").new_files, "files are told as new that are not")


def installs(room: Room) -> None:
    """Packages can be installed where it says so; what is no package's name is refused."""
    if not room.can.install:
        expect_refusal(lambda: room.executor.install(["humanize"]), "installing")
        return
    for name in ("../evil", "--index-url=x", "a b"):
        expect_refusal(partial(room.executor.install, [name]), f"the package {name!r}", kind=UsageError)
    if room.package is not None:
        added = room.executor.install([room.package])
        expect(any(each.startswith(f"{room.package}==") for each in added), f"it says that it added {added}")
        expect_status(room.run(f"import {room.package}"), "ok")
