"""Every executor with what it needs on this machine, and the settings that lead to it."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.cloud import running as services
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


@contextmanager
def _e2b() -> Generator[Settings]:
    with services.start("e2b") as cloud:
        yield {"E2B_API_KEY": cloud.key, "E2B_API_URL": cloud.url, "E2B_SANDBOX_URL": cloud.url}


@contextmanager
def _scalebox() -> Generator[Settings]:
    with services.start("scalebox", python=command("scalebox").parent / "python") as cloud:
        yield {
            "SCALEBOX_API_KEY": cloud.key,
            "SCALEBOX_DOMAIN": f"{cloud.address}/v1",
            "SSL_CERT_FILE": str(services.CERTIFICATE),
        }


def command(executor: str) -> Path:
    """The command `sandbox-agent`, of the environment that an executor needs."""
    if executor != "scalebox":
        return Path(sysconfig.get_path("scripts")) / "sandbox-agent"
    found = Path(os.environ.get("SCALEBOX_VENV", "")) / "bin" / "sandbox-agent"
    if not os.environ.get("SCALEBOX_VENV") or not found.is_file():
        pytest.skip("SCALEBOX_VENV does not name an environment with Scalebox's SDK; `make test` makes one")
    return found


ENGINES: dict[str, Callable[[], AbstractContextManager[Settings]]] = {
    "sandbox": _here,
    "local": _here,
    "remote": _remote,
    "e2b": _e2b,
    "scalebox": _scalebox,
    "container": _container,
}
