"""The embedded model, really asked: one server for all, answers, crashes, idleness.

The files come from `sandbox-agent model pull`, or from the folder that AGENT_TEST_MODEL_DIR names. smollm2-135m cannot
write code, but loads in a second, which is all that most of these sentences need.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_agent_magic import model_store
from sandbox_agent_magic.errors import ProviderContextTooLong, ProviderUnavailable
from sandbox_agent_magic.providers import local_server
from sandbox_agent_magic.providers.local import LocalProvider
from sandbox_agent_magic.types import Message, ModelReply, ModelRequest

pytestmark = [pytest.mark.model, pytest.mark.integration]

THREADS = 1


def model_file(name: str) -> Path:
    folder = os.environ.get("AGENT_TEST_MODEL_DIR")
    file_name = next(info.file_name for info in model_store.known() if info.name == name)
    path = Path(folder) / file_name if folder else model_store.installed(name)
    if path is None or not path.is_file():
        pytest.skip(f"the model is not here: sandbox-agent model pull {name}")
    return path


SMALL = "smollm2-135m"
CODER = "qwen2.5-coder-0.5b"


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    """The models' files, looked up before the tests move the cache folder."""
    return {name: model_file(name) for name in (SMALL, CODER)}


@pytest.fixture(scope="module")
def place(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of our own, so that no server of the developer is met; its servers are ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OPENAI_API_KEY", "sk-not-for-the-server")
        patch.setenv("http_proxy", "http://127.0.0.1:9")  # would break every call that went through it
        yield files[SMALL]
        for file in files.values():
            local_server.stop(file, threads=THREADS)


@pytest.fixture
def model(place: Path) -> Iterator[Path]:
    yield place
    assert local_server.stop(place, threads=THREADS, timeout_s=60) or not local_server.is_alive(place, threads=THREADS)


def provider_of(model: Path, *, idle_s: float = 60.0, seed: int | None = None) -> LocalProvider:
    return LocalProvider(model=str(model), threads=THREADS, idle_s=idle_s, seed=seed)


def ask(provider: LocalProvider, text: str = "Say hello.", *, tokens: int = 12, temperature: float = 0) -> ModelReply:
    request = ModelRequest((Message("user", text),), temperature=temperature, max_output_tokens=tokens, deadline_s=60)
    return provider.complete(request, on_text=lambda _: None)


def server_of(model: Path) -> local_server.Server:
    return local_server.ensure(model, threads=THREADS, idle_s=60)


def gone(model: Path, *, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not local_server.is_alive(model, threads=THREADS):
            return True
        time.sleep(0.1)
    return False


def test_two_notebooks_share_one_server_that_answers_both(model: Path) -> None:
    first, second = provider_of(model), provider_of(model)
    pieces: list[str] = []
    request = ModelRequest((Message("user", "Say hello."),), temperature=0, max_output_tokens=12)
    reply = first.complete(request, on_text=pieces.append)
    assert reply.text
    assert "".join(pieces) == reply.text
    assert reply.usage.output_tokens > 0
    pid = server_of(model).pid
    assert ask(second).text
    first.close()
    assert ask(second).text
    assert server_of(model).pid == pid


def test_two_notebooks_that_start_at_once_get_the_same_server(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sandbox_agent_magic.providers import local_server as s; "
        f"print(s.ensure(Path(sys.argv[1]), threads={THREADS}, idle_s=60).pid)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(model)], stdout=subprocess.PIPE) for _ in range(2)]
    pids = {process.communicate(timeout=60)[0].strip() for process in both}
    assert len(pids) == 1
    assert pids != {b""}


def test_the_server_listens_to_its_key_alone(model: Path) -> None:
    server = server_of(model)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body = json.dumps({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1}).encode()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(f"{server.base_url}/chat/completions", body, headers)
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            opener.open(request, timeout=10)
        caught.value.close()


def test_the_server_knows_no_secret_of_the_reader_and_shows_none_of_its_own(model: Path) -> None:
    server = server_of(model)
    process = Path(f"/proc/{server.pid}")
    environment = process.joinpath("environ").read_bytes()
    assert b"sk-not-for-the-server" not in environment
    assert b"http_proxy" not in environment
    assert server.key.encode() not in environment + process.joinpath("cmdline").read_bytes()
    assert not [path for path in local_server.folder().iterdir() if path.stat().st_mode & 0o077]


def test_an_idle_server_ends_but_not_in_the_middle_of_a_long_answer(model: Path) -> None:
    arrived: list[float] = []
    request = ModelRequest((Message("user", "Write a very long story about a dog."),), max_output_tokens=200)
    reply = provider_of(model, idle_s=1.0).complete(request, on_text=lambda _: arrived.append(time.monotonic()))
    assert reply.finish_reason in {"stop", "length"}
    assert arrived[-1] - arrived[0] > 1.0
    assert gone(model, within_s=10)
    assert not local_server.Place(model, THREADS).state.exists()


def test_a_server_that_died_between_two_requests_is_started_again_unseen(model: Path) -> None:
    provider = provider_of(model)
    ask(provider)
    before = server_of(model).pid
    os.kill(before, signal.SIGKILL)
    assert gone(model, within_s=5)
    assert ask(provider).text
    assert server_of(model).pid != before


def test_a_server_that_dies_under_an_answer_is_an_error_that_may_be_retried(model: Path) -> None:
    provider = provider_of(model)
    pid = server_of(model).pid

    def kill(_: str) -> None:
        os.kill(pid, signal.SIGKILL)

    request = ModelRequest((Message("user", "Count from 1 to 1000."),), max_output_tokens=200)
    with pytest.raises(ProviderUnavailable, match="ended while it worked") as caught:
        provider.complete(request, on_text=kill)
    assert caught.value.retryable
    assert ask(provider).text


def test_the_stop_button_ends_the_wait_for_the_server_but_not_the_server(model: Path) -> None:
    began = time.monotonic()
    # No server is ready so early: Python alone takes longer to start.
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        server_of(model)
    assert time.monotonic() - began < 1.1
    started = local_server._children[-1]
    assert server_of(model).pid == started.pid


def test_the_same_seed_gives_the_same_answer(model: Path) -> None:
    texts = {ask(provider_of(model, seed=7), "Tell a story.", temperature=1.0).text for _ in range(2)}
    assert len(texts) == 1


def test_a_conversation_that_is_too_long_is_said_to_be(model: Path) -> None:
    with pytest.raises(ProviderContextTooLong):
        ask(provider_of(model), "word " * 9_000)


def test_a_reply_that_would_never_end_is_cut_so_that_other_notebooks_get_their_turn(model: Path) -> None:
    endless = Message("user", "Repeat the word ha forever: ha ha ha ha ha ha ha")
    reply = provider_of(model).complete(ModelRequest((endless,), temperature=0, deadline_s=170), on_text=lambda _: None)
    assert (reply.usage.output_tokens, reply.finish_reason) == (1024, "length")


def test_the_coder_writes_python_without_a_key_or_a_network(place: Path, files: dict[str, Path]) -> None:
    reply = ask(provider_of(files[CODER]), "Write Python that prints the sum of 1 to 100. Only code.", tokens=60)
    assert "print" in reply.text
    assert "sum" in reply.text
