"""What is Scalebox's own: an SDK that E2B's breaks, its environment variables, and what it would print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import SettingsError
from sandbox_agent_magic.executors.cloud import CloudTarget
from sandbox_agent_magic.executors.cloud.scalebox import ScaleboxEngine
from sandbox_agent_magic.executors.cloud.scalebox_failures import failure_of
from tests.support.cloud import running as services

LOAD = """
from sandbox_agent_magic.errors import MissingDependencyError
from sandbox_agent_magic.executors import create
from sandbox_agent_magic import settings
try:
    create("scalebox", settings=settings.load({"scalebox_api_key": "k"}))
except MissingDependencyError as error:
    print(error)
"""


def test_an_sdk_that_the_other_one_has_broken_is_said(tmp_path: Path) -> None:
    """As both in one environment are: the last one that was installed overwrites what they share."""
    broken = tmp_path / "connectrpc"
    broken.mkdir()
    for name in ("__init__", "errors"):
        (broken / f"{name}.py").write_text("")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{LOAD}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "The SDKs of Scalebox and E2B cannot share an environment" in done.stdout
    assert 'pip install "sandbox-agent-magic[scalebox]"' in done.stdout
    assert len(done.stdout.strip().splitlines()) == 3


def test_without_the_sdk_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "scalebox.py").write_text("raise ModuleNotFoundError(\"No module named 'scalebox'\", name='scalebox')")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{LOAD}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert 'Install it with: pip install "sandbox-agent-magic[scalebox]"' in done.stdout


def test_the_sdk_is_not_loaded_before_it_is_used() -> None:
    code = "import sandbox_agent_magic.executors.cloud.scalebox, sys\nprint('scalebox' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_the_sdks_own_variables_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBX_API_KEY", "another")
    monkeypatch.setenv("SBX_DOMAIN", "127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(services.CERTIFICATE))
    with services.start("scalebox") as cloud:
        engine = ScaleboxEngine(CloudTarget(cloud.key, domain=f"{cloud.address}/v1"))
        sandbox_id = engine.create()
        assert [each.sandbox_id for each in engine.list()] == [sandbox_id]
        assert engine.kill(sandbox_id)
        assert not engine.kill(sandbox_id)
        engine.disconnect()
    monkeypatch.setenv("SBX_DEBUG", "true")
    with pytest.raises(SettingsError, match="ends no sandbox"):
        ScaleboxEngine(CloudTarget("key"))


def test_nothing_that_the_sdk_can_raise_is_unknown() -> None:
    from connectrpc.errors import ConnectError, ConnectErrorCode
    from scalebox import exceptions

    kinds = {name: failure_of(getattr(exceptions, name)("x")).kind for name in dir(exceptions) if "Exception" in name}
    assert kinds == {
        "AuthenticationException": "key",
        "InvalidArgumentException": "refused",
        "NotEnoughSpaceException": "file",
        "NotFoundException": "gone",
        "RateLimitException": "busy",
        "SandboxException": "reply",
        "TemplateException": "template",
        "TimeoutException": "late",
    }
    assert {code.name: failure_of(ConnectError(code, "x")).kind for code in ConnectErrorCode} == {
        "CANCELED": "reply",
        "UNKNOWN": "server",
        "INVALID_ARGUMENT": "refused",
        "DEADLINE_EXCEEDED": "late",
        "NOT_FOUND": "gone",
        "ALREADY_EXISTS": "refused",
        "PERMISSION_DENIED": "forbidden",
        "RESOURCE_EXHAUSTED": "busy",
        "FAILED_PRECONDITION": "refused",
        "ABORTED": "refused",
        "OUT_OF_RANGE": "refused",
        "UNIMPLEMENTED": "server",
        "INTERNAL": "server",
        "UNAVAILABLE": "server",
        "DATA_LOSS": "server",
        "UNAUTHENTICATED": "key",
    }
