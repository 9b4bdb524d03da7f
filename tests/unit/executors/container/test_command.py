"""The command line that makes a container: everything that isolates is said, whatever the engine's own defaults are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import WorkspaceError
from sandbox_agent_magic.executors.container.command import Wish, run_command
from sandbox_agent_magic.executors.container.engine import Engine
from sandbox_agent_magic.sandbox import SandboxLimits

PODMAN = Engine("/usr/bin/podman", podman=True, cpus=8)
DOCKER = Engine("/usr/bin/docker", podman=False, cpus=8)
WISH = Wish("lab/python:1", "sandbox-agent-1", Path("/data/work"), SandboxLimits(), uid=1234)


@pytest.mark.parametrize("engine", [PODMAN, DOCKER], ids=str)
def test_it_has_no_network_no_rights_and_one_writable_folder(engine: Engine) -> None:
    said = run_command(engine, WISH)
    assert {
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pull=never",
        "--rm",
        "--interactive",
        "--user=1234:1234",
        "--log-driver=none",
        "--mount=type=bind,source=/data/work,target=/workspace",
        "--hostname=sandbox",
        "--ipc=private",
    } <= set(said)
    assert not [word for word in said if word.startswith(("-p", "--publish", "--privileged", "--volume", "--device"))]
    assert said.count("--mount=type=bind,source=/data/work,target=/workspace") == 1
    assert said[said.index("lab/python:1") + 1 :][:3] == ["-I", "-u", "-c"]


def test_nothing_of_the_readers_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    said = run_command(DOCKER, WISH)
    assert "secret" not in " ".join(said)
    variables = [word for word in said if word.startswith("--env")]
    assert all(word.endswith("=") for word in variables)
    assert {"--env=HTTPS_PROXY=", "--env=https_proxy="} <= set(variables)


def test_podmans_own_defaults_are_switched_off() -> None:
    assert {"--http-proxy=false", "--env-host=false", "--image-volume=ignore", "--read-only-tmpfs=false"} <= set(
        run_command(PODMAN, WISH)
    )
    assert "--passwd=false" not in run_command(replace(PODMAN, version="3.4.4"), WISH)
    assert "--passwd=false" in run_command(replace(PODMAN, version="4.3.1"), WISH)
    there = run_command(replace(PODMAN, remote=True), WISH)
    assert "--env-host=false" not in there  # its client elsewhere does not know that, and cannot pass any on
    assert "--image-volume=ignore" in there


def test_limits_are_asked_for_where_the_engine_has_them() -> None:
    said = " ".join(run_command(DOCKER, WISH))
    assert "--memory=3087007744 --memory-swap=3087007744 --pids-limit=72 --cpus=2" in said
    bare = replace(PODMAN, memory=False, processes=False, cpus=0)
    said = " ".join(run_command(bare, WISH))
    assert "--memory" not in said
    assert "--pids-limit" not in said
    assert "--cpus" not in said
    assert bare.label == "memory and processes bounded from inside, without control groups"
    assert PODMAN.label == ""


def test_more_cpus_than_there_are_are_not_asked_for() -> None:
    assert "--cpus=1" in run_command(replace(DOCKER, cpus=1), WISH)


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user for granted")
@pytest.mark.may_skip
def test_an_ordinary_users_files_stay_his(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 100)
    ours = replace(WISH, uid=None)
    assert "--user=1000:100" in run_command(DOCKER, ours)
    rootless = run_command(replace(PODMAN, rootless=True), ours)
    assert {"--userns=keep-id", "--user=1000:100"} <= set(rootless)
    # There is no other mapping: root inside is the reader, without any right of root.
    assert "--user=0:0" in run_command(replace(DOCKER, rootless=True), ours)


def test_with_selinux_the_workspace_gets_the_containers_label() -> None:
    bind = "type=bind,source=/data/work,target=/workspace,relabel=private"
    assert f"--mount={bind}" in run_command(replace(PODMAN, selinux=True), WISH)
    assert "--volume=/data/work:/workspace:Z" in run_command(replace(DOCKER, selinux=True), WISH)


def test_volumes_that_an_image_declares_are_covered() -> None:
    volumes = replace(WISH, volumes=("/var/lib/data",))
    assert "--tmpfs=/var/lib/data:ro,size=64k" in run_command(DOCKER, volumes)
    assert not any("/var/lib/data" in word for word in run_command(PODMAN, volumes))


@pytest.mark.parametrize("name", ["a,readonly", 'a"b', "a\nb"])
def test_a_folder_whose_name_would_say_more_is_refused(name: str) -> None:
    with pytest.raises(WorkspaceError, match="cannot be a container's workspace"):
        run_command(PODMAN, replace(WISH, workspace=Path("/data", name)))
