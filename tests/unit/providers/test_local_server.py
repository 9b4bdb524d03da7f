"""The model server's start and its failures; answers of a real model are in tests/integration/test_local_model.py."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import MissingDependencyError, ModelStoreError, ProviderUnavailable
from sandbox_agent_magic.model_store.locks import FileLock
from sandbox_agent_magic.providers import local_child, local_server
from sandbox_agent_magic.providers.local import LocalProvider
from sandbox_agent_magic.types import Message, ModelRequest

HELLO = ModelRequest((Message("user", "Say hello."),), max_output_tokens=8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sandbox_agent_magic"


@pytest.fixture
def broken_model(tmp_path: Path) -> Path:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 1_000)
    return path


def test_a_file_that_is_no_model_gives_the_reason_from_the_servers_log(broken_model: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        local_server.ensure(broken_model, threads=1, idle_s=5, timeout_s=60)
    assert "gguf" in caught.value.why
    assert str(broken_model) in caught.value.hint
    assert not local_server.is_alive(broken_model, threads=1)


def test_making_a_provider_starts_nothing_and_needs_no_file(cache: Path) -> None:
    provider = LocalProvider(model="qwen2.5-coder-0.5b", threads=None, idle_s=600)
    assert provider.models() == ("qwen2.5-coder-0.5b",)
    assert provider.traits.small
    assert not cache.exists()
    with pytest.raises(ModelStoreError, match="model pull"):
        provider.complete(HELLO, on_text=print)


def test_a_path_gives_the_files_name_as_the_model(broken_model: Path) -> None:
    assert LocalProvider(model=str(broken_model), threads=None, idle_s=600).model == "broken"


def test_without_xllamacpp_the_extra_is_named(broken_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # what an absent package looks like to the import system
    with pytest.raises(MissingDependencyError, match=r"sandbox-agent-magic\[local\]"):
        local_server.ensure(broken_model, threads=1, idle_s=5)


def test_a_state_file_without_a_living_server_is_not_believed(broken_model: Path) -> None:
    place = local_server.Place(broken_model, 1)
    place.state.write_text(json.dumps({"pid": os.getpid(), "port": 1, "key": "stale"}))
    assert not local_server.is_alive(broken_model, threads=1)
    with pytest.raises(ProviderUnavailable):
        local_server.ensure(broken_model, threads=1, idle_s=5, timeout_s=60)
    assert not place.state.exists()


def test_a_server_that_holds_the_lock_and_never_answers_is_given_up_in_time(broken_model: Path) -> None:
    other = FileLock(local_server.Place(broken_model, 1).lock)
    assert other.acquire()
    with pytest.raises(ProviderUnavailable, match="not ready within"):
        local_server.ensure(broken_model, threads=1, idle_s=5, timeout_s=0.5)
    other.release()


def test_a_second_server_for_the_same_model_steps_back(broken_model: Path) -> None:
    place = local_server.Place(broken_model, 1)
    first = FileLock(place.lock)
    assert first.acquire()
    order = {"lock": str(place.lock), "state": str(place.state)}
    command = [sys.executable, local_child.__file__]
    done = subprocess.run(command, input=json.dumps(order).encode(), capture_output=True, timeout=30)
    assert done.returncode == local_child.LOST_THE_RACE
    first.release()


def test_nobody_else_can_read_the_servers_folder(cache: Path) -> None:
    (cache / "server").mkdir(parents=True, mode=0o755)
    assert stat.S_IMODE(local_server.folder().stat().st_mode) == 0o700


def test_other_threads_or_another_file_mean_another_server(broken_model: Path) -> None:
    before = local_server.Place(broken_model, 1).lock
    assert local_server.Place(broken_model, 2).lock != before
    broken_model.write_bytes(b"GGUF and more")
    assert local_server.Place(broken_model, 1).lock != before


def test_the_number_of_threads_is_never_more_than_this_process_may_use() -> None:
    assert 1 <= local_server.default_threads() <= len(os.sched_getaffinity(0))


def test_the_key_is_not_in_a_servers_repr() -> None:
    assert "hush" not in repr(local_server.Server(port=1, key="hush", pid=1))
