"""The providers' SDKs: whether one can be imported, and why not."""

from __future__ import annotations

import importlib

from ...errors import MissingDependencyError

_OTHERS = {"e2b": "Scalebox's", "scalebox": "E2B's"}
_SHARED = "connectrpc"
"""Both SDKs bring a module of this name, of different projects, with files of the same names."""


def check_installed(executor: str, module: str) -> None:
    """Import `module`, the SDK of `executor`.

    Raises:
        MissingDependencyError: it is not installed, or the other provider's SDK has overwritten a part of it.
    """
    try:
        importlib.import_module(module)
        return
    except ImportError as problem:
        name, why = str(problem.name).partition(".")[0], f"{problem.msg}."
        installed = not (isinstance(problem, ModuleNotFoundError) and name == module.partition(".")[0])
    error = MissingDependencyError(f"The executor {executor} cannot be loaded.", extra=executor, why=why)
    if installed and name == _SHARED:
        error.why = (
            f"The SDKs of Scalebox and E2B cannot share an environment: both bring a module {_SHARED} ({why[:-1]})."
        )
        error.hint = (
            f"Make an environment without {_OTHERS[executor]}: "
            f'pip install "sandbox-agent-magic[{executor}]" in a new one.'
        )
    raise error
