"""A real ipykernel, driven as a front end drives it: messages in, messages out, the Stop button."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

OUTPUTS = {"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"}
FrontEndName = Literal["lab", "console", "nbclient"]


@dataclass
class Ran:
    """What one cell's execution sent."""

    messages: list[dict[str, object]] = field(default_factory=list)
    """Outputs, in order."""
    strays: list[str] = field(default_factory=list)
    """Types of outputs that named another parent than this cell."""
    status: str = ""
    payload: list[dict[str, object]] = field(default_factory=list)
    after_stop_s: float = 0.0
    """From the interrupt to the kernel's being idle."""

    def contents(self, kind: str) -> list[dict[str, object]]:
        """The contents of the messages of one type."""
        return [message["content"] for message in self.messages if message["msg_type"] == kind]  # type: ignore[misc]

    @property
    def text(self) -> str:
        """What went to stdout and stderr."""
        return "".join(str(content["text"]) for content in self.contents("stream"))

    @property
    def displays(self) -> list[dict[str, str]]:
        """The mime bundles that were displayed and not updated."""
        return [content["data"] for content in self.contents("display_data") if not content["transient"]]  # type: ignore[misc]

    @property
    def areas(self) -> list[dict[str, str]]:
        """The mime bundles of the area, in the order in which they replaced each other."""
        kinds = ("display_data", "update_display_data")
        found = [message["content"] for message in self.messages if message["msg_type"] in kinds]
        return [content["data"] for content in found if content["transient"]]  # type: ignore[call-overload, index]


class Kernel:
    """A kernel with the extension loaded."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self._client = client

    def run(
        self,
        code: str,
        *,
        front_end: FrontEndName = "lab",
        stop_when: Callable[[Ran], bool] | None = None,
        timeout_s: float = 60,
    ) -> Ran:
        """Run a cell to its end, as the front end would.

        Args:
            code: the cell.
            front_end: `lab` names the cell and has a reader, `console` has a reader, `nbclient` has none.
            stop_when: press Stop when this is so.
            timeout_s: fails after that.
        """
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": front_end != "nbclient",
            "stop_on_error": True,
        }
        metadata = {"cellId": "agent-cell"} if front_end == "lab" else {}
        request = self._client.session.msg("execute_request", content, metadata=metadata)
        self._client.shell_channel.send(request)
        ran, stopped = Ran(), 0.0
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if stop_when is not None and not stopped and stop_when(ran):
                self.manager.interrupt_kernel()
                stopped = time.monotonic()
            try:
                message = self._client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                continue
            kind, ours = message["msg_type"], message["parent_header"].get("msg_id") == request["header"]["msg_id"]
            if kind in OUTPUTS and ours:
                ran.messages.append(message)
            elif kind in OUTPUTS:
                ran.strays.append(kind)
            elif ours and kind == "status" and message["content"]["execution_state"] == "idle":
                ran.after_stop_s = time.monotonic() - stopped if stopped else 0.0
                reply = self._client.get_shell_msg(timeout=5)["content"]
                ran.status, ran.payload = reply["status"], reply.get("payload", [])
                return ran
        raise TimeoutError(f"not idle after {timeout_s} s; so far: {ran}")


@contextlib.contextmanager
def kernel(folder: Path, environ: Mapping[str, str]) -> Iterator[Kernel]:
    """A kernel in `folder`, with `environ` added to its environment."""
    manager = KernelManager(transport="ipc", ip=str(folder / "socket"))
    manager.start_kernel(cwd=str(folder), env={**os.environ, **environ})
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=90)
        running = Kernel(manager, client)
        running.run("%load_ext sandbox_agent_magic")
        yield running
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
