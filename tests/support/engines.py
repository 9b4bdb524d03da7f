"""Every executor with what it needs on this machine, and the settings that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

from tests.support.jupyter_servers import jupyter

Settings = Mapping[str, str]


@contextmanager
def _here() -> Generator[Settings]:
    yield {}


@contextmanager
def _remote() -> Generator[Settings]:
    with jupyter("server") as server:
        yield {"AGENT_REMOTE_URL": server.url, "AGENT_REMOTE_TOKEN": server.token}


ENGINES: dict[str, Callable[[], AbstractContextManager[Settings]]] = {
    "sandbox": _here,
    "local": _here,
    "remote": _remote,
}
