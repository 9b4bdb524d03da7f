"""What a reader does with a session's engines himself: variables, files and packages, restart, what is running."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from .. import bridge
from ..agent import Replay
from ..agent import replay as run_again
from ..errors import UsageError
from ..executors import CLOUDS
from ..executors.engines import EngineInfo, RentsEngines, engines_of, rented
from ..settings import Settings, load
from ..types import Executor, FileInfo, Message, OutputHook
from .resources import CopyHook, Resources


@dataclass(slots=True)
class Turn:
    """What one cell added to the conversation."""

    cell_id: str | None
    messages: list[Message] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    """What ran well, for a replay."""
    sent: tuple[str, ...] = ()
    """Names of the reader's variables that were sent before it."""
    executor: str = "sandbox"
    """Where the codes ran."""


class EngineVerbs:
    """The part of a `Session` that no model takes part in."""

    _resources: Resources
    _turns: list[Turn]
    _arguments: dict[str, object]

    def settings(self, overrides: Mapping[str, object] | None = None) -> Settings:
        """The settings as they are now; the `.env` is read again."""
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        return load({**self._arguments, **given})

    # ---- over the border ----------------------------------------------------------------------------------------

    def send(self, values: Mapping[str, object]) -> list[bridge.SentVariable]:
        """Put `values` into the sandbox as variables, and let the model know their names, types and shapes.

        Raises:
            UsageError: a value cannot cross.
            MissingDependencyError: pyarrow is missing.
            ExecutorError: the sandbox did not take one.
        """
        executor = self._resources.engine(self.settings())
        sent = [bridge.send(executor, name, value) for name, value in values.items()]
        note = Message("user", bridge.variables_text(sent))
        self._turns.append(Turn(None, [note], sent=tuple(values), executor=executor.name))
        return sent

    def take(self, name: str, *, executor: str = "") -> object:
        """The value of the sandbox's, or another executor's, variable `name`. Raises as `bridge.take`."""
        return bridge.take(self._resources.engine(self.settings(), executor), name)

    def files(self) -> Sequence[FileInfo]:
        """The files in the sandbox's folder."""
        return self._resources.engine(self.settings()).list_files()

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
        self._resources.engine(self.settings()).get_file(name, destination)
        return destination

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Install packages in the sandbox; returns what was added, as `name==version`. Raises as `Executor.install`."""
        return self._resources.engine(self.settings()).install(packages)

    # ---- life ---

    def restart(
        self,
        *,
        replay: bool = False,
        variables: Mapping[str, object] | None = None,
        on_output: OutputHook = lambda _: None,
    ) -> Replay:
        """Start the sandbox afresh: its variables are gone, its files and the conversation stay.

        Args:
            replay: run the cells that worked again, in order, up to the first that fails now.
            variables: the reader's; those that had been sent are sent again, as they are now.
            on_output: takes the replayed cells' outputs.

        Raises:
            ExecutorError: it cannot be started.
            UsageError: a variable cannot cross any more.
        """
        settings = self.settings()
        self._resources.restart(settings)
        name = self._resources.engine_name(settings)
        turns = [turn for turn in self._turns if turn.executor == name]
        known = sum(len(turn.codes) for turn in turns)
        if not replay:
            return Replay(known)
        executor = self._resources.named(name, settings)
        sent: dict[str, bool] = {}
        done = 0
        part = Replay(known, asked=True)
        for turn in turns:
            for variable in turn.sent:
                sent[variable] = variable in (variables or {})
                if variables is not None and sent[variable]:
                    bridge.send(executor, variable, variables[variable])
            part = run_again(executor, turn.codes, timeout_s=settings.agent_cell_timeout, on_output=on_output)
            done += part.done
            if part.failure is not None:
                break
        names = tuple(variable for variable, again in sent.items() if again)
        missing = tuple(variable for variable, again in sent.items() if not again)
        return replace(part, known=known, done=done, sent=names, unsent=missing)

    @property
    def folder(self) -> Path | None:
        """The sandbox's folder, once it is in use; None for a temporary one."""
        return self._resources.folder

    def show_copying(self, hook: CopyHook) -> None:
        """Let `hook` show how copying a big file goes on."""
        self._resources.on_copy = hook

    @property
    def running(self) -> list[str]:
        """Names of the executors that were started."""
        return list(self._resources.executors)

    def executor(self, name: str = "sandbox") -> Executor:
        """The session's executor of that name, made if need be. The session closes it."""
        return self._resources.named(name, self.settings())

    # ---- what is running ----------------------------------------------------------------------------------------

    def sandboxes(self, executor: str = "") -> list[EngineInfo]:
        """What runs code for this session now, and what else runs in a cloud under the same account.

        Args:
            executor: look there too, though it may not have run code yet; unless given, where the settings say.

        Raises:
            SettingsError: that executor's settings do not do.
            ExecutorError: a provider could not be asked.
        """
        settings = self.settings()
        executors = dict(self._resources.executors)
        if executor or settings.agent_executor in CLOUDS:
            name = executor or settings.agent_executor
            executors[name] = self._resources.named(name, settings, use=False)
        return [info for each in executors.values() for info in engines_of(each)]

    def sandbox_id(self, executor: str = "") -> str:
        """The id of what ran code last, or in that executor.

        Raises:
            UsageError: nothing ran.
        """
        name = executor or self._resources.engine_name(self.settings())
        running = self._resources.executors.get(name)
        rents = rented(running) if running is not None else None
        found = rents.engine_id() if rents else next((info.id for info in engines_of(running)), "") if running else ""
        if not found:
            raise UsageError(f"Nothing runs in {name} yet.", hint="%agent sandboxes lists all that run.")
        return found

    def keep_sandbox(self, executor: str = "") -> str:
        """Let the sandbox that ran code last go on after the end; returns its id. Raises UsageError."""
        found, rents = self.sandbox_id(executor), self._rented(executor)
        rents.keep()
        return found

    def end_sandbox(self, sandbox_id: str = "", *, executor: str = "") -> str:
        """End a sandbox in a cloud, this session's unless another one is named; returns its id.

        Raises:
            UsageError: there is none.
            ExecutorError: the provider could not be asked, or refuses.
        """
        found = sandbox_id or self.sandbox_id(executor)
        if not self._rented(executor).end(found):
            raise UsageError(f"There is no sandbox {found[:60]}.", hint="%agent sandboxes lists those that run.")
        return found

    def kept(self) -> list[EngineInfo]:
        """What goes on when this session ends."""
        found = []
        for name, each in self._resources.executors.items():
            rents = rented(each)
            if rents is not None and rents.kept():
                found.append(EngineInfo(name, rents.engine_id(), ""))
        return found

    def _rented(self, executor: str) -> RentsEngines:
        settings = self.settings()
        name = executor or self._resources.engine_name(settings)
        rents = rented(self._resources.named(name, settings, use=False)) if name in CLOUDS else None
        if rents is None:
            raise UsageError(
                f"What runs in {name} ends with this kernel.",
                hint="%agent reset ends it now. For a sandbox in a cloud: -e scalebox",
            )
        return rents
