"""Every executor with what it needs on this machine, and the settings that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

from tests.support.cloud import running as services
from tests.support.jupyter_servers import jupyter

Settings = Mapping[str, str]


@contextmanager
def _here() -> Generator[Settings]:
    yield {}


@contextmanager
def _remote() -> Generator[Settings]:
    with jupyter("server") as server:
        yield {"AGENT_REMOTE_URL": server.url, "AGENT_REMOTE_TOKEN": server.token}


@contextmanager
def _e2b() -> Generator[Settings]:
    with services.start("e2b") as cloud:
        yield {"E2B_API_KEY": cloud.key, "E2B_API_URL": cloud.url, "E2B_SANDBOX_URL": cloud.url}


ENGINES: dict[str, Callable[[], AbstractContextManager[Settings]]] = {
    "sandbox": _here,
    "local": _here,
    "remote": _remote,
    "e2b": _e2b,
}
