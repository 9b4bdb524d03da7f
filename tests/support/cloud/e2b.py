"""E2B on loopback, for `e2b-code-interpreter` 2.11: its REST API, its code interpreter and its `envd`, on one address.

What it answers was read off the SDK and its open-source server (https://github.com/e2b-dev/code-interpreter). As on
E2B's own gateway, the headers say which port of which sandbox is meant.
"""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from tests.support.cloud.room import Gone, Room
from tests.support.cloud.web import Handler, deadline_of, envelope, main, opened

ENVD, INTERPRETER = "49983", "49999"
_FIELDS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}


class E2B(Handler):
    """One connection."""

    def route(self, verb: str, path: str, body: bytes) -> None:
        """What names a sandbox goes to it; all else is the control plane's."""
        room_id = self.headers.get("E2b-Sandbox-Id")
        if room_id is None:
            if self.headers.get("X-API-KEY") != self.server.key:
                self.refuse(401, "invalid api key")
            else:
                self._control_plane(verb, path.removeprefix("/v2").removeprefix("/sandboxes"), body)
            return
        room = self.server.rooms.get(room_id)
        if room is None:
            self.refuse(502, "The sandbox was not found")
        elif self.headers.get("E2b-Sandbox-Port") == INTERPRETER:
            self._interpreter(room, verb, path, body)
        elif path == "/health":
            self.answer(204)
        elif self.headers.get("X-Access-Token") != room.token:
            self.refuse(401, "unauthorized access, please provide a valid access token")
        elif path == "/files":
            self._files(room, verb, body)
        else:
            self._rpc(room, path, body)

    def refuse(self, status: int, message: str) -> None:
        """An error as all of E2B's services word it."""
        self.answer(status, {"code": status, "message": message})

    # ---- the control plane ----------------------------------------------------------------------------------------

    def _control_plane(self, verb: str, path: str, body: bytes) -> None:
        room_id, _, action = path.strip("/").partition("/")
        if not room_id:
            self._create(loads(body)) if verb == "POST" else self._list()
            return
        room = self.server.rooms.get(room_id)
        if room is None:
            self.refuse(404, f"sandbox {room_id} not found")
        elif verb == "DELETE":
            self.server.remove(room_id)
            self.answer(204)
        elif action == "timeout":
            room.live(float(loads(body)["timeout"]))
            self.answer(204)
        elif action == "connect":  # prolongs a life, never shortens it
            room.end_at = max(room.end_at, time.time() + float(loads(body).get("timeout", 0)))
            self.answer(200, self._described(room))
        else:
            self.answer(200, {**self._described(room), **self._listed(room)})

    def _create(self, wish: dict[str, object]) -> None:
        environment, metadata = dict(wish.get("envVars") or {}), dict(wish.get("metadata") or {})
        try:
            room = self.server.create(
                str(wish["templateID"]), environment, metadata, life_s=float(wish.get("timeout", 300))
            )
        except LookupError:
            self.refuse(404, f"template '{wish['templateID']}' not found")
            return
        self.answer(201, self._described(room))

    def _list(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wanted = {(unquote(name), unquote(value)) for name, value in parse_qsl(query.get("metadata", ""))}
        rooms = [room for room in list(self.server.rooms.values()) if wanted <= set(room.metadata.items())]
        first, size = int(query.get("nextToken", 0)), min(int(query.get("limit", 100)), self.server.page)
        self.extra = {"X-Next-Token": str(first + size)} if first + size < len(rooms) else {}
        self.answer(200, [self._listed(room) for room in rooms[first : first + size]])
        self.extra = {}

    def _described(self, room: Room) -> dict[str, object]:
        return {
            "templateID": room.template,
            "sandboxID": room.id,
            "clientID": "",
            "envdVersion": "0.6.4",
            "envdAccessToken": room.token,
            "domain": None,
        }

    def _listed(self, room: Room) -> dict[str, object]:
        return {
            "templateID": room.template,
            "sandboxID": room.id,
            "clientID": "",
            "envdVersion": "0.6.4",
            "startedAt": datetime.fromtimestamp(room.started, UTC).isoformat(),
            "endAt": datetime.fromtimestamp(room.end_at, UTC).isoformat(),
            "cpuCount": 2,
            "memoryMB": 1024,
            "diskSizeMB": 10_240,
            "state": "running",
            "metadata": room.metadata,
        }

    # ---- the code interpreter -------------------------------------------------------------------------------------

    def _interpreter(self, room: Room, verb: str, path: str, body: bytes) -> None:
        _, what, context, action, *_ = [*path.split("/"), "", "", ""]
        try:
            if what == "health":
                self.answer(200, "OK")
            elif what == "execute":
                self._execute(room, loads(body))
            elif verb == "GET":
                listed = [_context(name, folder) for name, (_, folder) in list(room.kernels.items())]
                self.answer(200, listed)
            elif not context:
                folder = loads(body).get("cwd") or "/home/user"
                self.answer(200, _context(room.add_context(folder), folder))
            elif action == "restart":
                room.kernel(_name(context)).restart()
                self.answer(200, None)
            else:
                room.remove_context(_name(context))
                self.answer(200, None)
        except KeyError:
            self.answer(404, f"Context {context} not found".encode(), "text/plain")

    def _execute(self, room: Room, wish: dict[str, object]) -> None:
        if self.headers.get("X-Access-Token") != room.token:
            self.refuse(401, "invalid access token")
            return
        try:
            kernel = room.kernel(_name(str(wish.get("context_id") or "")))
        except KeyError:
            self.answer(404, f"Context {wish['context_id']} not found".encode(), "text/plain")
            return
        with self.stream("application/json") as stream:
            if self.instead is not None:
                for line in self.instead.lines or ():
                    stream.send(line.encode() + b"\n")
                while self.instead.endless:
                    stream.send(b"x" * 65_536)
                return
            for kind, content in kernel.execute(str(wish["code"]), dict(wish.get("env_vars") or {})):
                for event in _events(kind, content):
                    stream.send(dumps(event).encode() + b"\n")
                if room.ended.is_set():
                    raise Gone
            stream.send(b'{"type": "end_of_execution"}\n')

    # ---- envd: files and commands ---------------------------------------------------------------------------------

    def _files(self, room: Room, verb: str, body: bytes) -> None:
        shown = parse_qs(urlsplit(self.path).query).get("path", [""])[0]
        try:
            file = room.locate(shown)
            if verb == "GET" and file.is_file():
                self.answer(200, file.read_bytes(), "application/octet-stream")
            elif verb == "GET":
                self.refuse(
                    400 if file.is_dir() else 404,
                    f"path '{shown}' " + ("is a directory", "does not exist")[not file.is_dir()],
                )
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self._uploaded(body))
                self.answer(200, [{"name": file.name, "type": "file", "path": shown}])
        except PermissionError:
            self.refuse(403, "permission denied")
        except OSError as problem:
            self.refuse(400, str(problem.strerror))

    def _uploaded(self, body: bytes) -> bytes:
        kind, _, boundary = self.headers["Content-Type"].partition("; boundary=")
        if kind != "multipart/form-data":
            return body
        part = body.split(b"--" + boundary.strip('"').encode())[1]
        return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")

    def _rpc(self, room: Room, path: str, body: bytes) -> None:
        method = path.rpartition("/")[2]
        try:
            if method == "Start":
                self._start(room, loads(opened(body)))
            else:
                self.answer(200, self._unary(room, method, loads(body or b"{}")))
        except _Refusal as refusal:
            self.answer(refusal.status, {"code": refusal.code, "message": str(refusal)})
        except FileNotFoundError:
            self.answer(404, {"code": "not_found", "message": "path not found"})
        except (PermissionError, OSError) as problem:
            self.answer(400, {"code": "invalid_argument", "message": str(problem)})

    def _unary(self, room: Room, method: str, wish: dict[str, object]) -> dict[str, object]:
        shown = str(wish.get("path", ""))
        file = room.locate(shown)
        match method:
            case "ListDir":
                return {"entries": _entries(file, shown, int(wish.get("depth") or 1))}
            case "Stat":
                return {"entry": _entry(file, shown)}
            case "MakeDir":
                if file.exists():
                    raise _Refusal(409, "already_exists", "directory already exists")
                file.mkdir(parents=True)
                return {"entry": _entry(file, shown)}
            case "Move":
                source, destination = str(wish["source"]), str(wish["destination"])
                room.locate(source).rename(room.locate(destination))
                return {"entry": _entry(room.locate(destination), destination)}
            case "Remove":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
                return {}
            case "List":
                running = [
                    {"pid": pid, "config": {"cmd": process.args[0], "args": process.args[1:]}}
                    for pid, process in room.processes.items()
                ]
                return {"processes": running}
            case "SendSignal":
                process = room.processes.get(wish["process"]["pid"])
                if process is None:
                    raise _Refusal(404, "not_found", "process not found")
                os.killpg(process.pid, signal.SIGKILL if wish["signal"] == "SIGNAL_SIGKILL" else signal.SIGTERM)
                return {}
        raise _Refusal(501, "unimplemented", method)

    def _start(self, room: Room, wish: dict[str, dict[str, object]]) -> None:
        config = wish["process"]
        arguments, environment = list(config.get("args", [])), dict(config.get("envs", {}))
        process = room.spawn(str(config["cmd"]), arguments, environment, str(config.get("cwd") or "/home/user"))
        end: dict[str, object] = {}
        with self.stream("application/connect+json") as stream:

            def send(event: dict[str, object]) -> None:
                stream.send(envelope(dumps({"event": event}).encode()))

            send({"start": {"pid": process.pid}})
            try:
                for name, data in room.follow(process, deadline_of(self)):
                    send({"data": {name: base64.b64encode(data).decode()}})
                code = process.returncode
                send({"end": {"exitCode": code, "exited": code >= 0, "status": f"exit status {code}"}})
            except TimeoutError:
                end = {"error": {"code": "deadline_exceeded", "message": "the time is over"}}
            stream.send(envelope(dumps(end).encode(), last=True))


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def _context(name: str, folder: str) -> dict[str, str]:
    return {"id": name or "default", "language": "python", "cwd": folder}


