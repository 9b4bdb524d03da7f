"""The main job from the command line: real models and servers, a real sandbox, this user and an ordinary one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from sandbox_agent_magic import model_store
from tests.support.litellm_proxy import Proxy
from tests.support.model_server import ModelServer, Reply
from tests.support.ordinary_user import ordinary_user, own

pytestmark = pytest.mark.integration

PROMPT = "Calculate the sum of numbers from 1 to 100"
COMMAND = [sys.executable, "-P", "-m", "sandbox_agent_magic.cli"]
MODEL_NAME = "qwen2.5-coder-0.5b"


def ask(folder: Path, environ: dict[str, str], *options: str) -> dict[str, object]:
    """`sandbox-agent ask --json` about the sum, which must end well."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME", "XDG_CACHE_HOME") if name in os.environ}
    done = subprocess.run(
        [*COMMAND, "ask", "--json", *options, PROMPT],
        cwd=folder,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return cast("dict[str, object]", json.loads(done.stdout))


def assert_5050(found: dict[str, object]) -> None:
    """The run completed, and a step's output has the number."""
    assert found["status"] == "completed"
    assert "5050" in json.dumps(cast("list[dict[str, object]]", found["steps"])[-1]["outputs"])
    assert found["executor"] == "sandbox"


@pytest.mark.parametrize("model", ["gpt-4o", "no-tools"])
def test_through_a_litellm_proxy(proxy: Proxy, tmp_path: Path, model: str) -> None:
    environ = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": proxy.key, "MODEL": model}
    found = ask(tmp_path, environ)
    assert_5050(found)
    assert found["answer"] == "The sum is 5050."
    assert cast("dict[str, int]", found["usage"])["input_tokens"] > 0
    assert proxy.key not in json.dumps(found)


def test_a_env_file_is_enough(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"OPENAI_BASE_URL={proxy.url}\nOPENAI_API_KEY={proxy.key}\n")
    assert_5050(ask(tmp_path, {}))


@pytest.mark.model
def test_with_the_embedded_model(tmp_path: Path) -> None:
    found = ask(tmp_path, {"TEMPERATURE": "0", "AGENT_LOCAL_SEED": "42"})
    assert_5050(found)
    assert (found["provider"], found["model"]) == ("local", MODEL_NAME)
    assert found["label"] == "small local model, may be wrong"
    assert "5050" in str(found["answer"])


def test_the_job_takes_two_requests_and_less_than_four_kilobytes(tmp_path: Path) -> None:
    replies = [Reply(code="print(sum(range(1, 101)))"), Reply("The sum is 5050.")]
    with ModelServer(replies) as server:
        assert_5050(ask(tmp_path, {"OPENAI_BASE_URL": server.url}))
        bodies = [seen.raw for seen in server.seen]
    assert len(bodies) == 2
    assert sum(map(len, bodies)) <= 4_000
    assert bodies[1].startswith(bodies[0][: -len(b"]}")])


@pytest.mark.model
@pytest.mark.may_skip
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user; the other tests cover ordinary ones")
def test_with_the_embedded_model_as_an_ordinary_user() -> None:
    with ordinary_user() as user:
        models = user.home / ".cache" / "sandbox_agent_magic" / "models"
        models.mkdir(parents=True)
        shutil.copy(model_store.resolve(MODEL_NAME), models)
        own(user.home / ".cache")
        done = user.python("-m", "sandbox_agent_magic.cli", "ask", "--json", PROMPT, environ={"AGENT_LOCAL_IDLE": "5"})
    assert done.returncode == 0, done.stderr
    assert_5050(json.loads(done.stdout))
