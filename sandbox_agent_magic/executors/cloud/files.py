"""Files and packages of a cloud sandbox: bytes by the SDK, all else by the far end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import ExecutorError, WorkspaceError
from ...outputs import mib
from ...sandbox import requirements
from ...types import FileInfo, ProgressHook
from ...workspace import replacing
from ..names import file_infos
from ..names import inside as inside_name
from .box import CALL_S, CloudBox
from .engine import CloudFailure
from .failures import said
from .inside import PIP_S

_COPY_S = 900.0
_MAX_FILE = 1 << 30
"""Bytes: of a file that is copied out, which is in memory as a whole."""
_MARGIN_S = 30.0
_MAX_ADDED = 1_000


class CloudFiles:
    """The part of `CloudExecutor` that runs no code of the reader's."""

    box: CloudBox
    name: str

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy a file into the sandbox's folder."""
        name = inside_name(name)
        self.box.ready()
        try:
            with open(source, "rb") as reader:
                total = os.fstat(reader.fileno()).st_size
                self._ask("make_room", f"copy {name}", {"name": name})
                if on_progress is not None:
                    on_progress(0, total)
                self.box.request(lambda: self.box.engine.write(f"{self.box.folder}/{name}", reader), _COPY_S)
        except OSError as problem:
            raise WorkspaceError(f"Cannot read {source}.", why=f"{problem.strerror or problem}.") from None
        if self._ask("came", f"copy {name}", {"name": name}).get("size") != total:
            raise WorkspaceError(f"Cannot copy {name} to the sandbox.", why="It did not arrive whole.")
        if on_progress is not None:
            on_progress(total, total)
        return FileInfo(name, total)

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the sandbox's folder."""
        name = inside_name(name)
        self.box.ready()
        total = self._ask("size", f"copy {name}", {"name": name}).get("size")
        if not isinstance(total, int) or total < 0:
            raise WorkspaceError(f"There is no file {name[:200]} in the sandbox.", hint="%agent files")
        if total > _MAX_FILE:
            raise WorkspaceError(
                f"{name} is too large to be copied from the sandbox.",
                why=f"It has {mib(total)}; {self.box.engine.title}'s SDK holds a file in memory.",
                hint=f"Pieces of up to {mib(_MAX_FILE)} can be copied.",
            )
        data = self.box.request(lambda: self.box.engine.read(f"{self.box.folder}/{name}"), _COPY_S)
        if len(data) != total:
            raise WorkspaceError(f"Cannot copy {name} from the sandbox.", why="It did not arrive whole.")
        with replacing(destination, Path(name).name) as writer:
            writer.write(data)

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the sandbox's folder."""
        self.box.ready()
        files = self._ask("list", "list the files").get("files")
        return file_infos(files)

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Let pip in the sandbox install wheels.

        Raises:
            UsageError: one is not a name of a package.
            ExecutorError: pip failed.
        """
        wanted = requirements(packages)
        if not wanted:
            return []
        self.box.ready()
        names = ", ".join(wanted)
        answer = self._ask("pip", f"install {names}", {"packages": wanted}, timeout_s=PIP_S + _MARGIN_S)
        added = answer.get("added")
        if not isinstance(added, list):
            why = f"pip in the sandbox says: {said(answer.get('problem', 'nothing'))}."
            raise ExecutorError(f"Cannot install {names}.", executor=self.name, why=why)
        return [str(each)[:200] for each in added[:_MAX_ADDED] if str(each).isprintable()]

    def _ask(
        self, what: str, doing: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = CALL_S
    ) -> Mapping[str, object]:
        """Ask the far end.

        Raises:
            WorkspaceError: the sandbox's system refuses.
            ExecutorError: it does not answer.
        """
        try:
            answer = self.box.call(what, arguments, timeout_s=timeout_s)
        except CloudFailure as failure:
            if failure.kind == "late":
                self.box.spoiled = True
            raise self.box.error(failure) from None
        except KeyboardInterrupt:
            try:
                self.box.interrupt()  # it may go on over there
            except CloudFailure:
                self.box.spoiled = True
            raise
        if not answer:
            raise ExecutorError(
                f"Cannot {doing}: the sandbox gave no answer.", executor=self.name, hint="%agent restart"
            )
        if "error" in answer:
            raise WorkspaceError(f"Cannot {doing}.", why=f"The sandbox says: {said(answer['error'])}.")
        return answer
