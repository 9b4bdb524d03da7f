"""Resolve the settings: argument > environment > `.env` > default. Nothing is ever written into `os.environ`."""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ..errors import SettingsError
from .table import Secret, Setting, Settings, rows

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
# A name in the environment may belong to another program (build agents set AGENT_NAME, AGENT_ID and more): there, only
# a near miss of ours is worth a word.
_NEAR_MISS = 0.85


def load(
    arguments: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Read every source and return the settings.

    Args:
        arguments: values of the magic line, the command line or Python, by setting's name in lower case; None is unset.
        environ: the environment; the process's own unless given.
        folder: where the search for `.env` starts, going upward; the working directory unless given.

    Raises:
        SettingsError: a value is not allowed, a name is unknown, or the `.env` cannot be read.
    """
    environ = os.environ if environ is None else environ
    env_file = find_env_file(folder)
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("argument", {key.upper(): value for key, value in (arguments or {}).items()}),
        ("environment", environ),
    ]
    if env_file is not None:
        sources.append((_shown(env_file), _read(env_file)))
    for source, values in sources:
        _check_names(values, source)
    types = typing.get_type_hints(Settings)
    chosen: dict[str, object] = {}
    origin: dict[str, str] = {}
    for row in rows():
        for source, values in sources:
            found = _first(values, (row.name, *row.aliases))
            if found is not None:
                chosen[row.name.lower()] = _parse(row, types[row.name.lower()], found, source)
                origin[row.name] = source
                break
    made: Settings = Settings(**chosen, sources=MappingProxyType(origin), env_file=env_file)  # type: ignore[arg-type]
    return made


def find_env_file(folder: Path | None = None) -> Path | None:
    """The nearest `.env`, from `folder` (default: the working directory) upward."""
    try:
        start = (folder or Path.cwd()).resolve()
    except OSError:  # the working directory was removed
        return None
    for place in (start, *start.parents):
        candidate = place / ".env"
        try:
            if candidate.is_file():
                return candidate
        except OSError:
            continue
    return None


def _read(path: Path) -> dict[str, object]:
    from dotenv import dotenv_values  # lazily: importing the package reads nothing

    try:
        # No interpolation: `OPENAI_API_KEY=${ANTHROPIC_API_KEY}` in a stranger's .env would take the environment's key.
        return dict(dotenv_values(path, interpolate=False, encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not UTF-8 text"
        raise SettingsError(
            f"Cannot read {_shown(path)}.",
            name=".env",
            source=_shown(path),
            why=f"Reason: {reason}.",
            hint="Save it as UTF-8 text that you may read, or move it away.",
        ) from None


def _shown(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except (OSError, ValueError):
        return str(path)


def _first(values: Mapping[str, object], names: tuple[str, ...]) -> object | None:
    for name in names:
        value = values.get(name)
        if value is not None and value != "" and not (isinstance(value, str) and not value.strip()):
            return value
    return None


def _check_names(values: Mapping[str, object], source: str) -> None:
    known = {name for row in rows() for name in (row.name, *row.aliases)}
    for name in values:
        if name in known or (source != "argument" and not name.startswith("AGENT_")):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR_MISS if source == "environment" else 0.5)
        if source == "environment" and not near:
            continue
        raise SettingsError(
            f"There is no setting {name}.",
            name=name,
            source=source,
            why=f"It is set in: {source}.",
            hint=f"Did you mean {near[0]}?"
            if near
            else "The settings and their meaning: sandbox-agent doctor, env.example.",
        )


def _parse(row: Setting, hint: object, value: object, source: str) -> object:
    """`value` in the setting's own type."""
    kinds = typing.get_args(hint) or (hint,)
    text = str(value).strip()
    if Secret in kinds:
        return value if isinstance(value, Secret) else Secret(text)
    if bool in kinds:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise _bad(row, text, source, "true or false")
    if int in kinds or float in kinds:
        noun = "a whole number" if int in kinds else "a number"
        bounds = f"{noun} from {row.low:g} to {row.high:,.0f}" if row.low is not None and row.high is not None else noun
        try:
            number = int(text) if int in kinds else float(text)
        except ValueError:
            raise _bad(row, text, source, bounds) from None
        # The comparison is written so that NaN fails it too.
        if row.low is not None and row.high is not None and not row.low <= number <= row.high:
            raise _bad(row, text, source, bounds)
        return number
    if typing.get_origin(hint) is typing.Literal and text not in kinds:
        raise _bad(row, text, source, ", ".join(map(str, kinds)))
    return text


def _bad(row: Setting, text: str, source: str, allowed: str) -> SettingsError:
    return SettingsError(
        f"{row.name} has a value that is not allowed.",
        name=row.name,
        source=source,
        why=f"It is {text[:60]!r}, from {source}.",
        hint=f"Allowed: {allowed}.",
    )
