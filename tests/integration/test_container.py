"""Code in real containers: what is wrong with an engine or an image, losses, limits, and what a reader sees of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from IPython.testing.globalipapp import get_ipython, start_ipython

from sandbox_agent_magic import cli
from sandbox_agent_magic.errors import ExecutorError, KernelDied, SandboxUnavailable
from sandbox_agent_magic.executors.container import ContainerExecutor, Target
from sandbox_agent_magic.executors.container.engine import LABEL, find
from sandbox_agent_magic.executors.healing import HealingExecutor
from sandbox_agent_magic.sandbox import SandboxLimits
from sandbox_agent_magic.types import Executor
from tests.support.podman import BASE, IMAGE, Podman
from tests.support.sandbox import run, text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

Make = Callable[..., ContainerExecutor]


@pytest.fixture
def make(podman: Podman) -> Iterator[Make]:
    made: list[ContainerExecutor] = []

    def one(image: str = IMAGE, **more: object) -> ContainerExecutor:
        made.append(podman.executor(image, **more))
        return made[-1]

    yield one
    for executor in made:
        executor.shutdown()
    assert podman.containers() == []


def refusal(executor: Executor) -> list[str]:
    """The lines of the error that the first code ends with."""
    with pytest.raises(SandboxUnavailable) as caught:
        run(executor, "1")
    lines = caught.value.lines()
    assert 2 <= len(lines) <= 3
    return lines


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# ---- what is wrong with the engine ----------------------------------------------------------------------------------


def test_an_engine_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    get_one = "Install podman (podman.io) or Docker, or name one in AGENT_CONTAINER_ENGINE in the environment."
    assert refusal(ContainerExecutor()) == [
        "No container engine is found.",
        "neither podman nor docker is in PATH.",
        get_one,
    ]
    assert refusal(ContainerExecutor(Target("/opt/podman"))) == [
        "No container engine is found.",
        "AGENT_CONTAINER_ENGINE is /opt/podman.",
        get_one,
    ]


@pytest.mark.usefixtures("podman")
def test_an_engine_whose_service_does_not_run_is_said_in_its_own_words(tmp_path: Path) -> None:
    client = script(tmp_path / "podman", f'exec podman --remote --url unix://{tmp_path}/none.sock "$@"')
    message, why, hint = refusal(ContainerExecutor(Target(client)))
    assert message == "The container engine does not answer: podman."
    assert why.startswith(f"{client}: ")
    assert "none.sock" in why
    assert hint.startswith("Start it: Docker Desktop, `podman machine start`, or `sudo systemctl start docker`")


@pytest.mark.usefixtures("podman")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without rights")
def test_an_engine_that_one_may_not_use_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as service:
        path = f"/tmp/locked-{os.getpid()}.sock"
        service.bind(path)
        os.chmod(path, 0o600)
        service.listen()
        try:
            home = f"/tmp/home-{os.getpid()}"
            as_nobody = f"HOME={home} XDG_RUNTIME_DIR={home} exec setpriv --reuid 54321 --regid 54321 --clear-groups"
            make_home = f"mkdir -p {home}; chown 54321 {home}"
            client = script(tmp_path / "podman", f'{make_home}\n{as_nobody} podman --remote --url unix://{path} "$@"')
            message, why, hint = refusal(ContainerExecutor(Target(client)))
        finally:
            os.unlink(path)
            shutil.rmtree(home, ignore_errors=True)
    assert message == "The container engine does not answer: podman."
    assert "permission denied" in why
    assert "you must be allowed" in hint


# ---- what is wrong with the image -----------------------------------------------------------------------------------


def test_an_image_that_is_not_there_is_said_with_the_command_that_makes_it(make: Make) -> None:
    message, why, hint = refusal(make("lab/none"))
    assert message == "There is no image lab/none."
    assert why.startswith("podman ")
    assert "AGENT_CONTAINER_IMAGE" in why
    assert hint == "Make it: sandbox-agent image build --tag lab/none"


def test_an_image_without_ipykernel_is_said(make: Make) -> None:
    assert refusal(make(BASE)) == [
        f"The image {BASE} has no ipykernel.",
        "Its python3 cannot import ipykernel and zmq.",
        "sandbox-agent image build makes an image that fits.",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("FROM scratch\nCOPY Containerfile /\n", "The container could not start python3 in the image {}."),
        (
            f"FROM {BASE}\nENV PATH=/other\nCOPY --from={BASE} /usr/bin/true /other/python3\n",
            "The container of the image {} ended while it started.",
        ),
    ],
    ids=["none", "another program"],
)
def test_an_image_whose_python_does_not_run_is_said(
    change: str, message: str, make: Make, podman: Podman, tmp_path: Path
) -> None:
    (tmp_path / "Containerfile").write_text(change)
    podman("build", "--network=none", "--tag=localhost/broken", str(tmp_path))
    try:
        lines = refusal(make("localhost/broken"))
        assert lines[0] == message.format("localhost/broken")
        assert lines[-1] == "sandbox-agent image build makes an image that fits."
    finally:
        podman("rmi", "--force", "localhost/broken")


def test_a_folder_that_an_image_declares_as_a_volume_is_not_writable(
    make: Make, podman: Podman, tmp_path: Path
) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {IMAGE}\nVOLUME /opt\n")
    podman("build", "--network=none", "--tag=localhost/volume", str(tmp_path))
    result = run(make("localhost/volume"), "open('/opt/beside-the-limit', 'w')")
    assert result.error is not None
    assert result.error.ename in ("PermissionError", "OSError")
    assert podman("volume", "ls", "--quiet") == ""


def test_the_command_line_makes_an_image_with_packages(
    podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wheels = Path(podman.path).parent / "wheels"
    monkeypatch.setenv("AGENT_CONTAINER_ENGINE", podman.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.txt").write_text("parso\n")
    options = ["--base", BASE, "--wheels", str(wheels), "--requirements", "more.txt", "--tag", "lab/own"]
    assert cli.main(["image", "build", *options, "--packages", "psutil", "tornado>=6"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == (
        "Use it: AGENT_CONTAINER_IMAGE=lab/own in the environment, then %%agent -e container"
    )
    executor = podman.executor("lab/own")
    try:
        assert text(run(executor, "import psutil, tornado, parso; print('there')")) == "there"
    finally:
        executor.shutdown()
    assert cli.main(["image", "build", *options, "--packages", "../evil"]) == 2
    assert cli.main(["image", "build", "--base", BASE, "--wheels", str(wheels), "--packages", "no-such-package"]) == 1
    version = podman("info", "--format", "{{.Version.Version}}").strip()
    assert capfd.readouterr().err.splitlines()[-3:] == [
        f"The image {IMAGE} was not made.",
        f"podman {version} ended with status 1; its messages stand above.",
        "Check --base, --packages and the network; --wheels FOLDER needs none.",
    ]


# ---- what a container is --------------------------------------------------------------------------------------------


def test_it_is_made_without_network_ports_or_rights_and_sees_one_folder(make: Make, podman: Podman) -> None:
    executor = make()
    run(executor, "1")
    (name,) = podman.containers()
    assert [info.id for info in executor.engines()] == [name]
    made = json.loads(podman("inspect", name))[0]
    host = made["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["PortBindings"] == {}
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert made["EffectiveCaps"] in (None, [])
    assert "no-new-privileges" in host["SecurityOpt"]
    engine = find(podman.path)
    assert (host["Memory"] > 0) == engine.memory
    assert (host["PidsLimit"] == 72) == engine.processes
    assert [(mount["Source"], mount["Destination"]) for mount in made["Mounts"] if mount["Type"] == "bind"] == [
        (str(executor.workspace.path), "/workspace")
    ]


def test_files_of_the_workspace_belong_to_the_reader_afterwards(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "before.txt").write_text("1")
    executor = make(workspace=folder)
    run(executor, "import os; os.mkdir('sub'); open('sub/made.txt', 'w').write(open('before.txt').read())")
    assert text(run(executor, "print(os.getuid() == 0)")) == "False"
    executor.shutdown()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in [folder, *folder.rglob("*")]} == {
        (os.getuid(), os.getgid())
    }
    assert (folder / "sub" / "made.txt").read_text() == "1"


def test_a_full_workspace_is_emptied_of_what_filled_it_and_a_restart_gives_no_more_room(make: Make) -> None:
    executor = make(limits=SandboxLimits(disk_bytes=20 << 20))
    fill = "import time\nwith open({!r}, 'wb') as f:\n    for _ in range({}): f.write(bytes(1 << 20)); time.sleep(0.01)"
    result = run(executor, fill.format("big", 60))
    assert result.error is not None
    assert result.error.ename == "DiskLimitExceeded"
    assert "AGENT_LIMIT_DISK" in result.error.evalue
    assert "Removed again: big" in result.error.evalue
    assert run(executor, fill.format("half", 15)).status == "ok"
    executor.restart()
    result = run(executor, fill.format("other", 15))
    assert result.error is not None
    assert result.error.ename == "DiskLimitExceeded"
    assert [info.name for info in executor.list_files()] == ["half"]


def test_what_the_reader_puts_there_does_not_count(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(30 << 20))
    executor = make(limits=SandboxLimits(disk_bytes=20 << 20))
    run(executor, "1")
    executor.put_file(tmp_path / "data.bin", "data.bin")
    assert text(run(executor, "import os; print(os.path.getsize('data.bin'))")) == str(30 << 20)
    assert run(executor, "1").status == "ok"


# ---- losses ---------------------------------------------------------------------------------------------------------


def _kill_container(podman: Podman) -> None:
    podman("kill", *podman.containers())


def _kill_client(podman: Podman) -> None:
    found = subprocess.run(["pgrep", "-f", f"name={podman.containers()[0]}"], capture_output=True, text=True)
    clients = [int(word) for word in found.stdout.split()]
    for pid in clients:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert clients


@pytest.mark.parametrize("lose", [_kill_container, _kill_client])
@pytest.mark.parametrize("when", ["between", "during"])
def test_a_lost_container_is_replaced_files_are_there_and_what_worked_runs_again(
    lose: Callable[[Podman], None], when: str, make: Make, podman: Podman, tmp_path: Path
) -> None:
    healing = HealingExecutor(make())
    healing.start()
    (tmp_path / "data.csv").write_text("as sent")
    healing.put_file(tmp_path / "data.csv", "data.csv")
    run(healing, "kept = 40")
    run(healing, "open('data.csv', 'w').write('changed')")
    run(healing, "1 / 0")
    if when == "between":
        lose(podman)
    else:
        done: list[bool] = []

        def once(_: object) -> None:
            if not done:
                done.append(True)
                lose(podman)

        code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
        result = healing.execute(code, timeout_s=90, on_output=once)
        assert result.status == "died"
        assert "begun" in text(result)
    result = run(healing, "print(kept + 2, open('data.csv').read())")
    assert result.status == "ok"
    assert text(result).splitlines() == [
        "The container kernel was lost, and another one took its place: its files are still there, and the 2 pieces of "
        "code that had worked ran again.",
        "42 changed",
    ]
    assert not result.state_lost
    assert text(run(healing, "print(kept)")) == "40"  # said once
    lose(podman)
    with pytest.raises(KernelDied, match="lost a second time in this run"):
        run(healing, "print(kept)")


def test_nothing_is_left_when_the_notebooks_process_is_killed(podman: Podman, tmp_path: Path) -> None:
    code = f"""
