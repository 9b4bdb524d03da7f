"""The composition root: settings, provider, executor, loop and notebook come together here, and live between cells."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Protocol

from . import bridge, context, folders
from .agent import Agent, Replay
from .agent import replay as run_again
from .errors import SandboxAgentError, UsageError
from .executors import create as create_executor
from .executors import set_limits
from .executors.installing import InstallingExecutor
from .notebook.cells import CellPlan
from .outputs import cap_text
from .prompts import result_text
from .providers import create as create_provider
from .sandbox import SandboxLimits
from .settings import Settings, load
from .types import (
    CellWriter,
    Event,
    ExecutionResult,
    Executor,
    FileInfo,
    Limits,
    Message,
    OutputHook,
    Provider,
    RunFinished,
    RunRequest,
    RunResult,
    StepFinished,
    Usage,
    Verdict,
)

_SHORT_NAMES = {"provider": "agent_provider", "executor": "agent_executor", "timeout": "agent_cell_timeout"}
_NOTE_BYTES = 800
"""Of a cell that the reader ran in the sandbox: enough for the model to know what exists."""
_MAX_CACHED_PROVIDERS = 4
_PROGRESS_BYTES = 50 << 20
"""Copying a larger file is worth showing."""

CopyHook = Callable[[str, int, int], None]
"""Told of a file's name, bytes done and bytes in all."""


class Watcher(Protocol):
    """Shows a run to the reader."""

    def __call__(self, event: Event) -> None:
        """Take one event."""

    def fail(self) -> None:
        """The run ended by an error, which is shown elsewhere."""


@dataclass(slots=True)
class _Turn:
    """What one cell added to the conversation."""

    cell_id: str | None
    messages: list[Message] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    """What ran well in the sandbox, for a replay."""


class _OpenGate:
    """Lets everything pass; consent to the local executor is asked for before a run begins."""

    def allow_request(self, estimate: Usage) -> Verdict:  # noqa: ARG002
        return Verdict(True)

    def allow_code(self, code: str) -> Verdict:  # noqa: ARG002
        return Verdict(True)


