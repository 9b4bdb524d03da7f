"""The floor under the sandbox: a plain ipykernel with the same flags, spoken to over zmq in the plainest way."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TypedDict

import zmq
from jupyter_client.session import Session

BOOT = """
import sys
sys.modules["debugpy"] = None
import ipykernel.kernelapp
del sys.modules["debugpy"]
ipykernel.kernelapp.launch_new_instance()
"""
"""As in the sandbox: no debugger, no history, ipc."""


class Message(TypedDict):
    """What is looked at in a message."""

    msg_type: str
    content: dict[str, str]


FLAGS = ("--HistoryManager.enabled=False", "--HistoryManager.hist_file=:memory:")
PATIENCE_S = 120.0


class PlainKernel:
    """A kernel process and the two sockets that execution needs. A context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        base = Path(self._folder.name)
        key = secrets.token_hex(32)
        ports = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
        connection = {"transport": "ipc", "ip": str(base / "k"), "key": key, "signature_scheme": "hmac-sha256", **ports}
        (base / "kernel.json").write_text(json.dumps(connection))
        self._session = Session(key=key.encode())
        self._context = zmq.Context()
        self._shell = self._connect(zmq.DEALER, f"ipc://{base}/k-1")
        self._iopub = self._connect(zmq.SUB, f"ipc://{base}/k-2")
        self._iopub.subscribe(b"")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, "-f", str(base / "kernel.json"), *FLAGS],
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _connect(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = 5
        socket.connect(endpoint)
        return socket

    def __enter__(self) -> PlainKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._context.destroy(linger=0)
        self._folder.cleanup()

    def execute(self, code: str) -> list[Message]:
        """Run `code`; return its iopub messages once the reply and `idle` are both here."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        request = self._session.send(self._shell, "execute_request", content)
        poller = zmq.Poller()
        poller.register(self._shell, zmq.POLLIN)
        poller.register(self._iopub, zmq.POLLIN)
        deadline = time.monotonic() + PATIENCE_S
        seen: list[Message] = []
        replied = idle = False
        while not (replied and idle):
            ready = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
            if not ready:
                raise TimeoutError("the plain kernel did not answer")
            for socket in ready:
                _, message = self._session.recv(socket, zmq.NOBLOCK)
                if message is None or message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                    continue
                if socket is self._shell:
                    replied = True
                else:
                    seen.append(message)
                    idle = idle or message["content"].get("execution_state") == "idle"
        return seen
