"""A real JupyterLab or Notebook 7 on loopback, with settings, kernels and files of its own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_S = 120
"""A cold start was seen to take 18 s on a quiet machine."""


@dataclass
class Server:
    """A running Jupyter server."""

    url: str
    token: str
    folder: Path
    """The notebooks lie here."""
    app: str
    """`lab` or `notebook`."""
    environment: dict[str, str] = field(default_factory=dict)
    name: str = ""
    """For files that are about it."""

    def enable_module(self, enabled: bool) -> None:
        """Whether pages that load from now on have our front-end module."""
        config = Path(self.environment["JUPYTER_CONFIG_DIR"]) / "labconfig" / "page_config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"disabledExtensions": {} if enabled else {"sandbox-agent-magic": True}}))

    def set(self, plugin: str, settings: dict[str, object]) -> None:
        """The reader's settings of a plug-in of the front end, for pages that load from now on."""
        folder = Path(self.environment["JUPYTER_CONFIG_DIR"]) / "lab" / "user-settings"
        file = folder / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))

    def page(self, name: str) -> str:
        """The address of a notebook."""
        path = f"lab/workspaces/{secrets.token_hex(4)}/tree" if self.app == "lab" else "notebooks"
        return f"{self.url}/{path}/{name}?token={self.token}"


@contextmanager
def jupyter_server(
    folder: Path,
    *,
    app: str = "lab",
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
    arguments: Sequence[str] = (),
    name: str = "",
) -> Iterator[Server]:
    """Start one whose notebooks lie in `folder`; `python` is of the environment that has it."""
    home = folder.parent / f"{folder.name}-home"
    home.mkdir(exist_ok=True)
    quiet = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True, exist_ok=True)
    # No question on news over the page, and none is asked of the network.
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    token = secrets.token_hex(16)
    own = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER_", "AGENT_", "OPENAI_"))},
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        # The embedded model and the sandbox's packages stay where they are.
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        **(environment or {}),
    }
    command = [
        *(python, "-P", "-m", "jupyterlab" if app == "lab" else "notebook"),
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.shutdown_no_activity_timeout=0",
        "--ContentsManager.allow_hidden=False",
        f"--{'LabApp' if app == 'lab' else 'JupyterNotebookApp'}.expose_app_in_browser=True",
        *arguments,
    ]
    log = folder.parent / f"{folder.name}-{app}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=own, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            url = _address(process, home / "runtime", log)
            yield Server(url, token, folder, app, own, name or app)
        finally:
            _end(process)


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        for found in runtime.glob(f"jpserver-{process.pid}.json"):
            try:
                url = str(json.loads(found.read_text())["url"]).rstrip("/")
                with urllib.request.urlopen(f"{url}/api", timeout=5):
                    return url
            except (OSError, ValueError):
                break
        time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server ends its kernels; what does not end in time is killed with the server's process group."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