class Session:
    """One conversation with its sandbox. A context manager; close it when done.

    Args:
        workspace: folder that the sandbox works in; unless given, AGENT_WORKSPACE, else one beside the notebook, else a
            temporary one.
        notebook: the notebook that this session belongs to.
        **settings: any setting by its name in lower case, such as `agent_provider="local"` or `temperature=0`;
            `provider`, `executor` and `timeout` are short for `agent_provider`, `agent_executor`, `agent_cell_timeout`.
            They win over the environment and `.env`.

    Raises:
        SettingsError: a setting is unknown or has a bad value.
    """

    def __init__(
        self, *, workspace: Path | str | None = None, notebook: Path | None = None, **settings: object
    ) -> None:
        self._arguments = {_SHORT_NAMES.get(name, name): value for name, value in settings.items()}
        self._workspace = Path(workspace) if workspace is not None else None
        self._notebook = notebook
        self.folder: Path | None = None
        """The sandbox's folder, once it is in use; None for a temporary one."""
        self._provided: str | None = None
        """The CUSTOM_PACKAGES that the sandbox has."""
        self.on_copy: CopyHook | None = None
        """Shows how copying a big file goes on."""
        self._turns: list[_Turn] = []
        self._providers: dict[tuple[str, Settings], Provider] = {}
        self._executors: dict[str, Executor] = {}
        self.usage = Usage()
        """Of all runs of this session."""
        self.settings()

    def settings(self, overrides: Mapping[str, object] | None = None) -> Settings:
        """The settings as they are now; the `.env` is read again."""
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        return load({**self._arguments, **given})

    # ---- the main job -------------------------------------------------------------------------------------------

    def ask(
        self,
        prompt: str,
        *,
        files: Sequence[Path | str] = (),
        variables: Mapping[str, object] | None = None,
        overrides: Mapping[str, object] | None = None,
        yes: bool = False,
        watcher: Watcher | None = None,
    ) -> RunResult:
        """Work on `prompt` until there is an answer or a limit is reached.

        Args:
            prompt: the request.
            files: copied into the workspace and announced to the model.
            variables: become variables of the code; the model is told their names, types and shapes.
            overrides: settings for this run, by name in lower case; they win over the session's.
            yes: consent to run code in this process, with `executor="local"`.
            watcher: shows the run as it goes.

        Raises:
            UsageError: the prompt is empty, a file is missing, or consent is.
            SettingsError: a setting is bad or missing.
            ProviderError: a request failed for good.
            ExecutorError: code cannot be run.
        """
        request = RunRequest(prompt, files=tuple(Path(file) for file in files), variables=variables or {})
        return self.run(request, overrides=overrides, yes=yes, watcher=watcher)

    def run(
        self,
        request: RunRequest,
        *,
        overrides: Mapping[str, object] | None = None,
        yes: bool = False,
        watcher: Watcher | None = None,
        writer: Callable[[str], CellWriter] | None = None,
    ) -> RunResult:
        """Like `ask`, with the cells going to `writer` (called once with the run's id)."""
        settings = self.settings(overrides)
        if not request.prompt.strip():
            raise UsageError("There is no request.", hint="Write what you want below the %%agent line.")
        files = context.existing_files(request.files)
        executor = self._executor(settings, yes=yes)
        provider = self._provider(settings)
        self._check_variables(request, executor)
        run_id = secrets.token_hex(6)
        plan = CellPlan(
            run_id,
            keep=request.keep,
            cell_magic=executor.capabilities.cell_magic,
            provenance={"provider": provider.name, "model": provider.model, "executor": executor.name},
        )
        agent = Agent(
            provider,
            executor,
            limits=_limits(settings),
            temperature=settings.temperature,
            system_message=settings.system_message,
        )
        emit = _Emitter(watcher, writer(run_id) if writer else None, plan)
        conversation = self._conversation_before(request.cell_id)
        known = len(conversation)
        try:
            prompt = self._announce(request, files, executor, settings)
            result = agent.run(prompt, conversation, emit=emit, gate=_OpenGate(), run_id=run_id)
        except SandboxAgentError:
            if watcher is not None:
                watcher.fail()
            raise
        finally:
            codes = emit.codes if executor.name == "sandbox" else []
            self._turns.append(_Turn(request.cell_id, conversation[known:], codes))
        self.usage += result.usage
        return result

    def execute(self, code: str, *, on_output: OutputHook, cell_id: str | None = None) -> ExecutionResult:
        """Run the reader's own code in the sandbox, and let the model know of it.

        Raises:
            ExecutorError: code cannot be run.
        """
        settings = self.settings()
        executor = self._sandbox(settings)
        result = executor.execute(code, timeout_s=settings.agent_cell_timeout, on_output=on_output)
        note = f"I ran this cell:\n```python\n{cap_text(code, _NOTE_BYTES)}\n```\n"
        note += f"Output:\n{result_text(result, max_bytes=_NOTE_BYTES)}"
        self._conversation_before(cell_id)
        self._turns.append(_Turn(cell_id, [Message("user", note)], [code] if result.status == "ok" else []))
        return result

    # ---- over the border ----------------------------------------------------------------------------------------

    def send(self, values: Mapping[str, object]) -> list[bridge.SentVariable]:
        """Put `values` into the sandbox as variables, and let the model know their names, types and shapes.

        Raises:
            UsageError: a value cannot cross.
            MissingDependencyError: pyarrow is missing.
            ExecutorError: the sandbox did not take one.
        """
        executor = self._sandbox(self.settings())
        sent = [bridge.send(executor, name, value) for name, value in values.items()]
        self._turns.append(_Turn(None, [Message("user", bridge.variables_text(sent))]))
        return sent

    def take(self, name: str) -> object:
        """The value of the sandbox's variable `name`. Raises as `bridge.take`."""
        return bridge.take(self._sandbox(self.settings()), name)

    def files(self) -> Sequence[FileInfo]:
        """The files in the sandbox's folder."""
        return self._sandbox(self.settings()).list_files()

    def get_file(self, name: str, destination: Path, *, force: bool = False) -> Path:
        """Copy the sandbox's file `name` to `destination`, a file or a folder; returns where it is.

        Raises:
            UsageError: there is a file already, and no `force`.
            WorkspaceError: there is no such file, or it cannot be copied.
        """
        destination = destination.expanduser()
        if destination.is_dir():
            destination /= PurePosixPath(name).name
        if not force and os.path.lexists(destination):
            raise UsageError(f"{destination} exists.", hint="Add --force to replace it, or give another name.")
        self._sandbox(self.settings()).get_file(name, destination)
        return destination

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Install packages in the sandbox; returns what was added, as `name==version`. Raises as `Executor.install`."""
        return self._sandbox(self.settings()).install(packages)

    # ---- life ---------------------------------------------------------------------------------------------------

    def restart(self, *, replay: bool = False, on_output: OutputHook = lambda _: None) -> Replay:
        """Start the sandbox afresh: its variables are gone, its files and the conversation stay.

        Args:
            replay: run the cells that worked again, in order, up to the first that fails now.
            on_output: takes the replayed cells' outputs.

        Raises:
            ExecutorError: it cannot be started.
        """
        settings = self.settings()
        executor = self._executors.get("sandbox")
        if executor is not None:
            inner = executor.inner if isinstance(executor, InstallingExecutor) else executor
            set_limits(inner, SandboxLimits.of(settings))
            executor.restart()
        codes = [code for turn in self._turns for code in turn.codes]
        if not replay:
            return Replay(len(codes))
        executor = self._executor_named("sandbox", settings)
        return run_again(executor, codes, timeout_s=settings.agent_cell_timeout, on_output=on_output)

    def reset(self) -> None:
        """Forget the conversation and the sandbox's variables; its files stay if it has a folder of its own."""
        self._turns.clear()
        for executor in self._executors.values():
            executor.shutdown()
        self._executors.clear()
        self._provided = None
        if self.folder is not None and self.folder.suffix == folders.SUFFIX and self._workspace is None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # only an empty one can be removed
        self.folder = None

    def close(self) -> None:
        """End what this session started. A shared model server goes on until it is idle."""
        self.reset()
        for provider in self._providers.values():
            provider.close()
        self._providers.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def turns(self) -> int:
        """Cells that the conversation remembers."""
        return len(self._turns)

    @property
    def running(self) -> list[str]:
        """Names of the executors that were started."""
        return list(self._executors)

    def executor(self, name: str = "sandbox") -> Executor:
        """The session's executor of that name, made if need be. The session closes it."""
        return self._executor_named(name, self.settings())

    # ---- parts --------------------------------------------------------------------------------------------------

    def _conversation_before(self, cell_id: str | None) -> list[Message]:
        """All earlier messages; those of the same cell's earlier run are forgotten."""
        if cell_id is not None:
            self._turns = [turn for turn in self._turns if turn.cell_id != cell_id]
        return [message for turn in self._turns for message in turn.messages]

    def _check_variables(self, request: RunRequest, executor: Executor) -> None:
        if request.variables and not executor.capabilities.isolated:
            raise UsageError(
                "The code sees your variables already.",
                why=f"The {executor.name} executor runs it in your own kernel.",
                hint="Leave --send out.",
            )

    def _announce(self, request: RunRequest, files: Sequence[Path], executor: Executor, settings: Settings) -> str:
        """Bring files, packages and variables in; the prompt, with what the model is to know of them."""
        notes = [context.describe_file(file, self._put(file, executor)) for file in files]
        executor.start()  # it comes up while pip works and the first request is in flight
        packages = self._custom_packages(settings, executor)
        sent = [bridge.send(executor, name, value) for name, value in request.variables.items()]
        parts = (context.files_text(notes), bridge.variables_text(sent), packages, request.prompt.strip())
        return "\n\n".join(part for part in parts if part)

    def _put(self, file: Path, executor: Executor) -> FileInfo:
        show = self.on_copy
        if show is None or file.stat().st_size <= _PROGRESS_BYTES:
            return executor.put_file(file, file.name)
        return executor.put_file(file, file.name, on_progress=lambda done, total: show(file.name, done, total))

    def _custom_packages(self, settings: Settings, executor: Executor) -> str:
        """Install CUSTOM_PACKAGES, and say so to the model."""
        if settings.custom_packages is None or not executor.capabilities.install:
            return ""
        if self._provided != settings.custom_packages:
            executor.install([settings.custom_packages])
            self._provided = settings.custom_packages
        return f"Packages that are installed too: {settings.custom_packages}"

    def _sandbox(self, settings: Settings) -> Executor:
        """The sandbox, started, with the packages that it shall have."""
        executor = self._executor_named("sandbox", settings)
        executor.start()
        self._custom_packages(settings, executor)
        return executor

    def _provider(self, settings: Settings) -> Provider:
        # Settings that do not concern the provider would needlessly give a second connection.
        relevant = dataclasses.replace(settings, max_iterations=1, max_retry=0, temperature=0.0, agent_cell_timeout=1.0)
        key = (settings.agent_provider, relevant)
        if key not in self._providers:
            made = create_provider(settings)
            while len(self._providers) >= _MAX_CACHED_PROVIDERS:
                self._providers.pop(next(iter(self._providers))).close()
            self._providers[key] = made
        return self._providers[key]

    def _executor(self, settings: Settings, *, yes: bool) -> Executor:
        name = settings.agent_executor
        if name == "local":
            if settings.source("AGENT_EXECUTOR") != "argument":
                raise UsageError(
                    "The local executor runs code without a sandbox and must be chosen in the cell itself.",
                    why=f"AGENT_EXECUTOR=local comes from {settings.source('AGENT_EXECUTOR')}.",
                    hint="Write %%agent --executor local --yes, or remove that setting to use the sandbox.",
                )
            if not yes:
                raise UsageError(
                    "The local executor needs your consent.",
                    why="The model's code would run in your own kernel: it can read, change and delete your files.",
                    hint="Add --yes if you mean it, or leave --executor local out to use the sandbox.",
                )
        return self._executor_named(name, settings)

    def _executor_named(self, name: str, settings: Settings) -> Executor:
        if name not in self._executors:
            if name == "sandbox":
                self.folder = folders.workspace_folder(settings, given=self._workspace, notebook=self._notebook)
            made = create_executor(name, workspace=self.folder, limits=SandboxLimits.of(settings))
            installs = made.capabilities.install
            self._executors[name] = InstallingExecutor(made) if installs else made
        executor = self._executors[name]
        if isinstance(executor, InstallingExecutor):
            executor.automatic = settings.agent_auto_install
        return executor


class _Emitter:
    """Hands each event to the watcher, and the cells that follow from it to the writer."""

    def __init__(self, watcher: Watcher | None, writer: CellWriter | None, plan: CellPlan) -> None:
        self._watcher = watcher
        self._writer = writer
        self._plan = plan
        self.codes: list[str] = []
        """Of the steps that worked."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.result.status == "ok":
            self.codes.append(event.step.code)
        if self._writer is not None and isinstance(event, StepFinished):
            for cell in self._plan.step(event.step):
                self._writer.add(cell)
        if self._writer is not None and isinstance(event, RunFinished):
            for cell in self._plan.finish(event.result):
                self._writer.add(cell)
            self._writer.finish(event.result)
        if self._watcher is not None:
            self._watcher(event)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_iterations=settings.max_iterations,
        max_retry=settings.max_retry,
        request_timeout_s=settings.request_timeout,
        cell_timeout_s=settings.agent_cell_timeout,
    )
