"""Where code runs: the registry of executors.

Built in: `sandbox`, `container`, `local`, `remote`, `scalebox` and `e2b`. Others come by the entry-point group
`sandbox_agent_magic.executors`, whose entries are classes that are called without arguments; they are loaded on use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError, UsageError
from ..types import Executor

if TYPE_CHECKING:
    from ..sandbox import SandboxLimits
    from ..settings import Settings
    from .cloud.e2b import E2BEngine
    from .cloud.scalebox import ScaleboxEngine

GROUP = "sandbox_agent_magic.executors"
BUILT_IN = ("sandbox", "container", "local", "remote", "scalebox", "e2b")
CLOUDS = ("scalebox", "e2b")
"""Those that rent a sandbox from a provider."""


def known() -> list[str]:
    """Names of all executors that can be asked for."""
    from importlib.metadata import entry_points

    return sorted({*BUILT_IN, *entry_points(group=GROUP).names})


def set_limits(executor: Executor, limits: SandboxLimits) -> None:
    """Let `executor`'s next start use these limits, if it has any."""
    from .container import ContainerExecutor
    from .sandbox import SandboxExecutor

    if isinstance(executor, SandboxExecutor | ContainerExecutor):
        executor.limits = limits


def create(
    name: str,
    *,
    workspace: Path | None = None,
    limits: SandboxLimits | None = None,
    tier: str = "bubblewrap",
    settings: Settings | None = None,
) -> Executor:
    """A new executor.

    Args:
        name: one of `known()`.
        workspace: folder that the code works in; a temporary one unless given.
        limits: what it may use; not for executors of others.
        tier: kind of the sandbox, `bubblewrap` or `landlock`.
        settings: of executors elsewhere: address, key; the current ones unless given.

    Raises:
        SettingsError: a setting that it needs is missing or bad.
        UsageError: there is none of that name.
        MissingDependencyError: what it needs is not installed.
    """
    if name == "sandbox":
        from .sandbox import SandboxExecutor

        return SandboxExecutor(workspace=workspace, limits=limits, tier=tier)
    if name == "local":
        from .local import LocalExecutor

        return LocalExecutor(limits=limits.outputs if limits is not None else None)
    if name == "container":
        from ..settings import load
        from .container import ContainerExecutor
        from .container import target_of as container_of
        from .healing import HealingExecutor

        container = container_of(settings or load())
        return HealingExecutor(ContainerExecutor(container, workspace=workspace, limits=limits))
    if name == "remote":
        from ..settings import load
        from .healing import HealingExecutor
        from .remote import RemoteExecutor, target_of

        outputs = limits.outputs if limits is not None else None
        return HealingExecutor(RemoteExecutor(target_of(settings or load()), limits=outputs))
    if name == "scalebox":
        from ..settings import load
        from .cloud.scalebox import ScaleboxEngine

        return _cloud(ScaleboxEngine, settings or load(), limits)
    if name == "e2b":
        from ..settings import load
        from .cloud.e2b import E2BEngine

        return _cloud(E2BEngine, settings or load(), limits)
    from importlib.metadata import entry_points

    try:
        entry = entry_points(group=GROUP)[name]
    except KeyError:
        raise UsageError(
            f"There is no executor {name!r}.", hint=f"Choose one of: {', '.join(known())} (-e, AGENT_EXECUTOR)."
        ) from None
    try:
        made: Callable[[], Executor] = entry.load()
    except ImportError as exc:
        raise MissingDependencyError(f"The executor {name!r} cannot be loaded.", extra=name, why=str(exc)) from None
    return made()


def _cloud(
    engine: type[ScaleboxEngine] | type[E2BEngine], settings: Settings, limits: SandboxLimits | None
) -> Executor:
    """The executor of a provider of cloud sandboxes."""
    from .cloud import CloudExecutor, target_of
    from .healing import HealingExecutor

    target = target_of(settings, engine.name, engine.title)
    outputs = limits.outputs if limits is not None else None
    return HealingExecutor(CloudExecutor(engine(target), target, limits=outputs))
