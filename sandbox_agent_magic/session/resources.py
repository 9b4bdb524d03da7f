"""What a session owns and closes: providers, executors, the sandbox's folder and its packages."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from .. import folders
from ..errors import UsageError
from ..executors import create as create_executor
from ..executors import set_limits
from ..executors.engines import rented
from ..executors.installing import InstallingExecutor
from ..executors.wrapping import unwrapped
from ..providers import create as create_provider
from ..sandbox import SandboxLimits
from ..settings import Settings, sandbox_tier
from ..types import Executor, FileInfo, Provider

_MAX_CACHED_PROVIDERS = 4
_PROGRESS_BYTES = 50 << 20
"""Copying a larger file is worth showing."""

CopyHook = Callable[[str, int, int], None]
"""Told of a file's name, bytes done and bytes in all."""


@runtime_checkable
class _Cleaning(Protocol):
    """An executor whose rich output is cleaned unless told otherwise."""

    trust_output: bool


class Resources:
    """Makes providers and executors when they are first asked for, and keeps them.

    Args:
        workspace: the sandbox's folder; None leaves it to the settings and the notebook.
        notebook: the notebook that it is for.
    """

    def __init__(self, *, workspace: Path | None, notebook: Path | None) -> None:
        self._workspace = workspace
        self._notebook = notebook
        self._providers: dict[tuple[str, Settings], Provider] = {}
        self.executors: dict[str, Executor] = {}
        """By name, those that were asked for."""
        self.folder: Path | None = None
        """The sandbox's folder, once it is in use; None for a temporary one."""
        self._last = ""
        """Name of the executor where code ran last, the reader's own kernel aside."""
        self._provided: str | None = None
        """The CUSTOM_PACKAGES that the sandbox has."""
        self.on_copy: CopyHook | None = None
        """Shows how copying a big file goes on."""

    def provider(self, settings: Settings) -> Provider:
        """The provider that the settings choose."""
        # Settings that do not concern the provider would needlessly give a second connection.
        relevant = dataclasses.replace(
            settings,
            max_iterations=1,
            max_retry=0,
            temperature=0.0,
            agent_cell_timeout=1.0,
            agent_trust_output=False,
            agent_insert="auto",
            agent_idle_timeout=60.0,
            agent_budget_usd=None,
            agent_session=None,
            agent_keep_sandbox=False,
        )
        key = (settings.agent_provider, relevant)
        if key not in self._providers:
            made = create_provider(settings)
            while len(self._providers) >= _MAX_CACHED_PROVIDERS:
                self._providers.pop(next(iter(self._providers))).close()
            self._providers[key] = made
        return self._providers[key]

    def executor(self, settings: Settings, *, yes: bool) -> Executor:
        """The executor that the settings choose; the local one only where the reader asked for it and said yes."""
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
        made = self.named(name, settings)
        if rented(made) is None:
            for option, setting in (("--session", "AGENT_SESSION"), ("--keep-sandbox", "AGENT_KEEP_SANDBOX")):
                if settings.source(setting) == "argument":
                    hint = f"Add -e scalebox, or leave {option} out."
                    raise UsageError(f"{option} is for sandboxes in a cloud.", hint=hint)
        return made

    def named(self, name: str, settings: Settings, *, use: bool = True) -> Executor:
        """The executor of that name, made if need be; another one if the settings name a sandbox that it cannot use."""
        session = settings.agent_session
        rents = rented(self.executors[name]) if name in self.executors else None
        if rents is not None and session and not rents.fits(session):
            self.executors.pop(name).shutdown()
        if name not in self.executors:
            tier = sandbox_tier(settings)
            if name in ("sandbox", "container"):
                self.folder = folders.workspace_folder(settings, given=self._workspace, notebook=self._notebook)
            made = create_executor(
                name, workspace=self.folder, limits=SandboxLimits.of(settings), tier=tier, settings=settings
            )
            installs = made.capabilities.install
            self.executors[name] = InstallingExecutor(made) if installs else made
        self._last = self._last if name == "local" or not use else name
        executor = self.executors[name]
        rents = rented(executor)
        if rents is not None and settings.agent_keep_sandbox:
            rents.keep()
        if isinstance(executor, InstallingExecutor):
            executor.automatic = settings.agent_auto_install
        return executor

    def engine(self, settings: Settings, name: str = "") -> Executor:
        """The executor of that name, started, with its packages; unless named, the one of `engine_name`."""
        executor = self.named(name or self.engine_name(settings), settings)
        executor.start()
        self.custom_packages(settings, executor)
        return executor

    def engine_name(self, settings: Settings) -> str:
        """The executor that `%agent files` and the like mean: where code ran last, else what the settings choose.

        The reader's own kernel is none: nothing has to cross a border there.
        """
        return self._last or ("sandbox" if settings.agent_executor == "local" else settings.agent_executor)

    def trust(self, executor: Executor, trusted: bool) -> None:
        """Whether `executor`'s rich output passes uncleaned, if it is cleaned at all."""
        inner = unwrapped(executor)
        if isinstance(inner, _Cleaning):
            inner.trust_output = trusted

    def put(self, file: Path, executor: Executor) -> FileInfo:
        """Bring a file of the reader in."""
        show = self.on_copy
        if show is None or file.stat().st_size <= _PROGRESS_BYTES:
            return executor.put_file(file, file.name)
        return executor.put_file(file, file.name, on_progress=lambda done, total: show(file.name, done, total))

    def custom_packages(self, settings: Settings, executor: Executor) -> str:
        """Install CUSTOM_PACKAGES, and say so to the model."""
        if settings.custom_packages is None or not executor.capabilities.install:
            return ""
        if self._provided != settings.custom_packages:
            executor.install([settings.custom_packages])
            self._provided = settings.custom_packages
        return f"Packages that are installed too: {settings.custom_packages}"

    def restart(self, settings: Settings) -> None:
        """Start the engine afresh, if it was started, with the limits that hold now."""
        executor = self.executors.get(self.engine_name(settings))
        if executor is not None:
            set_limits(unwrapped(executor), SandboxLimits.of(settings))
            executor.restart()

    def end_executors(self) -> None:
        """Shut all executors down; a folder of the sandbox's own stays if there is something in it."""
        for executor in self.executors.values():
            executor.shutdown()
        self.executors.clear()
        self._last = ""
        self._provided = None
        if self.folder is not None and self.folder.suffix == folders.SUFFIX and self._workspace is None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # only an empty one can be removed
        self.folder = None

    def close(self) -> None:
        """End everything. A shared model server goes on until it is idle."""
        self.end_executors()
        for provider in self._providers.values():
            provider.close()
        self._providers.clear()
