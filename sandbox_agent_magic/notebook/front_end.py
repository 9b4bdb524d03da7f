"""Whether the Jupyter server in use has our front-end module: the kernel's environment often is another one.

Reads what `jupyter labextension list` reads, without importing JupyterLab.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NAME = "sandbox-agent-magic"


@dataclass(frozen=True, slots=True)
class ModuleState:
    """What one environment has of the module."""

    prefix: Path
    """The environment."""
    state: Literal["enabled", "disabled", "other version", "missing", "no jupyter"]
    version: str = ""
    running: bool = False
    """Whether a server of it runs now."""


def module_states(version: str) -> list[ModuleState]:
    """Of each environment whose Jupyter server runs; where none runs, of this one.

    Args:
        version: that the module should have.
    """
    running = sorted(set(_running_prefixes()))
    return [_state(prefix, version, running=bool(running)) for prefix in running or [Path(sys.prefix)]]


def _state(prefix: Path, version: str, *, running: bool) -> ModuleState:
    if not running and not (prefix / "share" / "jupyter" / "lab" / "static").is_dir():
        return ModuleState(prefix, "no jupyter")
    found = next(filter(None, (_version(folder) for folder in _labextensions(prefix))), "")
    if not found:
        return ModuleState(prefix, "missing", running=running)
    if _is_disabled(prefix):
        return ModuleState(prefix, "disabled", found, running)
    return ModuleState(prefix, "enabled" if found == version else "other version", found, running)


def _running_prefixes() -> Iterator[Path]:
    """Environments of this user's running servers, as far as the system tells."""
    from jupyter_core.paths import jupyter_runtime_dir

    for file in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        pid = re.sub(r"\D", "", file.stem)
        try:
            python = Path(os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]))
        except OSError:  # it has ended, or this is not Linux
            continue
        # Not resolved: an environment's python is a link to the one that made it.
        if python.is_absolute() and python.parent.name == "bin":
            yield python.parent.parent


def _of_environment(prefix: Path, folders: list[str]) -> list[Path]:
    """Jupyter's folders as a process of `prefix` sees them."""
    here = str(Path(sys.prefix))
    return [prefix / Path(folder).relative_to(here) if folder.startswith(here) else Path(folder) for folder in folders]


def _labextensions(prefix: Path) -> list[Path]:
    from jupyter_core.paths import jupyter_path

    return [folder / NAME for folder in _of_environment(prefix, jupyter_path("labextensions"))]


def _version(folder: Path) -> str:
    described = _read(folder / "package.json")
    load = described.get("jupyterlab", {}).get("_build", {}).get("load", "")
    return str(described.get("version", "")) if load and (folder / load).is_file() else ""


def _is_disabled(prefix: Path) -> bool:
    from jupyter_core.paths import jupyter_config_path

    for folder in _of_environment(prefix, jupyter_config_path()):  # what comes first counts
        listed = _read(folder / "labconfig" / "page_config.json").get("disabledExtensions", {})
        names = dict.fromkeys(listed, True) if isinstance(listed, list) else listed
        for name in (NAME, f"{NAME}:plugin"):
            if name in names:
                return bool(names[name])
    return False


def _read(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
