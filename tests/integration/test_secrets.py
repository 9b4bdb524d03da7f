"""Keys are planted everywhere, with a server that says them back in every way it can; then everything is searched."""

from __future__ import annotations

import io
import itertools
import json
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from sandbox_agent_magic import Session
from sandbox_agent_magic.display import NotebookDisplay, TextDisplay
from sandbox_agent_magic.doctor import config_text, status_text
from sandbox_agent_magic.errors import SandboxAgentError
from sandbox_agent_magic.folders import data_dir
from sandbox_agent_magic.types import JSON, CellWriter, Event, NotebookCell, RunRequest, RunResult
from tests.support.model_server import ModelServer, Reply

pytestmark = pytest.mark.integration

NAMES = ("openai", "azure", "anthropic")
ORDINARY = st.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_.", min_size=16, max_size=60)
ODD = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=16, max_size=60)
LINES = st.tuples(ORDINARY, ORDINARY).map("\n".join)
# Begins with what is in no ordinary text, so that finding it means something.
KEYS = st.one_of(ORDINARY, ODD, LINES).map(lambda tail: f"zQ7xK{tail}".strip()).filter(lambda key: len(key) >= 20)


class Cells(list[NotebookCell]):
    """What would go into the notebook."""

    def add(self, cell: NotebookCell) -> None:
        self.append(cell)

    def finish(self, result: RunResult) -> None:
        """Nothing more."""


class Watcher:
    """Both displays at once, and every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bundles: list[dict[str, JSON]] = []
        self.text = io.StringIO()
        self._displays = (NotebookDisplay(self._take), TextDisplay(self.text))

    def _take(self, bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        self.bundles.append({**bundle, "metadata": metadata})

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        for display in self._displays:
            display(event)

    def close(self) -> None:
        for display in self._displays:
            display.close()


@pytest.fixture(scope="module", autouse=True)
def shell() -> Iterator[None]:
    """The code runs in this process: there is no sandbox to keep anything in."""
    InteractiveShell.instance()
    yield
    InteractiveShell.clear_instance()


def echoes(key: str) -> list[Reply]:
    """Ways in which a server says the key back: in text, in code, in errors, in headers, in pages."""
    error = {"message": f"Wrong key {key!r}: {key}, sent as Bearer {key}", "type": key[:40], "code": key, "param": key}
    return [
        Reply(f"Your key is {key} .", code=f"print({key!r})"),
        Reply(f"So it is {key}", chunks=40),
        Reply(status=401, body={"error": error}, headers={"X-Key": quote(key)}),
        Reply(status=400, body={"error": error}),
        Reply(status=500, body=f"<html><title>{key}</title>{key}</html>"),
        Reply(status=404, body={"error": {"message": f"no model for {key}", "code": "model_not_found"}}),
        Reply(events=[{"type": "error", "error": error}]),
        Reply(body={"hello": key}),
        Reply(raw=key.encode()),
    ]


def settings_of(name: str, server: ModelServer, key: str, other: str) -> dict[str, object]:
    """The provider's own key, its like in the address, and keys of all others."""
    address = server.root.replace("://", f"://user:{quote(other, safe='')}@")
    keys = {f"{owner}_api_key": other for owner in ("openai", "azure_openai", "anthropic", "scalebox", "e2b")}
    own = {"azure": "azure_openai_api_key"}.get(name, f"{name}_api_key")
    return {
        **keys,
        own: key,
        "provider": name,
        "executor": "local",
        "openai_base_url": f"{address}/v1",
        "azure_api_base": address,
        "azure_api_version": "2024-10-21",
        "azure_deployment_name": "d",
        "anthropic_base_url": address,
        "debug": True,
        "max_retry": 0,
        "agent_budget_usd": 1_000,
        "agent_budget_tokens": 10**9,
    }


def everything(session: Session, watcher: Watcher, cells: Cells, errors: list[BaseException]) -> Iterator[str]:
    """All that a reader, a file or a stranger could come to see, as text."""
    yield repr(watcher.events)
    yield json.dumps(watcher.bundles)
    yield watcher.text.getvalue()
    yield json.dumps(list(cells), default=str)
    yield repr(session.settings())
    yield config_text(session.settings())
    yield status_text(session)
    yield repr(session._turns)
    yield repr(session._resources.provider(session.settings()))
    for error in errors:
        yield "".join(traceback.format_exception(error))
        yield repr(error) + repr(vars(error)) + repr(error.__context__) + repr(error.__cause__)
    for by in ("cell", "model", "notebook", "day"):
        yield repr(session.ledger.totals(by))
    for file in data_dir().rglob("*"):
        if file.is_file():
            yield file.read_bytes().decode("utf-8", "replace")


def forms(key: str) -> set[str]:
    """The key, its lines, and how they look when they are written as JSON, as Python or in an address."""
    parts = [key, *(line for line in key.splitlines() if len(line) >= 12)]
    return {form for part in parts for form in (part, json.dumps(part)[1:-1], repr(part)[1:-1], quote(part))}


@pytest.mark.parametrize("name", NAMES)
@given(key=KEYS, other=KEYS)
@hypothesis_settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a key is as good as its simplest form; making it simple takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_no_key_shows_anywhere(
    name: str, key: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"run-{next(COUNTER)}"
    folder.mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    monkeypatch.chdir(folder)
    watcher, cells = Watcher(), Cells()
    errors: list[BaseException] = []
    printed = io.StringIO()

    def writer(run_id: str) -> CellWriter:
        return cells

    with (
        ModelServer(echoes(key), models=[f"model-{key}", "d"]) as server,
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        with Session(**settings_of(name, server, key, other)) as session:  # type: ignore[arg-type]
            for _ in range(9):
                try:
                    session.run(RunRequest("Go on."), yes=True, watcher=watcher, writer=writer)
                except SandboxAgentError as exc:
                    errors.append(exc)
            with suppress(SandboxAgentError):
                printed.write("\n".join(session.models()[1]))
            texts = [*everything(session, watcher, cells, errors), printed.getvalue()]
        if key.isascii() and key.isprintable():
            assert len(server.seen) >= 9
            assert cells
            assert (data_dir() / "requests.log").read_text()
        else:
            assert not server.seen
    assert errors
    found = {form: [around(text, form) for text in texts if form in text] for form in forms(key) | forms(other)}
    assert not {form: places for form, places in found.items() if places}


def around(text: str, form: str) -> str:
    """Where it was found, for the one who has to mend it."""
    return text[max(0, text.index(form) - 200) :][:400]


COUNTER = itertools.count()
