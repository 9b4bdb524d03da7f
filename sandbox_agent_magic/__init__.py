"""`%%agent`: a model writes code in your notebook, a sandbox runs it, real cells come out.

Importing this package does nothing but name things: no SDK, no thread, no file is touched until an agent cell runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .errors import SandboxAgentError as SandboxAgentError
    from .session import Session as Session
    from .types import RunResult as RunResult

__version__ = "0.1.0"
__all__ = ["RunResult", "SandboxAgentError", "Session", "__version__", "load_ipython_extension"]

_WHERE = {"Session": "session", "RunResult": "types", "SandboxAgentError": "errors"}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register `%%agent`, `%agent` and `%%sandbox`; called by `%load_ext sandbox_agent_magic`."""
    from .magic import register

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Close what the extension opened; called by `%unload_ext sandbox_agent_magic`."""
    from .magic import unregister

    unregister(shell)
