"""Attacks on the host by what is planted in the shared folder, and by what it is asked to install."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sandbox_agent_magic.errors import SandboxAgentError
from tests.support.sandbox import run

from .room import SECRET, Attack, Escaped, Room


def _refused(act: Callable[[], object]) -> str:
    """The host's own call must be refused, soon."""
    started = time.monotonic()
    try:
        act()
    except SandboxAgentError as error:
        if time.monotonic() - started > 5:
            raise Escaped("it hung for a while") from error
        return error.lines()[0][:100]
    raise Escaped("the host went along")


def _get(name: str, code: str, file: str) -> Attack:
    """Plant something by `code`, then have the host copy `file` out."""

    def attempt(room: Room) -> str:
        run(room.sandbox, code.replace("SECRET", str(room.folder / "secret")).replace("FOLDER", str(room.folder)))
        target = room.folder / "copied"
        how = _refused(lambda: room.sandbox.get_file(file, target))
        if target.exists():
            raise Escaped(f"a file was made: {target.read_bytes()[:50]!r}")
        return how

    return Attack("workspace", name, attempt)


def _put_through_a_folder_link(room: Room) -> str:
    run(room.sandbox, f"import os; os.symlink({str(room.folder)!r}, 'way-in')")
    how = _refused(lambda: room.sandbox.put_file(room.folder / "secret", "way-in/planted"))
    if (room.folder / "planted").exists():
        raise Escaped("a file was made on the host")
    return how


def _put_over_a_link(room: Room) -> str:
    target = room.folder / "precious"
    target.write_text("precious")
    target.chmod(0o666)
    run(room.sandbox, f"import os; os.symlink({str(target)!r}, 'over')")
    room.sandbox.put_file(room.folder / "secret", "over")
    if target.read_text() != "precious":
        raise Escaped("the host wrote through the link")
    return "the link was replaced"


def _listing(name: str, code: str, *, at_most: int = 12_000) -> Attack:
    """Plant by `code`; listing must be quick, bounded, and show regular files of plain names only."""

    def attempt(room: Room) -> str:
        executor = room.another()
        try:
            started = time.monotonic()
            run(executor, "import os, socket\n" + code)
            files = executor.list_files()
            took = time.monotonic() - started
            odd = [file.name for file in files if not file.name.isprintable() or ".." in file.name.split("/")]
            if odd or len(files) > at_most or took > 20:
                raise Escaped(f"{len(files)} files, odd: {odd[:3]}, {took:.1f} s")
            path = executor.workspace.path
        finally:
            executor.shutdown()
        if path.exists():
            raise Escaped("the temporary folder is still there")
        return f"{len(files)} files listed; folder removed"

    return Attack("workspace", name, attempt)


def _leaving_name(name: str) -> Attack:
    return Attack(
        "workspace", f"the name {name!r}", lambda r: _refused(lambda: r.sandbox.get_file(name, r.folder / "c"))
    )


def _remove_through_a_link(room: Room) -> str:
    kept = room.folder / "kept"
    kept.mkdir()
    kept.chmod(0o777)
    (kept / "file").write_text(SECRET)
    executor = room.another()
    run(executor, f"import os; os.symlink({str(kept)!r}, 'kept'); os.symlink({str(kept)!r}, 'd'); os.chmod('.', 0o777)")
    executor.shutdown()
    if not (kept / "file").exists() or kept.stat().st_mode & 0o777 != 0o777:
        raise Escaped("cleaning up followed the link")
    return "cleaning up left it alone"


def _unsafe_folder(folder: str) -> Attack:
    def attempt(room: Room) -> str:
        return _refused(lambda: room.another(Path(folder).expanduser()))

    return Attack("workspace", f"the folder {folder} as workspace", attempt)


def _env_folder(room: Room) -> str:
    return _refused(lambda: room.another(room.folder))


def _package(name: str) -> Attack:
    def attempt(room: Room) -> str:
        wanted = name.replace("PORT", str(room.server.getsockname()[1])).replace("FOLDER", str(room.folder))
        return _refused(lambda: room.sandbox.install([wanted]))

    return Attack("packages", f"install {name}", attempt)


ATTACKS = [
    _get("a link to a file of the host", "import os; os.symlink('SECRET', 'link')", "link"),
    _get("a link to a folder of the host", "import os; os.symlink('FOLDER', 'way')", "way/secret"),
    _get("a chain of links", "import os; os.symlink('FOLDER', 'c1'); os.symlink('c1', 'c2')", "c2/secret"),
    _get("a link to /proc/self", "import os; os.symlink('/proc/self/environ', 'env')", "env"),
    _get("a pipe that nobody fills", "import os; os.mkfifo('pipe')", "pipe"),
    _get("a socket", "import socket; s = socket.socket(socket.AF_UNIX); s.bind('sock')", "sock"),
    _get("a folder instead of a file", "import os; os.mkdir('folder')", "folder"),
    Attack("workspace", "put a file through a linked folder", _put_through_a_folder_link),
    Attack("workspace", "put a file over a link", _put_over_a_link),
    *map(_leaving_name, ["../secret", "/etc/passwd", "a/../../secret", "x\x00y", "a\nb", ""]),
    _listing(
        "pipes, sockets and links in the listing",
        "os.mkfifo('p'); os.symlink('/', 'root')\ns = socket.socket(socket.AF_UNIX); s.bind('s')",
        at_most=0,
    ),
    _listing(
        "names of control characters",
        "for n in ('a\\nb', '\\x1b[2J', '\\u202egpj.exe', b'\\xff\\xfe'): open(n, 'w')",
        at_most=0,
    ),
    _listing("12,000 files", "for n in range(12_000): os.close(os.open(f'f{n}', os.O_CREAT | os.O_WRONLY))"),
    _listing("folders nested without end", "for _ in range(300): os.mkdir('d'); os.chdir('d')"),
    _listing(
        "folders that nobody may enter",
        "os.makedirs('a/b'); open('a/b/c', 'w'); os.chmod('a/b', 0); os.chmod('a', 0)",
        at_most=1,
    ),
    _listing("a link to itself", "os.symlink('self', 'self'); os.mkdir('x'); os.symlink('..', 'x/up')", at_most=0),
    Attack("workspace", "have the host remove files through a link", _remove_through_a_link),
    Attack("workspace", "a folder that holds a .env as workspace", _env_folder),
    *map(_unsafe_folder, ["/", "~", "/etc"]),
    *map(
        _package,
        [
            "--index-url=http://127.0.0.1:PORT/",
            "-r FOLDER/secret",
            "git+http://127.0.0.1:PORT/x",
            "http://127.0.0.1:PORT/x.whl",
            "FOLDER",
            "x; touch y",
            "../x",
            "-e .",
        ],
    ),
]
