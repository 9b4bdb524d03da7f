"""What an engine tells of itself: programs that answer as podman and Docker of several kinds do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import SandboxUnavailable
from sandbox_agent_magic.executors.container.engine import find

PODMAN = {
    "host": {
        "cgroupControllers": ["memory", "pids", "cpu"],
        "cpus": 4,
        "security": {"rootless": True, "selinuxEnabled": True},
        "serviceIsRemote": False,
    },
    "version": {"Version": "5.4.2"},
}
DOCKER = {
    "ServerVersion": "28.2.2",
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "NCPU": 8,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
}


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    find.cache_clear()
    yield
    find.cache_clear()


def program(path: Path, answer: str, status: int = 0) -> str:
    path.write_text(
        f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\necho 'warning' >&2\necho 'cannot connect' >&2\nexit {status}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_a_podman_is_known_by_what_it_tells(tmp_path: Path) -> None:
    engine = find(program(tmp_path / "any-name", json.dumps(PODMAN)))
    assert (engine.podman, engine.rootless, engine.selinux, engine.remote) == (True, True, True, False)
    assert (engine.memory, engine.processes, engine.cpus, engine.major) == (True, True, 4, 5)
    assert (str(engine), engine.label) == ("podman 5.4.2", "")


def test_a_docker_is_known_by_what_it_tells(tmp_path: Path) -> None:
    engine = find(program(tmp_path / "any-name", json.dumps(DOCKER)))
    assert (engine.podman, engine.rootless, engine.selinux, engine.cpus) == (False, False, False, 8)
    assert (str(engine), engine.label) == ("Docker 28.2.2", "")


def test_what_cannot_be_bounded_is_said(tmp_path: Path) -> None:
    bare = {"host": {"cgroupControllers": [], "security": {"rootless": True}}}
    assert find(program(tmp_path / "podman", json.dumps(bare))).label.startswith("memory and processes bounded from")
    rootless = {**DOCKER, "PidsLimit": False, "SecurityOptions": ["name=rootless"]}
    engine = find(program(tmp_path / "docker", json.dumps(rootless)))
    assert engine.rootless
    assert engine.label == "processes bounded from inside, without control groups"


def test_of_two_the_one_that_answers_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path / "podman", "", status=125)
    program(tmp_path / "docker", json.dumps(DOCKER))
    assert find("auto").path == str(tmp_path / "docker")


@pytest.mark.parametrize(("answer", "status"), [("", 1), ("no JSON", 0), ("[1]", 0), (json.dumps(DOCKER), 1)])
def test_one_that_does_not_answer_is_refused_in_its_own_words(tmp_path: Path, answer: str, status: int) -> None:
    path = program(tmp_path / "docker", answer, status)
    with pytest.raises(SandboxUnavailable) as caught:
        find(path)
    assert caught.value.lines()[:2] == ["The container engine does not answer: docker.", f"{path}: cannot connect"]


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    path = program(tmp_path / "docker", "", status=1)
    with pytest.raises(SandboxUnavailable):
        find(path)
    program(tmp_path / "docker", json.dumps(DOCKER))
    assert find(path).version == "28.2.2"
