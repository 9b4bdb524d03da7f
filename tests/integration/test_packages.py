"""Packages that the sandbox gets and the reader's environment does not; and what pip sees while it fetches them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_agent_magic import Session
from sandbox_agent_magic.errors import ExecutorError, UsageError
from sandbox_agent_magic.executors.installing import InstallingExecutor
from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from sandbox_agent_magic.sandbox import layers, pip_box, sandbox_uid
from sandbox_agent_magic.sandbox.packages import PackageLayer
from sandbox_agent_magic.settings import TIERS
from sandbox_agent_magic.types import Output
from tests.support.ordinary_user import ordinary_user
from tests.support.sandbox import attempt, run, text

pytestmark = pytest.mark.integration

WHEEL = "sandbox_probe_wheel"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as pip's only source: what is tested with it needs no network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, name: str, version: str = "1.0", requires: str = "", **files: str) -> None:
    """A wheel of one package."""
    import zipfile

    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", f"version = {version!r}\n")
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{info}/METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def sandbox() -> Iterator[SandboxExecutor]:
    executor = SandboxExecutor()
    yield executor
    executor.shutdown()


@pytest.fixture
def layer() -> Iterator[PackageLayer]:
    made = PackageLayer(None, uid=sandbox_uid())
    yield made
    made.close()


# ---- from a folder of wheels ------------------------------------------------------------------------------------


def test_a_package_is_there_at_once_for_a_kernel_that_runs(sandbox: SandboxExecutor, index: Path) -> None:
    make_wheel(index, "probe_needed", "0.5")
    make_wheel(index, WHEEL, requires="probe_needed>=0.4")
    assert attempt(sandbox, f"import {WHEEL}") == "ModuleNotFoundError"
    assert sorted(sandbox.install([WHEEL])) == ["probe_needed==0.5", f"{WHEEL}==1.0"]
    assert text(run(sandbox, f"import {WHEEL}, probe_needed\nprint({WHEEL}.__file__, probe_needed.version)")) == (
        f"/packages/{WHEEL}/__init__.py 0.5"
    )
    assert importlib.util.find_spec(WHEEL) is None
    assert sandbox.install([WHEEL]) == []


def test_the_code_cannot_change_what_was_installed(sandbox: SandboxExecutor, index: Path) -> None:
    make_wheel(index, WHEEL)
    sandbox.install([WHEEL])
    assert attempt(sandbox, f"open('/packages/{WHEEL}/__init__.py', 'a')") in {"OSError", "PermissionError"}
    assert attempt(sandbox, "import os; os.mkdir('/packages/own')") == "OSError"


def test_a_source_distribution_is_refused_since_building_one_runs_its_code(layer: PackageLayer, index: Path) -> None:
    import io
    import tarfile

    with tarfile.open(index / "probe_source-1.0.tar.gz", "w:gz") as archive:
        for name, content in (
            ("probe_source-1.0/setup.py", b"open('/box/ran', 'w')"),
            ("probe_source-1.0/PKG-INFO", b"Metadata-Version: 2.1\nName: probe_source\nVersion: 1.0\n"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ExecutorError, match="No matching distribution"):
        layer.install(["probe_source"])
    assert layer.names() == {}


def test_the_environments_packages_stay_as_they_are(layer: PackageLayer, index: Path) -> None:
    version = importlib.metadata.version("numpy")
    make_wheel(index, "numpy", "99.0")
    make_wheel(index, WHEEL, requires="numpy>=99")
    with pytest.raises(ExecutorError, match=r"pip: .*conflict"):
        layer.install([WHEEL])
    assert layer.names() == {}
    assert importlib.metadata.version("numpy") == version


def test_a_wheel_cannot_leave_its_folder_or_bring_a_link(layer: PackageLayer, index: Path) -> None:
    make_wheel(index, WHEEL, **{"../../../../../../tmp/escaped.py": "x", "sitecustomize.py": "1/0"})
    with pytest.raises(ExecutorError):
        layer.install([WHEEL])
    assert not Path("/tmp/escaped.py").exists()
    assert layer.names() == {}


def test_a_module_named_like_one_of_pips_does_not_run_in_the_next_install(layer: PackageLayer, index: Path) -> None:
    shadows = {f"{name}.py": "raise SystemExit('ran')" for name in ("json", "keyring", "sitecustomize", "pip")}
    make_wheel(index, "probe_shadow", **shadows)
    make_wheel(index, WHEEL)
    layer.install(["probe_shadow"])
    assert layer.install([WHEEL]) == [f"{WHEEL}==1.0"]


def test_a_step_that_misses_a_package_runs_again_and_says_so(sandbox: SandboxExecutor, index: Path) -> None:
    make_wheel(index, WHEEL)
    executor = InstallingExecutor(sandbox)
    result = executor.execute(f"import {WHEEL}\nprint({WHEEL}.version)", timeout_s=60, on_output=lambda _: None)
    assert result.status == "ok"
    assert [output["text"] for output in result.outputs] == [  # type: ignore[typeddict-item]
        f"{WHEEL} was missing: installed {WHEEL}==1.0 in the sandbox. The step runs again.\n",
        "1.0\n",
    ]


def test_files_of_the_first_try_are_reported_with_those_of_the_second(sandbox: SandboxExecutor, index: Path) -> None:
    make_wheel(index, WHEEL)
    executor = InstallingExecutor(sandbox)
    code = (
        f"import os\nif not os.path.exists('a'): open('a', 'w').write('1')\nimport {WHEEL}\nopen('b', 'w').write('2')"
    )
    result = executor.execute(code, timeout_s=60, on_output=lambda _: None)
    assert sorted(info.name for info in result.new_files) == ["a", "b"]


def test_ctrl_c_while_pip_works_ends_the_step_and_the_sandbox_goes_on(
    sandbox: SandboxExecutor, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index, WHEEL)
    executor = InstallingExecutor(sandbox)
    run(sandbox, "x = 1")
    before = time.monotonic()

    def press(output: Output) -> None:
        if output["output_type"] == "stream" and "installing" in output["text"]:
            threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as patch:
        patch.delenv("PIP_NO_INDEX")
        patch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        result = executor.execute(f"import {WHEEL}", timeout_s=60, on_output=press)
    assert result.status == "interrupted"
    assert time.monotonic() - before < 10
    assert text(run(sandbox, "print(x)")) == "1"
    assert executor.execute(f"import {WHEEL}", timeout_s=60, on_output=lambda _: None).status == "ok"


def test_a_package_that_cannot_be_had_is_said_in_one_line_and_the_error_stays(
    sandbox: SandboxExecutor, index: Path
) -> None:
    executor = InstallingExecutor(sandbox)
    result = executor.execute("import probe_nowhere", timeout_s=60, on_output=lambda _: None)
    assert result.error is not None
    assert result.error.ename == "ModuleNotFoundError"
    said = result.outputs[0]["text"]  # type: ignore[typeddict-item]
    assert "pip: " in said
    assert "Use another way." in said
    assert said.count("\n") == 1


def test_with_automatic_installs_off_the_step_says_how(sandbox: SandboxExecutor, index: Path) -> None:
    make_wheel(index, WHEEL)
    executor = InstallingExecutor(sandbox, automatic=False)
    result = executor.execute(f"import {WHEEL}", timeout_s=60, on_output=lambda _: None)
    assert result.status == "error"
    said = result.outputs[0]["text"]  # type: ignore[typeddict-item]
    assert "%agent install sandbox-probe-wheel" in said
    assert "AGENT_AUTO_INSTALL=true" in said


def test_what_the_code_reads_cannot_leave_as_the_name_of_a_package(sandbox: SandboxExecutor, index: Path) -> None:
    executor = InstallingExecutor(sandbox)
    code = "secret = 'hunter2'\nraise ModuleNotFoundError(f\"No module named '{secret}'\")"
    result = executor.execute(code, timeout_s=60, on_output=lambda _: None)
    assert [output["output_type"] for output in result.outputs] == ["error"]


@pytest.mark.parametrize(
    "name", ["--index-url=https://evil.example/simple", "-r/etc/passwd", "/tmp/x.whl", "x @ file:///x"]
)
def test_options_paths_and_addresses_never_reach_pip(sandbox: SandboxExecutor, name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a package"):
        sandbox.install([name])


def test_a_workspace_that_stays_keeps_its_packages(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_wheel(index, WHEEL)
    room = tmp_path / "room"
    room.mkdir()
    for _ in range(2):
        executor = SandboxExecutor(workspace=room)
        try:
            executor.install([WHEEL])
            assert text(run(executor, f"import {WHEEL}\nprint({WHEEL}.version)")) == "1.0"
        finally:
            executor.shutdown()
        index.joinpath(f"{WHEEL}-1.0-py3-none-any.whl").unlink(missing_ok=True)
    assert list(room.iterdir()) == []


def test_custom_packages_are_there_and_the_model_is_told(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_wheel(index, WHEEL)
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"code": f"import {WHEEL}; print({WHEEL}.version)"}, {"text": "It is 1.0."}]))
    with Session(provider="scripted", model=str(script), custom_packages=WHEEL, agent_auto_install=False) as session:
        result = session.ask("Which version?")
        assert f"installed too: {WHEEL}" in session._conversation_before(None)[0].text
    assert result.steps[0].result.status == "ok"


# ---- what pip's own sandbox sees --------------------------------------------------------------------------------

SPY = """
import json, os, sys
def can(path):
    try:
        open(path, "rb").close() if not os.path.isdir(path) else os.listdir(path)
        return True
    except OSError:
        return False
