"""Which program is run and which image is opened: not for a downloaded folder to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_agent_magic import settings
from sandbox_agent_magic.errors import SettingsError
from sandbox_agent_magic.executors import create
from sandbox_agent_magic.executors.container import DEFAULT_IMAGE, Target, target_of


def from_env_file(folder: Path, line: str) -> settings.Settings:
    (folder / ".env").write_text(line + "\n")
    return settings.load(environ={}, folder=folder)


def from_environment(folder: Path, **variables: str) -> settings.Settings:
    return settings.load(environ=variables, folder=folder)


def test_by_default_it_is_the_image_that_the_command_line_makes(tmp_path: Path) -> None:
    assert target_of(from_environment(tmp_path)) == Target("auto", DEFAULT_IMAGE)


def test_the_environment_may_name_any(tmp_path: Path) -> None:
    chosen = from_environment(tmp_path, AGENT_CONTAINER_ENGINE="/opt/podman", AGENT_CONTAINER_IMAGE="lab/python:3")
    assert target_of(chosen) == Target("/opt/podman", "lab/python:3")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("AGENT_CONTAINER_ENGINE=./evil", "a downloaded folder must not name a program that is then run."),
        (
            "AGENT_CONTAINER_IMAGE=lab/private",
            "a downloaded folder must not open an image of yours, which may hold what is yours alone.",
        ),
    ],
)
def test_a_folders_env_file_may_not(line: str, reason: str, tmp_path: Path) -> None:
    name = line.partition("=")[0]
    chosen = from_env_file(tmp_path, line)
    with pytest.raises(SettingsError) as caught:
        create("container", settings=chosen)
    source = chosen.source(name)
    assert caught.value.lines() == [
        f"{line} is not taken from a .env.",
        f"It is set in {source}; {reason}",
        f"Remove it there. If you mean it, set {name} in the environment.",
    ]


@pytest.mark.parametrize("line", ["AGENT_CONTAINER_ENGINE=docker", f"AGENT_CONTAINER_IMAGE={DEFAULT_IMAGE}"])
def test_it_may_choose_between_the_usual_ones(line: str, tmp_path: Path) -> None:
    value = line.partition("=")[2]
    assert value in vars_of(target_of(from_env_file(tmp_path, line)))


def vars_of(target: Target) -> tuple[str, str]:
    return target.engine, target.image


@pytest.mark.parametrize("image", ["--privileged", "-v=/:/host", "two words", "a\nb"])
def test_an_image_that_would_be_an_option_is_refused(image: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="AGENT_CONTAINER_IMAGE has a value that is not allowed"):
        target_of(from_environment(tmp_path, AGENT_CONTAINER_IMAGE=image))
