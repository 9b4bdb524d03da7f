"""Scalebox's SDK cannot live in this environment, which has E2B's: its tests run in one of its own."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.support.engines import command

TESTS = Path(__file__).parents[1]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_the_tests_of_scalebox_pass_in_an_environment_with_its_sdk(tmp_path: Path) -> None:
    python = command("scalebox").parent / "python"
    report = tmp_path / "report.xml"
    done = subprocess.run(
        [python, "-P", "-m", "pytest", "cloud", "scalebox", "-q", f"--junit-xml={report}"],
        cwd=TESTS,
        env={name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))},
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert report.is_file(), done.stdout + done.stderr
    failed = [
        f"{case.get('classname')}.{case.get('name')}: {problem.get('message')}"
        for case in ElementTree.parse(report).iter("testcase")
        for problem in case
        if problem.tag in ("failure", "error", "skipped")
    ]
    assert failed == [], done.stdout[-5_000:]
    ran = {case.get("classname") for case in ElementTree.parse(report).iter("testcase")}
    assert {"tests.cloud.test_life", "tests.scalebox.test_server"} <= {str(name) for name in ran}
