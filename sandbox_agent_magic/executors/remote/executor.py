"""The executor of a Jupyter server, Kernel Gateway or Enterprise Gateway: code runs in a kernel over there."""

from __future__ import annotations

import atexit
import base64
import os
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import ExecutorError, MissingDependencyError, WorkspaceError
from ...outputs import OutputCollector, OutputLimits, mib
from ...types import Capabilities, ErrorInfo, ExecutionResult, ExecutionStatus, FileInfo, OutputHook, ProgressHook
from ..engines import EngineInfo
from ..execution import Execution
from ..names import inside as inside_name
from .kernel import Outcome, RemoteKernel
from .server import JupyterServer, Target
from .socket import SocketClosed

_GRACE_S = 10.0
"""After an interrupt, before the kernel is restarted: it has a way to go."""
_KEYBOARD_GRACE_S = 3.0
_CHUNK = 1 << 20
"""Of a file, in one request: tornado takes messages of up to 10 MiB."""
_MAX_FILES = 10_000
_MAX_NAME = 1_000


class RemoteExecutor:
    """Runs code in a kernel of a Jupyter server. How well that isolates is the server's business.

    Its rich output is cleaned as a sandbox's is. An own kernel works in a new folder of its own, and both are removed
    at `shutdown`; one that was there before is used as it is, and stays.

    Args:
        target: the server, and the kernel on it.
        limits: of the outputs of one execution.

    Raises:
        MissingDependencyError: the extra `remote` is not installed.
    """

    name = "remote"
    keeps_files = False
    capabilities = Capabilities(isolated=True, cell_magic="%%sandbox -e remote", label="isolated as its server does it")

    def __init__(self, target: Target, *, limits: OutputLimits | None = None) -> None:
        try:
            import requests  # noqa: F401
            import websocket  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "The remote executor cannot be loaded.", extra="remote", why=f"{error}."
            ) from None
        self.limits = limits or OutputLimits()
        self.trust_output = False
        """Rich output passes uncleaned from now on; sizes are bounded all the same."""
        self.owner_pid = os.getpid()
        self._kernel = RemoteKernel(JupyterServer(target), self.limits)
        self._spoiled = False
        """Nobody knows what the kernel is doing: restart it before the next execution."""
        self._execution: Execution | None = None
        """The last one that was sent."""
        _alive.add(self)

    def start(self) -> None:
        """Nothing yet: the kernel is started by what needs it first."""

    def recover(self) -> bool:
        """As `Recoverable.recover`: whether another kernel has taken the place of the one before."""
        self._ready()
        lost, self._kernel.lost = self._kernel.lost, False
        return lost

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """As `Executor.execute`."""
        began = time.monotonic()
        collector = OutputCollector(on_output, limits=self.limits, trusted=self.trust_output)
        self._execution = None
        status: ExecutionStatus = "interrupted"
        error: ErrorInfo | None = None
        try:
            self._ready()
            self._spoiled = True  # until the end is known: a second Ctrl-C may come at any moment
            status, error = self._settle(*self._run(code, collector, timeout_s))
        except KeyboardInterrupt:
            self._stop()
        execution = self._execution
        changed = self._changed(execution) if execution is not None and status != "died" and not self._spoiled else ()
        if error is None and status == "ok" and collector.breach:
            status, error = "error", ErrorInfo("OutputLimitExceeded", collector.breach)
        if error is not None:
            lines = [f"{error.ename}: {error.evalue}"]
            collector.add({"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": lines})
        outputs = collector.finish()
        if status == "error" and error is None and execution is not None:
            error = execution.error(outputs)
        lost, self._kernel.lost = self._kernel.lost, False
        return ExecutionResult(
            status=status,
            outputs=outputs,
            execution_count=execution.count if execution is not None else None,
            error=error,
            new_files=changed,
            duration_s=time.monotonic() - began,
            state_lost=lost,
        )

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""
        if self._spoiled:
            self._kernel.interrupt()

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""
        self._spoiled = False
        self._kernel.restart()
        self._kernel.lost = False  # it was asked for

    def shutdown(self) -> None:
        """End an own kernel and remove its folder. Idempotent."""
        self._kernel.close()
        self._spoiled = False
        _alive.discard(self)

    def engines(self) -> Sequence[EngineInfo]:
        """As `ListsEngines.engines`: the kernel, as far as is known here."""
        kernel = self._kernel
        if not kernel.folder:
            return ()
        note = "was there before, and stays" if kernel.borrowed else ""
        return [EngineInfo(self.name, kernel.kernel_id, kernel.server.target.shown, kernel.started, note)]

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy a file into the kernel's folder, in pieces through the kernel: what has no contents API works too."""
        name = inside_name(name)
        self._ready()
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

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the kernel's folder."""
        name = inside_name(name)
        self._ready()
        total = self._ask("size", f"copy {name}", {"name": name}).get("size")
        if not isinstance(total, int) or total < 0:
            raise WorkspaceError(f"There is no file {name[:200]} in the remote kernel's folder.", hint="%agent files")
        destination = destination / Path(name).name if destination.is_dir() else destination
        part, temporary = tempfile.mkstemp(dir=destination.parent, prefix=".part-")
        try:
            with open(part, "wb") as writer:
                while writer.tell() < total:
                    size = min(_CHUNK, total - writer.tell())
                    writer.write(self._piece(name, writer.tell(), size))
            os.chmod(temporary, 0o644)
            os.replace(temporary, destination)
        except BaseException:
            os.unlink(temporary)
            raise

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the kernel's folder."""
        self._ready()
        files = self._ask("list", "list the files").get("files")
        return _infos(files if isinstance(files, list) else [])

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Refuse: the environment over there may be shared.

        Raises:
            ExecutorError: always.
        """
        raise ExecutorError(
            "Packages are not installed on a Jupyter server.",
            executor=self.name,
            why="Its environment may be shared with others.",
            hint=f"Do it yourself, if it is yours: %%sandbox -e remote, and below it %pip install {' '.join(packages)}",
        )

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        if self._spoiled:
            self._spoiled = False
            self._kernel.restart()
        self._kernel.ready()

    def _run(self, code: str, collector: OutputCollector, timeout_s: float) -> tuple[Execution, Outcome]:
        """Send the code and follow it; once more if the kernel was still clearing its queue."""
        for attempt in (1, 2):
            try:
                execution = self._kernel.begin(code, collector, timeout_s=timeout_s)
                self._execution = execution
            except SocketClosed:
                self._kernel.ready()  # it went down since: this connects anew
                continue
            outcome = self._kernel.follow(execution, execution.deadline)
            if attempt == 2 or not (outcome == "done" and execution.aborted):
                return execution, outcome
        raise ExecutorError(
            "The connection to the remote kernel does not hold.", executor=self.name, hint="Try again; %agent restart."
        )

    def _settle(self, execution: Execution, outcome: Outcome) -> tuple[ExecutionStatus, ErrorInfo | None]:
        """What the outcome means; brings the kernel back to order."""
        if outcome == "done":
            self._spoiled = False
            return ("ok" if execution.succeeded else "error"), None
        if outcome == "died":
            self._spoiled = False
            self._kernel.died()
            return "died", ErrorInfo("KernelDied", "The remote kernel ended while the code ran.")
        if outcome == "cut":
            self._spoiled = False
            text = "The connection to the Jupyter server was cut while the code ran, and did not come back."
            return "died", ErrorInfo("ConnectionLost", text)
        if outcome == "large":
            self._kernel.reconnect()
        self._interrupt_and_wait(execution, _GRACE_S)
        if outcome == "late":
            return "timeout", ErrorInfo(
                "CellTimeout",
                f"The code was stopped after {execution.timeout_s:g} seconds (AGENT_CELL_TIMEOUT, --timeout).",
            )
        if outcome == "large":
            limit = mib(self.limits.message_bytes)
            text = f"The code was stopped: one message may have {limit} (AGENT_LIMIT_MESSAGE)."
            return "error", ErrorInfo("OutputLimitExceeded", text)
        return "error", ErrorInfo(
            "OutputLimitExceeded",
            f"The code was stopped: it sent more than {self.limits.messages:,} messages (AGENT_LIMIT_MESSAGES).",
        )

    def _interrupt_and_wait(self, execution: Execution, grace_s: float) -> None:
        """Interrupt the code; a kernel that does not heed it stays spoiled, and is restarted before the next code."""
        try:
            self._kernel.interrupt()
            outcome = self._kernel.follow(execution, time.monotonic() + grace_s)
        except ExecutorError:
            return
        self._spoiled = outcome != "done"

    def _stop(self) -> None:
        """Ctrl-C: stop the code; a second one leaves that to a restart."""
        if self._spoiled and self._execution is not None:
            try:
                self._interrupt_and_wait(self._execution, _KEYBOARD_GRACE_S)
            except KeyboardInterrupt:
                self._spoiled = True

    def _changed(self, execution: Execution) -> tuple[FileInfo, ...]:
        try:
            return tuple(_infos(self._kernel.changes(execution)))
        except (SocketClosed, ExecutorError):
            return ()  # the next execution finds out what is the matter

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
                f"Cannot {what}: the connection to the remote kernel was cut.", executor=self.name, hint="Try again."
            ) from None
        if not answer:
            raise ExecutorError(
                f"Cannot {what}: the remote kernel gave no answer.", executor=self.name, hint="%agent restart"
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


def _infos(rows: Sequence[object]) -> list[FileInfo]:
    """Names and sizes that may be ones; what the kernel says is a claim."""
    found = []
    for row in rows[:_MAX_FILES]:
        match row:
            case [str(name), int(size)] if size >= 0 and len(name) <= _MAX_NAME and name.isprintable():
                found.append(FileInfo(name, size))
    return found


_alive: weakref.WeakSet[RemoteExecutor] = weakref.WeakSet()


@atexit.register
def _shutdown_all() -> None:
    for executor in list(_alive):
        if executor.owner_pid == os.getpid():
            executor.shutdown()
