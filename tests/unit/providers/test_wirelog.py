"""The log of DEBUG=true: what was sent and said, for its owner alone, within bounds, without keys."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sandbox_agent_magic import providers, settings
from sandbox_agent_magic.errors import ProviderError
from sandbox_agent_magic.providers import wirelog
from sandbox_agent_magic.types import Image, Message, ModelRequest
from tests.support.model_server import ModelServer, Reply

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "sandbox_agent_magic" / "requests.log"


def ask(server: ModelServer, *messages: Message, debug: str = "true") -> None:
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url, "DEBUG": debug}
    with closing(providers.create(settings.load(environ=environ))) as provider, suppress(ProviderError):
        provider.complete(ModelRequest(messages or (Message("user", "Go."),)), on_text=lambda text: None)


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_requests_replies_and_failures_are_written_one_a_line(log: Path) -> None:
    with ModelServer([Reply("Hello."), Reply(status=500, body={"error": {"message": "it broke"}})]) as server:
        ask(server)
        ask(server)
    assert [line["event"] for line in lines(log)] == ["request", "reply", "request", "failure"]
    request, reply, _, failure = lines(log)
    assert request["body"]["messages"] == [{"role": "user", "content": "Go."}]  # type: ignore[index]
    assert (reply["text"], reply["finish_reason"]) == ("Hello.", "stop")
    assert (failure["status"], failure["message"]) == (500, "it broke")


def test_without_debug_nothing_is_written(log: Path) -> None:
    with ModelServer([Reply("Hello.")]) as server:
        ask(server, debug="false")
    assert not log.exists()


def test_only_its_owner_can_read_it(log: Path) -> None:
    with ModelServer([Reply("Hello.")]) as server:
        ask(server)
    assert log.stat().st_mode & 0o077 == 0


def test_keys_in_what_is_sent_and_said_are_left_out(log: Path) -> None:
    said = {"message": f"{KEY} is wrong", "type": KEY}
    with ModelServer([Reply(f"It is {KEY}."), Reply(status=401, body={"error": said})]) as server:
        ask(server, Message("user", f"My key is {KEY}; as JSON: {json.dumps({'key': KEY})}"))
        ask(server)
    assert KEY not in log.read_text()
    assert "My key is ***" in log.read_text()


def test_pictures_are_shortened(log: Path) -> None:
    with ModelServer([Reply("Seen.")]) as server:
        ask(server, Message("user", "Look.", (Image("image/png", "A" * 100_000),)))
    assert len(log.read_text()) < 30_000
    assert "(100,022 characters)" in log.read_text()


def test_a_file_that_has_grown_large_makes_way_and_one_is_kept(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wirelog, "MAX_BYTES", 1_000)
    with ModelServer(Reply("Hello.")) as server:
        for _ in range(10):
            ask(server)
    assert log.stat().st_size < 3_000
    assert sorted(file.name for file in log.parent.iterdir()) == ["requests.log", "requests.log.1"]


def test_a_place_that_cannot_be_written_stops_nothing(log: Path) -> None:
    log.parent.write_text("in the way")
    with ModelServer([Reply("Hello.")]) as server:
        ask(server)
        assert len(server.seen) == 1