from sandbox_agent_magic.executors.container import ContainerExecutor, Target
import time
executor = ContainerExecutor(Target({podman.path!r}))
executor.execute("import os; os.fork()", timeout_s=60, on_output=lambda _: None)
print("ok", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ok\n"
        assert len(podman.containers()) == 1
        host.kill()
    end = time.monotonic() + 15
    while podman.containers() and time.monotonic() < end:
        time.sleep(0.2)
    assert podman.containers() == []


def test_what_was_left_behind_all_the_same_is_swept_and_nothing_else(podman: Podman) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    here = socket.gethostname()
    left, used, far = (
        f"sandbox-agent-{pid}-0000000{number}" for number, pid in enumerate((gone.pid, os.getpid(), gone.pid))
    )
    for name, host in ((left, here), (used, here), (far, "moon")):
        podman("create", f"--name={name}", f"--label={LABEL}={host}", "--network=none", BASE, "true")
    code = f"""
from sandbox_agent_magic.executors.container import ContainerExecutor, Target
executor = ContainerExecutor(Target({podman.path!r}))
executor.execute("import time; time.sleep(3)", timeout_s=60, on_output=lambda _: None)
executor.shutdown()
"""
    try:
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        assert sorted(podman.containers()) == sorted([far, used])
    finally:
        podman("rm", "--force", "--ignore", left, used, far)


def test_packages_are_refused_with_the_way_to_have_them(make: Make) -> None:
    with pytest.raises(ExecutorError) as caught:
        make().install(["polars"])
    assert caught.value.lines()[-1] == (
        "Make an image that has them: sandbox-agent image build --packages polars; then %agent restart."
    )


# ---- in a notebook --------------------------------------------------------------------------------------------------


def test_the_magics_run_in_a_container(
    podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_CONTAINER_ENGINE", podman.path)
    monkeypatch.setenv("AGENT_WORKSPACE", str(tmp_path / "work"))
    shell = start_ipython() or get_ipython()
    shell.run_line_magic("load_ext", "sandbox_agent_magic")
    try:
        shell.run_cell_magic(
            "sandbox", "-e container", "import socket\nopen('made.txt', 'w').write('x')\nprint(socket.gethostname())"
        )
        assert "sandbox" in capsys.readouterr().out
        assert (tmp_path / "work" / "made.txt").read_text() == "x"
        shell.run_line_magic("agent", "sandboxes")
        shown = capsys.readouterr().out
        assert podman.containers()[0] in shown
        assert f"image {IMAGE}" in shown
    finally:
        shell.run_line_magic("agent", "reset")
    assert podman.containers() == []
