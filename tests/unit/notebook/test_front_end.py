"""`sandbox-agent doctor` says whether the server in use has the front-end module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_agent_magic
from sandbox_agent_magic.doctor import _front_end
from sandbox_agent_magic.notebook.front_end import NAME, module_states

MODULE = Path(sandbox_agent_magic.__file__).parent / "labextension"
VERSION = sandbox_agent_magic.__version__


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of its own with a JupyterLab in it, and no server that runs."""
    prefix = tmp_path / "environment"
    (prefix / "share" / "jupyter" / "lab" / "static").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr("jupyter_core.paths.ENV_JUPYTER_PATH", [str(prefix / "share" / "jupyter")])
    monkeypatch.setattr("jupyter_core.paths.ENV_CONFIG_PATH", [str(prefix / "etc" / "jupyter")])
    for name in ("DATA", "CONFIG", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / name.lower()))
    return prefix


def install(prefix: Path, version: str = VERSION) -> None:
    folder = prefix / "share" / "jupyter" / "labextensions" / NAME
    shutil.copytree(MODULE, folder)
    described = json.loads((folder / "package.json").read_text())
    (folder / "package.json").write_text(json.dumps({**described, "version": version}))


def disable(prefix: Path, name: str) -> None:
    folder = prefix / "etc" / "jupyter" / "labconfig"
    folder.mkdir(parents=True)
    (folder / "page_config.json").write_text(json.dumps({"disabledExtensions": {name: True}}))


def test_an_enabled_module_is_said_with_its_version(environment: Path) -> None:
    install(environment)
    assert _front_end().ok
    assert f"module {VERSION}" in _front_end().detail


def test_a_missing_module_is_said_with_what_to_do(environment: Path) -> None:
    assert not _front_end().ok
    assert "lacks the front-end module" in _front_end().detail
    assert f"{environment}/bin/python -m pip install sandbox-agent-magic" in _front_end().detail


@pytest.mark.parametrize("name", [NAME, f"{NAME}:plugin"])
def test_a_disabled_module_is_said(environment: Path, name: str) -> None:
    install(environment)
    disable(environment, name)
    assert "is disabled" in _front_end().detail
    assert "labextension enable" in _front_end().detail


def test_a_module_of_another_version_is_said(environment: Path) -> None:
    install(environment, version="0.0.1")
    assert f"is 0.0.1, the kernel's side {VERSION}" in _front_end().detail


def test_a_module_whose_file_is_gone_counts_as_missing(environment: Path) -> None:
    install(environment)
    for file in (environment / "share" / "jupyter" / "labextensions" / NAME / "static").iterdir():
        file.unlink()
    assert [each.state for each in module_states(VERSION)] == ["missing"]


def test_where_there_is_no_jupyterlab_nothing_is_wrong(environment: Path) -> None:
    shutil.rmtree(environment / "share")
    assert _front_end().ok
    assert "no JupyterLab" in _front_end().detail


def test_a_running_server_counts_and_not_this_environment(environment: Path, tmp_path: Path) -> None:
    install(environment)
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    command = [str(other / "bin" / "python"), "-c", "print('started', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "runtime").mkdir()
        (tmp_path / "runtime" / f"jpserver-{process.pid}.json").write_text("{}")
        (found,) = module_states(VERSION)
        assert (found.prefix, found.state, found.running) == (other, "missing", True)
        process.communicate(b"\n", timeout=20)
    assert [each.prefix for each in module_states(VERSION)] == [environment]