def written(path):
    try:
        open(path + "/probe", "w").close()
        return True
    except OSError:
        return False
paths, folders = json.loads(json.loads(sys.argv[1])["requirements"][0])
print(json.dumps([[p for p in paths if can(p)], [p for p in folders if written(p)], dict(os.environ)]))
"""


@pytest.mark.parametrize("tier", TIERS)
def test_pip_sees_no_file_and_no_secret_of_the_reader(
    tmp_path: Path, index: Path, layer: PackageLayer, monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    import contextlib

    from sandbox_agent_magic.sandbox.process import launchers

    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-placeholder")
    uid = sandbox_uid()
    work, stage = tmp_path / "work", layer.path.with_name(f"{layer.path.name}-stage")  # where all users can go
    work.mkdir()
    stage.mkdir()
    if uid is not None:
        os.chown(work, uid, uid)
    environment = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    at_home = [path for path in Path.home().iterdir() if not any(each.is_relative_to(path) for each in environment)]
    hidden = [str(secret), *map(str, at_home), "/etc/shadow", "/etc/hostname", f"/proc/{os.getpid()}"]
    closed = ["/", "/usr", "/etc", "/packages", str(index), str(sys.prefix)]
    with contextlib.ExitStack() as closing:
        box = pip_box.PipBox(work, layer.path, uid, stage)
        start = pip_box.start(
            next(launchers(uid, tier)[0]), pip_box.configuration(), box, [json.dumps([hidden, closed])], closing
        )
        done = subprocess.run(
            start.arguments,
            input=SPY.encode(),
            capture_output=True,
            pass_fds=start.descriptors,
            env=start.environment,
            timeout=60,
            check=True,
        )
    shutil.rmtree(stage)
    seen, changed, environ = json.loads(done.stdout)
    assert seen == []
    assert changed == []
    assert "OPENAI_API_KEY" not in environ
    assert environ["PIP_FIND_LINKS"] == str(index)


def test_pips_configuration_is_passed_on_as_far_as_it_names_the_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://user:word@mirror.example/simple\ntarget = /somewhere\ncert = /no/such.pem\n"
        "[install]\nuser = yes\nextra-index-url =\n    https://a.example\n    https://b.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    found = pip_box.configuration()
    names = {name: value for name, value in found.variables.items() if name.startswith("PIP_")}
    assert names == {
        "PIP_INDEX_URL": "https://user:word@mirror.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://a.example https://b.example",
        "PIP_CERT": "/no/such.pem",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }
    assert index in found.paths


def test_a_home_folder_as_a_source_of_wheels_is_not_shown(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", os.path.expanduser("~"))
    assert pip_box.configuration().paths == ()


def test_a_password_of_the_index_is_not_in_the_error(layer: PackageLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in [name for name in os.environ if name.startswith("PIP_") and name != "PIP_CONFIG_FILE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ExecutorError) as caught:
        layer.install(["probe_nowhere"])
    assert "hunter2" not in str(caught.value)


# ---- from the package index -------------------------------------------------------------------------------------


@pytest.mark.registry
def test_a_small_wheel_comes_from_the_package_index(sandbox: SandboxExecutor) -> None:
    executor = InstallingExecutor(sandbox)
    code = "import humanize\nprint(humanize.intcomma(1234567))"
    result = executor.execute(code, timeout_s=60, on_output=lambda _: None)
    assert text(result).endswith("1,234,567")
    assert importlib.util.find_spec("humanize") is None


@pytest.mark.registry
def test_an_ordinary_user_installs_too() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make the user; as anybody else, the tests above are this one")
    with ordinary_user() as user:
        code = (
            "from sandbox_agent_magic.executors.sandbox import SandboxExecutor\n"
            "executor = SandboxExecutor()\n"
            "print(executor.install(['cowsay']))\n"
            "result = executor.execute('import cowsay; print(cowsay.__file__)', timeout_s=60, on_output=print)\n"
            "executor.shutdown()\n"
            "print(result.outputs)\n"
        )
        pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        done = user.python("-c", code, environ=pip)
    assert "/packages/cowsay" in done.stdout, done.stderr


# ---- how much, and how it goes again ----------------------------------------------------------------------------


def test_packages_over_the_limit_are_refused_by_its_name_and_nothing_stays(index: Path, layer: PackageLayer) -> None:
    make_wheel(index, WHEEL, big=os.urandom(1 << 20).hex())
    layer.limit_bytes = 1 << 20
    with pytest.raises(ExecutorError) as caught:
        layer.install([WHEEL])
    assert "the packages of one folder may take 1 MiB (AGENT_LIMIT_PACKAGES)" in caught.value.why
    assert list(layer.path.iterdir()) == []
    layer.limit_bytes = 100 << 20
    assert layer.install([WHEEL]) == [f"{WHEEL}==1.0"]


def test_kept_packages_are_listed_and_removed_but_not_while_a_sandbox_uses_them(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sandbox_agent_magic.cli import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_wheel(index, WHEEL)
    room = tmp_path / "room"
    room.mkdir()
    executor = SandboxExecutor(workspace=room)
    executor.install([WHEEL])
    try:
        assert main(["packages", "list"]) == 0
        assert str(room) in capsys.readouterr().out
        assert main(["packages", "remove", str(room)]) == 1
        assert "in use" in capsys.readouterr().out
        assert executor.layer.names() == {"sandbox-probe-wheel": "1.0"}
    finally:
        executor.shutdown()
    assert main(["packages", "remove", "--unused"]) == 0  # the folder is still there: nothing happens
    assert executor.layer.names() == {"sandbox-probe-wheel": "1.0"}
    executor.shutdown()
    room.rmdir()
    assert main(["packages", "remove", "--unused"]) == 0
    assert capsys.readouterr().out == f"removed: {room}\n"
    assert list((tmp_path / "cache" / "sandbox_agent_magic" / "packages").iterdir()) == []


@pytest.mark.parametrize("words", [["remove"], ["remove", "nowhere"]])
def test_removing_packages_that_are_not_named_or_not_there_is_a_clear_error(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sandbox_agent_magic.cli import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["packages", *words]) == 2
    assert "sandbox-agent packages" in capsys.readouterr().err


def test_packages_that_are_removed_while_a_sandbox_starts_do_not_vanish_under_it(tmp_path: Path) -> None:
    layer = layers.KeptLayer(tmp_path / "layer")
    stop = threading.Event()

    def remove_again_and_again() -> None:
        while not stop.is_set():
            layer.remove()

    remover = threading.Thread(target=remove_again_and_again)
    remover.start()
    try:
        for _ in range(300):
            mark = layer.use()
            (layer.path / "module.py").touch()
            time.sleep(0.001)
            assert (layer.path / "module.py").exists()
            os.close(mark)
    finally:
        stop.set()
        remover.join()
    assert layer.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folders_name_cannot_write_to_the_terminal_and_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sandbox_agent_magic.cli import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    room = tmp_path / "\x1b]0;title\x07\udcff"
    room.mkdir()
    os.close(layers.keep(room).use())
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    (tmp_path / "cache" / "sandbox_agent_magic" / "packages" / "link").symlink_to(tmp_path / "else")
    assert main(["packages", "list"]) == 0
    assert main(["packages", "remove", "--all"]) == 0
    shown = capsys.readouterr().out
    assert "\\x1b]0;title\\x07\\udcff" in shown
    assert "\x1b" not in shown
    assert (tmp_path / "else" / "file").exists()
