"""Files of a remote kernel's folder, in pieces through the kernel: what has no contents API works too."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import ExecutorError, WorkspaceError
from ...types import FileInfo, ProgressHook
from ...workspace import replacing
from ..names import file_infos
from ..names import inside as inside_name
from .kernel import RemoteKernel
from .socket import SocketClosed

_CHUNK = 1 << 20
"""Of a file, in one request: tornado takes messages of up to 10 MiB."""


class RemoteFiles:
    """Files over there. The kernel has to be ready."""

    def __init__(self, kernel: RemoteKernel) -> None:
        self._kernel = kernel

    def put(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """As `Executor.put_file`."""
        name = inside_name(name)
        total = done = 0
        try:
            with open(source, "rb") as reader:
                total = os.fstat(reader.fileno()).st_size
                while True:
                    piece = reader.read(_CHUNK)
                    last = done + len(piece) >= total or not piece
                    data = base64.b64encode(piece).decode()
                    answer = self._ask(
                        "write", f"copy {name}", {"name": name, "offset": done, "data": data, "last": last}
                    )
                    done += len(piece)
                    if answer.get("size") != done:
                        raise WorkspaceError(
                            f"Cannot copy {name} to the remote kernel.", why="It did not arrive whole."
                        )
                    if on_progress is not None:
                        on_progress(done, total)
                    if last:
                        return FileInfo(name, done)
        except OSError as problem:
            reason = problem.strerror or str(problem)
        raise WorkspaceError(f"Cannot read {source}.", why=f"{reason}.")

    def get(self, name: str, destination: Path) -> None:
        """As `Executor.get_file`."""
        name = inside_name(name)
        total = self._ask("size", f"copy {name}", {"name": name}).get("size")
        if not isinstance(total, int) or total < 0:
            raise WorkspaceError(f"There is no file {name[:200]} in the remote kernel's folder.", hint="%agent files")
        with replacing(destination, Path(name).name) as writer:
            while writer.tell() < total:
                size = min(_CHUNK, total - writer.tell())
                writer.write(self._piece(name, writer.tell(), size))

    def list(self) -> Sequence[FileInfo]:
        """As `Executor.list_files`."""
        return file_infos(self._ask("list", "list the files").get("files"))

    def _ask(self, name: str, what: str, arguments: Mapping[str, object] | None = None) -> Mapping[str, object]:
        """Ask the far end.

        Raises:
            WorkspaceError: the other side's system refuses.
            ExecutorError: it does not answer.
        """
        try:
            answer = self._kernel.call(name, arguments)
        except SocketClosed:
            raise ExecutorError(
                f"Cannot {what}: the connection to the remote kernel was cut.", executor="remote", hint="Try again."
            ) from None
        if not answer:
            raise ExecutorError(
                f"Cannot {what}: the remote kernel gave no answer.", executor="remote", hint="%agent restart"
            )
        if "error" in answer:
            raise WorkspaceError(f"Cannot {what}.", why=f"The remote kernel says: {str(answer['error'])[:200]}.")
        return answer

    def _piece(self, name: str, offset: int, size: int) -> bytes:
        data = self._ask("read", f"copy {name}", {"name": name, "offset": offset, "size": size}).get("data")
        try:
            piece = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
        except ValueError:
            piece = b""
        if not 0 < len(piece) <= size:
            raise WorkspaceError(f"Cannot copy {name} from the remote kernel.", why="It did not arrive whole.")
        return piece
