"""Which folder a sandbox works in: one for each notebook, where the notebook is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import SettingsError, WorkspaceError
from .settings import Settings

SUFFIX = ".sandbox"
_SESSION = "JPY_SESSION_NAME"
"""Servers that start kernels put the notebook's path here."""


def environment_of(notebook: Path) -> dict[str, str]:
    """Tells a kernel that no server starts which notebook it is for; none, unless `notebook` is a file."""
    try:
        return {_SESSION: str(notebook.resolve()) if notebook.is_file() else ""}
    except OSError:
        return {_SESSION: ""}


def notebook_path(variables: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Path | None:
    """The notebook of this kernel, where the front end says it; None elsewhere.

    Args:
        variables: the reader's own; VS Code puts `__vsc_ipynb_file__` there.
        environ: the environment; JPY_SESSION_NAME is taken from it.
    """
    environ = os.environ if environ is None else environ
    for value in (variables.get("__vsc_ipynb_file__"), environ.get(_SESSION)):
        # A console or a shared document has another kind of name there.
        if isinstance(value, str) and value.endswith(".ipynb"):
            path = Path(value)
            try:
                if path.is_file():
                    return path.resolve()
            except OSError:
                continue
    return None


def data_dir() -> Path:
    """The user's data folder of this package: what requests cost, and the log of DEBUG. It need not exist yet.

    XDG_DATA_HOME or ~/.local/share, ~/Library/Application Support, %LOCALAPPDATA%.
    """
    return _user_folder("XDG_DATA_HOME", ".local/share", mac="Application Support")


def cache_dir() -> Path:
    """The user's cache folder of this package; it need not exist yet.

    XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, %LOCALAPPDATA%.
    """
    return _user_folder("XDG_CACHE_HOME", ".cache", mac="Caches")


def _user_folder(variable: str, usual: str, *, mac: str) -> Path:
    """A few lines, so no dependency is taken for them: platformdirs comes by way of others only, and may stop to."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / mac
    else:
        named = os.environ.get(variable, "")
        base = Path(named) if named.startswith("/") else Path.home() / usual  # the standard ignores relative ones
    return base / "sandbox_agent_magic"


def workspace_folder(settings: Settings, *, given: Path | None, notebook: Path | None) -> Path | None:
    """The folder to work in, made if need be: what was given, AGENT_WORKSPACE, or `<notebook>.sandbox`; else None.

    Raises:
        SettingsError: a `.env` names a folder outside of its own.
        WorkspaceError: AGENT_WORKSPACE cannot be made, or the notebook's folder is a link.
    """
    if given is not None:
        return given
    if settings.agent_workspace is not None:
        folder = _from_setting(settings, settings.agent_workspace)
    else:
        return _beside(notebook) if notebook is not None else None
    reason = ""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise WorkspaceError(
            f"The folder {folder} for the sandbox cannot be made.",
            why=f"Reason: {reason}.",
            hint="Set AGENT_WORKSPACE to a folder that you may write to.",
        )
    return folder


def _beside(notebook: Path) -> Path | None:
    """The notebook's own folder; None where none can be made, as among files that are only to be read."""
    folder = notebook.with_name(f"{notebook.stem}{SUFFIX}")
    if folder.is_symlink():  # it may have come with the notebook, and lead anywhere
        raise WorkspaceError(
            f"{folder} is a link, so the sandbox cannot work there.",
            why=f"It leads to {os.path.realpath(folder)}, all of which code in the sandbox could read and write.",
            hint="Remove it; or, if you mean it, set AGENT_WORKSPACE to that folder in the environment.",
        )
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder


def _from_setting(settings: Settings, text: str) -> Path:
    """The sandbox reads and writes all of it, so a stranger's `.env` must not choose a folder of the reader's."""
    source = settings.source("AGENT_WORKSPACE")
    if source in ("environment", "argument") or settings.env_file is None:
        return Path(os.path.expanduser(text)).absolute()
    home = settings.env_file.parent.resolve()
    folder = (home / text).resolve()
    if text.startswith("~") or folder == home or not folder.is_relative_to(home):
        raise SettingsError(
            "AGENT_WORKSPACE has a value that is not allowed.",
            name="AGENT_WORKSPACE",
            source=source,
            why=f"It is {text[:60]!r}, from {source}: a .env may only name a folder below its own.",
            hint="Set it in the environment if you mean it.",
        )
    return folder
