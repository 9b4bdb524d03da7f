"""Every executor with what it needs on this machine, and the settings that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.support.jupyter_servers import jupyter
from tests.support.podman import podman_is_missing, shared_podman

Settings = Mapping[str, str]


@contextmanager
def _here() -> Generator[Settings]:
    yield {}


@contextmanager
def _remote() -> Generator[Settings]:
    with jupyter("server") as server:
        yield {"AGENT_REMOTE_URL": server.url, "AGENT_REMOTE_TOKEN": server.token}


@contextmanager
def _container() -> Generator[Settings]:
    if why := podman_is_missing():
        pytest.skip(why)
    podman = shared_podman()
    image = podman.image_with("localhost/demo", ["matplotlib", "pandas"])
    yield {"AGENT_CONTAINER_ENGINE": podman.path, "AGENT_CONTAINER_IMAGE": image}
    assert podman.containers() == []


ENGINES: dict[str, Callable[[], AbstractContextManager[Settings]]] = {
    "sandbox": _here,
    "local": _here,
    "remote": _remote,
    "container": _container,
}