def _name(context: str) -> str:
    return "" if context == "default" else context


def _events(kind: str, content: dict[str, object]) -> Iterator[dict[str, object]]:
    """What the interpreter makes of a Jupyter message."""
    if kind == "execute_input":
        yield {"type": "number_of_executions", "execution_count": content["execution_count"]}
    elif kind == "stream":
        yield {"type": content["name"], "text": content["text"], "timestamp": datetime.now(UTC).isoformat()}
    elif kind in ("execute_result", "display_data"):
        result: dict[str, object] = {"type": "result", "is_main_result": kind == "execute_result", "extra": {}}
        for mime, value in content["data"].items():
            if mime == "text/plain" and len(value) > 1 and value[0] == value[-1] == "'":
                value = value[1:-1]
            if mime in _FIELDS:
                result[_FIELDS[mime]] = value
            else:
                result["extra"][mime] = value
        yield result
    elif kind == "error":
        lines = "".join(content["traceback"])
        yield {"type": "error", "name": content["ename"], "value": content["evalue"], "traceback": lines}
    elif kind == "restarting":
        yield {"type": "error", "name": "ContextRestarting", "value": "Context was restarted", "traceback": ""}


def _entries(folder: Path, shown: str, depth: int) -> list[dict[str, object]]:
    if not folder.is_dir():
        raise FileNotFoundError
    found = []
    for entry in sorted(folder.iterdir()):
        path = f"{shown.rstrip('/')}/{entry.name}"
        found.append(_entry(entry, path))
        if depth > 1 and entry.is_dir() and not entry.is_symlink():
            found += _entries(entry, path, depth - 1)
    return found


def _entry(file: Path, shown: str) -> dict[str, object]:
    status = file.lstat()
    entry: dict[str, object] = {
        "name": file.name,
        "path": shown,
        "type": "FILE_TYPE_DIRECTORY" if stat.S_ISDIR(status.st_mode) else "FILE_TYPE_FILE",
        "size": str(status.st_size),
        "mode": stat.S_IMODE(status.st_mode),
        "permissions": stat.filemode(status.st_mode),
        "owner": pwd.getpwuid(status.st_uid).pw_name,
        "group": str(status.st_gid),
        "modifiedTime": datetime.fromtimestamp(status.st_mtime, UTC).isoformat().replace("+00:00", "Z"),
    }
    if file.is_symlink():
        entry["symlinkTarget"] = os.readlink(file)
    return entry


if __name__ == "__main__":
    main(E2B, prefix="i", template="code-interpreter-v1", tls=False)
