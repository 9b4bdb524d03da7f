"""`%%agent`, `%agent` and `%%sandbox`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .magics import AgentMagics
from .shown import AgentInterrupted

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["AgentInterrupted", "AgentMagics", "register", "unregister"]


def register(shell: InteractiveShell) -> None:
    """Register the magics with `shell`, once."""
    import atexit

    magics = AgentMagics(shell)
    shell.register_magics(magics)
    atexit.register(magics.close)


def unregister(shell: InteractiveShell) -> None:
    """Close the session; the magics' names go too."""
    magics = shell.magics_manager.registry.get("AgentMagics")
    if magics is not None:
        magics.close()
    for kind, name in (("cell", "agent"), ("line", "agent"), ("cell", "sandbox")):
        shell.magics_manager.magics[kind].pop(name, None)
