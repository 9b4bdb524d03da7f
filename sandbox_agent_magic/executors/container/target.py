"""The settings of the executor `container`, checked: a downloaded folder must not choose a program or an image."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SettingsError
from ...settings import Settings
from .engine import AUTO

DEFAULT_IMAGE = Settings.agent_container_image
"""What `sandbox-agent image build` makes."""
_ENGINE, _IMAGE = "AGENT_CONTAINER_ENGINE", "AGENT_CONTAINER_IMAGE"
_TRUSTED = ("argument", "environment", "default")


@dataclass(frozen=True, slots=True)
class Target:
    """Which engine shall make a container of which image."""

    engine: str = "auto"
    image: str = DEFAULT_IMAGE


def target_of(settings: Settings) -> Target:
    """What the settings say.

    Raises:
        SettingsError: a `.env` names a program to run, or an image; or the image's name is none.
    """
    engine, image = settings.agent_container_engine, settings.agent_container_image
    if engine not in ("auto", *AUTO):
        _refuse_from_env(settings, _ENGINE, engine, "must not name a program that is then run")
    if image != DEFAULT_IMAGE:
        _refuse_from_env(settings, _IMAGE, image, "must not open an image of yours, which may hold what is yours alone")
    if image.startswith("-") or not image.isprintable() or " " in image:
        raise SettingsError(
            f"{_IMAGE} has a value that is not allowed.",
            name=_IMAGE,
            source=settings.source(_IMAGE),
            why=f"It is {image[:60]!r}, from {settings.source(_IMAGE)}.",
            hint=f"An image's name looks like {DEFAULT_IMAGE}, or lab/python:3.12.",
        )
    return Target(engine, image)


def _refuse_from_env(settings: Settings, name: str, value: str, why: str) -> None:
    source = settings.source(name)
    if source in _TRUSTED:
        return
    raise SettingsError(
        f"{name}={value[:60]} is not taken from a .env.",
        name=name,
        source=source,
        why=f"It is set in {source}; a downloaded folder {why}.",
        hint=f"Remove it there. If you mean it, set {name} in the environment.",
    )
