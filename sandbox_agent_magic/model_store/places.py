"""Where the models' files are, and which are there."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelStoreError
from ..folders import cache_dir
from .catalogue import MODELS, ModelInfo


def models_dir() -> Path:
    """The folder of the models' files."""
    return cache_dir() / "models"


def known() -> tuple[ModelInfo, ...]:
    """The models that can be fetched by name."""
    return MODELS


def find(name: str) -> ModelInfo:
    """The model of this name.

    Raises:
        ModelStoreError: there is none.
    """
    for info in MODELS:
        if info.name == name:
            return info
    raise ModelStoreError(f"There is no model {name!r} to fetch.", hint=f"Models: {_names()}.")


def installed(name: str) -> Path | None:
    """The file of a listed model, if it is here. Its hash was checked when it came."""
    for info in MODELS:
        path = models_dir() / info.file_name
        if info.name == name and path.is_file():
            return path
    return None


def is_present(name_or_path: str) -> bool:
    """Whether `resolve` would find a file."""
    try:
        resolve(name_or_path)
    except ModelStoreError:
        return False
    return True


def resolve(name_or_path: str) -> Path:
    """The file of a listed model, or of any .gguf path.

    Raises:
        ModelStoreError: it is not here, or no model at all.
    """
    if any(info.name == name_or_path for info in MODELS):
        path = installed(name_or_path)
        if path is None:
            raise ModelStoreError(
                f"The embedded model {name_or_path} is not on this machine.",
                why=f"AGENT_LOCAL_MODEL={name_or_path}, and {models_dir()} has no such file.",
                hint=f"Fetch it with: sandbox-agent model pull {name_or_path}",
            )
        return path
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() != ".gguf":
        raise ModelStoreError(
            f"There is no embedded model {name_or_path!r}.",
            why=f"AGENT_LOCAL_MODEL must be one of {_names()}, or the path of a .gguf file.",
            hint=f"Fetch one with: sandbox-agent model pull {MODELS[0].name}",
        )
    if not path.is_file():
        raise ModelStoreError(
            f"There is no file {name_or_path}.",
            why=f"AGENT_LOCAL_MODEL is read as a path, since it ends in .gguf; seen from {Path.cwd()}.",
            hint=f"Give the file's full path, or fetch a model with: sandbox-agent model pull {MODELS[0].name}",
        )
    return path.resolve()


def remove(name: str) -> bool:
    """Delete the file of a listed model, and what an unfinished pull left; whether the file was there.

    Raises:
        ModelStoreError: there is no model of this name, or its file cannot be deleted.
    """
    from .fetch import discard_partial

    info = find(name)
    try:
        discard_partial(info)
        (models_dir() / info.file_name).unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise ModelStoreError(f"The file of {name} cannot be deleted.", why=f"{exc.filename}: {exc.strerror}") from None
    return True


def _names() -> str:
    return ", ".join(info.name for info in MODELS)
