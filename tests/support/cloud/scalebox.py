"""Scalebox on loopback, for `scalebox-sdk` 1.0. Run it where that SDK is: its messages come from there.

What it answers was read off the SDK: REST under `/v1`, and one host for all that happens in sandboxes; here a sandbox's
host has the sandbox's id as its first folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from scalebox.generated import api_pb2 as pb

from tests.support.cloud.room import Gone, Room
from tests.support.cloud.web import Handler, deadline_of, envelope, main, opened

RPC = "application/proto"
RPC_STREAM = "application/connect+proto"
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
}


class Scalebox(Handler):
    """One connection."""

    def route(self, verb: str, path: str, body: bytes) -> None:
        """The control plane under `/v1`; all else begins with a sandbox's id."""
        if path.startswith("/v1/"):
            if self.headers.get("X-API-KEY") != self.server.key:
                self.refuse(401, "invalid api key")
            else:
                self._control_plane(verb, path.removeprefix("/v1/sandboxes"), body)
            return
        room_id, _, rest = path.lstrip("/").partition("/")
        room = self.server.rooms.get(room_id)
        if room is None:
            self.refuse(502, f"sandbox {room_id} not found")
        elif self.headers.get("X-Access-Token") != room.token:
            self.answer(401, {"code": "unauthenticated", "message": "invalid access token"})
        else:
            self._inside(room, rest, body)

    def refuse(self, status: int, message: str) -> None:
        """The SDK reads `error`, and falls over where it is missing."""
        self.answer(status, {"success": False, "error": message, "message": message})

    # ---- the control plane ----------------------------------------------------------------------------------------

    def _control_plane(self, verb: str, path: str, body: bytes) -> None:
        room_id, _, action = path.strip("/").partition("/")
        if not room_id:
            self._create(loads(body)) if verb == "POST" else self._list()
            return
        room = self.server.rooms.get(room_id)
        if room is None:
            self.refuse(404, "sandbox not found")
        elif verb == "DELETE":
            self.server.remove(room_id)
            self.answer(204)
        elif action == "timeout":
            room.live(float(loads(body)["timeout"]))
            self.answer(204)
        else:  # a look, or `connect`
            self.answer(200, {"success": True, "data": self._described(room)})

    def _create(self, wish: dict[str, object]) -> None:
        environment, metadata = dict(wish.get("env_vars") or {}), dict(wish.get("metadata") or {})
        try:
            room = self.server.create(str(wish["template"]), environment, metadata, float(wish["timeout"]))
        except LookupError:
            self.refuse(400, f"template {wish['template']} not found")
            return
        self.answer(201, {"success": True, "data": self._described(room)})

    def _list(self) -> None:
        query = parse_qs(urlsplit(self.path).query).get("metadata", [""])[0]
        wanted = {(unquote(name), unquote(value)) for name, value in parse_qsl(query)}
        rooms = [room for room in list(self.server.rooms.values()) if wanted <= set(room.metadata.items())]
        self.answer(200, {"success": True, "data": {"sandboxes": [self._described(room) for room in rooms] or None}})

    def _described(self, room: Room) -> dict[str, object]:
        started = datetime.fromtimestamp(room.started, UTC).isoformat()
        return {
            "sandbox_id": room.id,
            "template_id": room.template,
            "name": room.id,
            "sandbox_domain": f"127.0.0.1:{self.server.port}/{room.id}",
            "envd_access_token": room.token,
            "status": "running",
            "metadata": room.metadata,
            "object_storage": None,
            "network_proxy": None,
            "cpu_count": 2,
            "memory_mb": 1024,
            "started_at": started,
            "created_at": started,
            "timeout": int(room.end_at - room.started),
            "uptime": int(time.time() - room.started),
        }

    # ---- inside a sandbox -----------------------------------------------------------------------------------------

    def _inside(self, room: Room, path: str, body: bytes) -> None:
        if path == "health":
            self.answer(200, {"status": "healthy"})
        elif path == "upload":
            self._upload(room, body)
        elif path.startswith("download/"):
            file = room.locate("/" + unquote(path.removeprefix("download/")))
            if file.is_file():
                self.answer(200, file.read_bytes(), "application/octet-stream")
            else:
                self.answer(404, {"message": "file not found"})
        elif self.headers.get("Content-Type") == RPC_STREAM:
            self._streamed(room, path, opened(body))
        else:
            try:
                self._unary(room, path.rpartition("/")[2], body)
            except (FileNotFoundError, NotADirectoryError):
                self.answer(404, {"code": "not_found", "message": "no such file or directory"})
            except PermissionError:
                self.answer(403, {"code": "permission_denied", "message": "permission denied"})
            except KeyError:
                self.answer(404, {"code": "not_found", "message": "context not found"})

    def _upload(self, room: Room, body: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        parts = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            name = "path" if b'name="path"' in head else "file"
            parts[name] = content.removesuffix(b"\r\n")
        file = room.locate(parts["path"].decode())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(parts["file"])
        self.answer(200, b"File uploaded", "text/plain")

    def _unary(self, room: Room, method: str, body: bytes) -> None:
        match method:
            case "CreateContext":
                wish = pb.CreateContextRequest.FromString(body)
                context = room.add_context(wish.cwd)
                answer = pb.Context(id=context, language=wish.language, cwd=wish.cwd or "/home/user")
            case "DestroyContext":
                room.remove_context(pb.DestroyContextRequest.FromString(body).context_id)
                answer = pb.DestroyContextResponse(success=True)
            case "ListDir":
                wish = pb.ListDirRequest.FromString(body)
                answer = pb.ListDirResponse(entries=_entries(room.locate(wish.path), wish.path, wish.depth or 1))
            case "Stat":
                wish = pb.StatRequest.FromString(body)
                answer = pb.StatResponse(entry=_entry(room.locate(wish.path), wish.path))
            case "MakeDir":
                wish = pb.MakeDirRequest.FromString(body)
                folder = room.locate(wish.path)
                if folder.is_dir():
                    self.answer(409, {"code": "already_exists", "message": "directory already exists"})
                    return
                folder.mkdir(parents=True)
                answer = pb.MakeDirResponse(entry=_entry(folder, wish.path))
            case "Move":
                wish = pb.MoveRequest.FromString(body)
                room.locate(wish.source).rename(room.locate(wish.destination))
                answer = pb.MoveResponse(entry=_entry(room.locate(wish.destination), wish.destination))
            case "Remove":
                found = room.locate(pb.RemoveRequest.FromString(body).path)
                shutil.rmtree(found) if found.is_dir() else found.unlink()
                answer = pb.RemoveResponse()
            case "List":
                answer = pb.ListResponse(
                    processes=[
                        pb.ProcessInfo(pid=pid, config=pb.ProcessConfig(cmd=process.args[0], args=process.args[1:]))
                        for pid, process in room.processes.items()
                    ]
                )
            case "SendSignal":
                wish = pb.SendSignalRequest.FromString(body)
                process = room.processes.get(wish.process.pid)
                if process is None:
                    self.answer(404, {"code": "not_found", "message": "process not found"})
                    return
                os.killpg(process.pid, wish.signal)
                answer = pb.SendSignalResponse()
            case _:
                self.answer(501, {"code": "unimplemented", "message": method})
                return
        self.answer(200, answer.SerializeToString(), RPC)

    def _streamed(self, room: Room, path: str, request: bytes) -> None:
        messages = _executed(room, request) if path.endswith("/Execute") else self._started(room, request)
        with self.stream(RPC_STREAM) as stream:
            for message in messages:
                stream.send(envelope(message.SerializeToString()))
            stream.send(envelope(self._end.encode(), last=True))

    _end = "{}"

    def _started(self, room: Room, request: bytes) -> Iterator[pb.StartResponse]:
        wish = pb.StartRequest.FromString(request).process
        event = pb.ProcessEvent
        self._end = "{}"
        try:
            process = room.spawn(wish.cmd, list(wish.args), dict(wish.envs), wish.cwd)
        except OSError as problem:
            self._end = dumps({"error": {"code": "invalid_argument", "message": str(problem.strerror)}})
            return
        yield pb.StartResponse(event=event(start=event.StartEvent(pid=process.pid)))
        try:
            for name, data in room.follow(process, deadline_of(self)):
                yield pb.StartResponse(event=event(data=event.DataEvent(**{name: data})))
        except TimeoutError:
            self._end = '{"error": {"code": "deadline_exceeded", "message": "the time is over"}}'
            return
        code = process.returncode
        end = event.EndEvent(exit_code=code, exited=code >= 0, status=f"exit status {code}")
        yield pb.StartResponse(event=event(end=end))


def _executed(room: Room, request: bytes) -> Iterator[pb.ExecuteResponse]:
    wish = pb.ExecuteRequest.FromString(request)
    try:
        kernel = room.kernel(wish.context_id)
    except KeyError:
        yield pb.ExecuteResponse(error=pb.Error(name="ContextNotFound", value=wish.context_id))
        return
    for kind, content in kernel.execute(wish.code, dict(wish.env_vars)):
        if kind == "stream":
            yield pb.ExecuteResponse(**{content["name"]: pb.Output(content=content["text"])})
        elif kind in ("execute_result", "display_data"):
            yield pb.ExecuteResponse(result=_result(content, main=kind == "execute_result"))
        elif kind == "error":
            lines = "\n".join(content["traceback"])
            yield pb.ExecuteResponse(error=pb.Error(name=content["ename"], value=content["evalue"], traceback=lines))
        elif kind == "restarting":
            yield pb.ExecuteResponse(error=pb.Error(name="KernelRestarted", value="The kernel ended."))
        if room.ended.is_set():
            raise Gone


def _result(content: dict[str, object], *, main: bool) -> pb.Result:
    bundle = content["data"]
    fields = {}
    extra = {}
    for kind, value in bundle.items():
        text = value if isinstance(value, str) else dumps(value)
        if kind in _FIELDS:
            fields[_FIELDS[kind]] = text
        else:
            extra[kind] = text
    now = int(time.time())
    result = pb.Result(is_main_result=main, execution_count=content.get("execution_count") or 0, extra=extra, **fields)
    result.started_at.seconds = result.finished_at.seconds = now
    return result


def _entries(folder: Path, shown: str, depth: int) -> list[pb.EntryInfo]:
    found = []
    for entry in sorted(folder.iterdir()):
        path = f"{shown.rstrip('/')}/{entry.name}"
        found.append(_entry(entry, path))
        if depth > 1 and entry.is_dir() and not entry.is_symlink():
            found += _entries(entry, path, depth - 1)
    return found


def _entry(file: Path, shown: str) -> pb.EntryInfo:
    status = file.lstat()
    folder = stat.S_ISDIR(status.st_mode)
    entry = pb.EntryInfo(
        name=file.name,
        path=shown,
        type=pb.FILE_TYPE_DIRECTORY if folder else pb.FILE_TYPE_FILE,
        size=status.st_size,
        mode=stat.S_IMODE(status.st_mode),
        permissions=stat.filemode(status.st_mode),
        owner=pwd.getpwuid(status.st_uid).pw_name,
        group=str(status.st_gid),
    )
    entry.modified_time.FromNanoseconds(status.st_mtime_ns)
    if file.is_symlink():
        entry.symlink_target = os.readlink(file)
    return entry


if __name__ == "__main__":
    main(Scalebox, prefix="sbx-", template="code-interpreter", tls=True)
