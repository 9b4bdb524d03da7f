"""What works here and why not: for `sandbox-agent doctor`, `%agent` and `%agent config`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import SandboxAgentError
from .settings import TIERS, Settings

if TYPE_CHECKING:
    from .session import Session


_CALL_TOKENS = 64
"""Enough for a word, and for a reasoning model to begin."""
_CALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    """What was found, or what failed and what to do, on one or more lines."""


def checks(settings: Settings, *, call: bool = False) -> list[Check]:
    """Look at everything that the main job needs. Starts a sandbox; sends one list-models request to the provider.

    Args:
        settings: as they are now.
        call: also ask the model for one word, which costs a few tokens.
    """
    called = [_call(settings)] if call else []
    return [
        _python(),
        _provider(settings),
        *called,
        _sandbox(settings),
        _container(settings),
        _model(settings),
        _front_end(),
    ]


def conformance(settings: Settings, name: str) -> Iterator[Check]:
    """Hold the executor of that name to the promises of all executors, one check after the other.

    Raises:
        UsageError: there is no such executor.
        MissingDependencyError: what it needs is not installed.
    """
    from .executors import create
    from .executors.conformance import check
    from .executors.wrapping import unwrapped
    from .sandbox import SandboxLimits
    from .settings import sandbox_tier

    limits, tier = SandboxLimits.of(settings), sandbox_tier(settings)
    create(
        name, limits=limits, tier=tier, settings=settings
    ).shutdown()  # what is wrong with the name or the settings is said at once
    # Unwrapped: one that heals gives variables back that a promise says are gone.
    for found in check(lambda: unwrapped(create(name, limits=limits, tier=tier, settings=settings))):
        yield Check(f"{found.name} ({found.duration_s:.1f} s)", found.ok, found.detail)


def config_text(settings: Settings) -> str:
    """The settings with their values and sources, secrets masked."""
    lines = []
    if settings.env_file is not None:
        lines.append(f".env: {settings.env_file}")
    if settings.debug:
        from .folders import data_dir

        lines.append(f"DEBUG writes requests and replies to {data_dir() / 'requests.log'}")
    for row, value, source in settings.describe():
        lines.append(f"{row.name:24} {value or '-':24} {source}")
    return "\n".join(lines)


def status_text(session: Session) -> str:
    """What the agent of this kernel would use and has used."""
    from .display import amounts
    from .providers import select

    settings = session.settings()
    try:
        provider = select(settings) if settings.agent_provider == "auto" else settings.agent_provider
    except SandboxAgentError as exc:
        provider = f"none ({exc.message} sandbox-agent doctor says more.)"
    running = ", ".join(session.running) or "not started"
    kind = "" if settings.agent_sandbox == TIERS[0] else f", {settings.agent_sandbox}: weaker"
    return "\n".join(
        [
            f"provider      {provider}{f', model {settings.model}' if settings.model else ''}",
            f"executor      {settings.agent_executor}{kind} ({running})",
            f"conversation  {session.turns} cell{'s' if session.turns != 1 else ''}",
            f"used          {amounts(session.usage) or 'nothing yet'}",
            "more          %agent models, %agent cost, %agent config, %agent restart, %agent reset, %%agent?",
        ]
    )


def _python() -> Check:
    return Check(
        "python", True, f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    )


def _provider(settings: Settings) -> Check:
    from .providers import create

    try:
        provider = create(settings)
    except SandboxAgentError as exc:
        return Check("provider", False, "\n".join(exc.lines()))
    try:
        if provider.traits.small:
            return Check(
                "provider", True, f"{provider.name}, model {provider.model} (its server starts at the first request)"
            )
        names = provider.models()
    except SandboxAgentError as exc:
        return Check("provider", False, "\n".join(exc.lines()))
    finally:
        provider.close()
    # Azure lists models, which are not the names of its deployments.
    known = provider.model in names or provider.name == "azure"
    listed = "" if known or not names else f", which is not among the {len(names)} models that the server lists"
    return Check("provider", True, f"{provider.name}, model {provider.model}{listed}")


def _call(settings: Settings) -> Check:
    """One real request, as small as can be, entered into the book of costs as any other."""
    from .display import amounts
    from .ledger import Entry, Ledger
    from .providers import create
    from .types import Message, ModelRequest, no_text

    try:
        provider = create(settings)
    except SandboxAgentError as exc:
        return Check("call", False, "\n".join(exc.lines()))
    request = ModelRequest(
        (Message("user", "Reply with the word ok."),),
        max_output_tokens=_CALL_TOKENS,
        deadline_s=min(_CALL_S, settings.request_timeout),
    )
    begun = time.monotonic()
    try:
        reply = provider.complete(request, on_text=no_text)
    except SandboxAgentError as exc:
        return Check("call", False, "\n".join(exc.lines()))
    finally:
        provider.close()
    usage = reply.usage
    Ledger.of_user().enter(Entry("sandbox-agent doctor", "", provider.name, provider.model, usage))
    said = " ".join(reply.text.split())[:40]
    used = amounts(usage) or "tokens unknown"
    return Check(
        "call",
        True,
        f"{provider.model} answered {said!r} in {time.monotonic() - begun:.1f} s ({used})",
    )


def _sandbox(settings: Settings) -> Check:
    """Each launcher with its probes, then one run of a real kernel in it."""
    from .executors import create
    from .sandbox import check, memory_bound
    from .settings import sandbox_tier

    try:
        tier = sandbox_tier(settings)
    except SandboxAgentError as exc:
        return Check("sandbox", False, "\n".join(exc.lines()))
    report = check(tier=tier)
    probed = [attempt.probed() for attempt in report.attempts] + [*report.notes, memory_bound()]
    executor = create("sandbox", tier=tier)
    try:
        result = executor.execute("1 + 1", timeout_s=30, on_output=lambda _: None)
    except SandboxAgentError as exc:
        return Check("sandbox", False, "\n".join([*exc.lines(), *probed]))
    finally:
        executor.shutdown()
    found = (
        f"holds; first result in {result.duration_s:.1f} s" if result.status == "ok" else f"ended with {result.status}"
    )
    return Check("sandbox", result.status == "ok", "\n".join([found, *probed]))


def _container(settings: Settings) -> Check:
    """Whether there is an engine for `-e container`, and the image; nothing is started."""
    from .executors.container import target_of
    from .executors.container.engine import find

    chosen = settings.agent_executor == "container"
    try:
        target = target_of(settings)
        engine = find(target.engine)
    except SandboxAgentError as exc:
        return Check("container", not chosen, "\n".join(exc.lines()) if chosen else f"not used here: {exc.message}")
    found = f"{engine} ({engine.path})"
    if engine.inspect(target.image) is None:
        return Check("container", not chosen, f"{found}; no image {target.image} yet: sandbox-agent image build")
    weaker = f"; {engine.label}" if engine.label else ""
    return Check("container", True, f"{found}, image {target.image}{weaker}: %%agent -e container")


def _model(settings: Settings) -> Check:
    from . import model_store

    try:
        path = model_store.resolve(settings.agent_local_model)
    except SandboxAgentError as exc:
        return Check("embedded model", False, "\n".join(exc.lines()))
    if importlib.util.find_spec("xllamacpp") is None:
        hint = 'pip install "sandbox-agent-magic[local]"'
        return Check("embedded model", False, f"{path} is there, but xllamacpp is not installed.\nInstall it: {hint}")
    return Check("embedded model", True, str(path))


def _front_end() -> Check:
    """Whether the server in use has the module that makes cells of what an agent does."""
    from .notebook.front_end import NAME, module_states

    own = importlib.metadata.version(NAME)
    lines, ok = [], True
    for each in module_states(own):
        python = each.prefix / "bin" / "python"
        where = f"the running Jupyter server of {each.prefix}" if each.running else str(each.prefix)
        match each.state:
            case "enabled":
                lines.append(f"agents make real cells in JupyterLab and Notebook 7 (module {each.version} in {where})")
            case "no jupyter":
                lines.append(
                    "no JupyterLab or Notebook 7 in this environment; elsewhere code and outputs appear in the agent"
                    " cell, and sandbox-agent run and expand make real cells of them"
                )
            case "disabled":
                lines.append(f"the front-end module is disabled in {where}: results stay inside the agent cell.")
                lines.append(f"Enable it and reload the page: {python} -m jupyter labextension enable {NAME}")
            case "other version":
                lines.append(f"the front-end module in {where} is {each.version}, the kernel's side {own}.")
                lines.append(f"Install the same: {python} -m pip install {NAME}=={own}; then reload the page.")
            case "missing":
                lines.append(f"{where} lacks the front-end module: results stay inside the agent cell.")
                lines.append(f"Install it there: {python} -m pip install {NAME}; then reload the page.")
        ok = ok and each.state in ("enabled", "no jupyter")
    return Check("notebook", ok, "\n".join(lines))
