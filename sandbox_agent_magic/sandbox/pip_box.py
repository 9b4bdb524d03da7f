"""The sandbox that pip runs in: it has network, and sees no file or secret of the reader.

It sees the system, the Python environment, and of pip's configuration only what names the index: addresses, proxy and
certificates. Passwords in an index's address come along, since pip could not log in without; no code of a package runs
in here that could read them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from . import bubblewrap, landlock, seccomp
from .limits import SandboxLimits
from .plan import Launcher, Plan, Start, environment_folders, interpreter, pipe

WORK = "/box"
_HOME = "/tmp/home"  # noqa: S108 - inside, where it is the sandbox's own
_OPTIONS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "proxy",
    "cert",
    "client-cert",
    "timeout",
    "default-timeout",
    "retries",
)
_LISTS = ("extra-index-url", "find-links", "trusted-host")
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/etc/crypto-policies/back-ends",
)


@dataclass(frozen=True, slots=True)
class PipConfiguration:
    """How pip reaches its index."""

    variables: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    """Folders of wheels and files of certificates that it names."""


def configuration() -> PipConfiguration:
    """What the reader's pip is configured with, as far as it concerns the index."""
    command = [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=False)
    found: dict[str, str] = {}
    # pip prints files before the environment, and a command's section wins over [global].
    sections = {"global": 0, "install": 1, ":env:": 2}
    rows = [match for line in done.stdout.splitlines() if (match := re.fullmatch(r"(\S+?)\.([\w-]+)=(.*)", line))]
    for section, name, text in sorted((row.groups() for row in rows), key=lambda row: sections.get(row[0], -1)):
        if section in sections and name in _OPTIONS:
            value = str(ast.literal_eval(text))
            found[name] = " ".join(value.split()) if name in _LISTS else value.strip()
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found.items()}
    for name in (*_VARIABLES, *map(str.upper, _VARIABLES), *_CERTIFICATES):
        if name in os.environ:
            variables[name] = os.environ[name]
    values = [variables.get(name, "") for name in _CERTIFICATES]
    values += [found.get(name, "") for name in ("cert", "client-cert")]
    for name in ("index-url", "extra-index-url", "find-links"):
        values += found.get(name, "").split()
    return PipConfiguration(variables, tuple(dict.fromkeys(path for value in values if (path := _path(value)))))


def _path(value: str) -> Path | None:
    """The local path that a value names, if there is one to show; never the root, a home or what is visible anyway."""
    path = Path(unquote(urlsplit(value).path)) if value.startswith("file:") else Path(value)
    if path.name == "simple":
        path = path.parent  # an index's pages point to files beside them
    if not value or not path.is_absolute() or not path.exists():
        return None
    path = Path(os.path.normpath(path))
    if Path(os.path.expanduser("~")).is_relative_to(path) or any(
        path.is_relative_to(name) for name in ("/usr", *_SYSTEM)
    ):
        return None
    return path


def _libraries(folders: Sequence[Path]) -> dict[str, str]:
    """Where an interpreter that was moved finds its own libraries, such as OpenSSL's."""
    found = [
        name
        for name in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        if any(Path(name).is_relative_to(folder) for folder in folders)
    ]
    return {"LD_LIBRARY_PATH": os.pathsep.join(found)} if found else {}


@dataclass(frozen=True, slots=True)
class PipBox:
    """Where pip works."""

    work: Path
    """The one folder that it may write to."""
    layer: Path
    """What was installed before, read-only."""
    uid: int | None
    """As root, the user to run as."""
    stage: Path
    """As root, an empty folder that all can enter."""


def start(
    launcher: Launcher, config: PipConfiguration, box: PipBox, wanted: Sequence[str], closing: ExitStack
) -> Start:
    """How to start `pip_inside.py`, given on stdin, for the requirements `wanted`, in `launcher`'s kind of sandbox."""
    folders = environment_folders()
    shown = [path for path in config.paths if not any(path.is_relative_to(folder) for folder in folders)]
    plan = Plan(
        workspace=box.work,
        limits=SandboxLimits(),
        folders=folders,
        tmp=box.work / "tmp",
        uid=box.uid,
        stage=box.stage,
        layer=box.layer,
        files={str(path): path for path in shown},
    )
    if isinstance(launcher, landlock.Launcher):
        request = json.dumps({"work": str(box.work), "layer": str(box.layer), "requirements": wanted})
        environment = _variables(config, folders, work=str(box.work), home=str(box.work / "tmp"))
        return Start(launcher.networked(plan, [*_SYSTEM, *map(str, shown)], [request]), environment)
    assert isinstance(launcher, bubblewrap.Launcher)  # noqa: S101 - there is no third kind
    request = json.dumps({"work": WORK, "layer": bubblewrap.LAYER, "requirements": wanted})
    return _in_bubblewrap(launcher, plan, _variables(config, folders, work=WORK, home=_HOME), request, closing)


def _variables(config: PipConfiguration, folders: Sequence[Path], *, work: str, home: str) -> dict[str, str]:
    """pip's whole environment."""
    return {
        "PIP_RETRIES": "1",
        **config.variables,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": f"{work}/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_CACHE_DIR": f"{work}/cache",
        "PIP_KEYRING_PROVIDER": "disabled",
        **_libraries(folders),
    }


def _in_bubblewrap(
    launcher: bubblewrap.Launcher, plan: Plan, variables: Mapping[str, str], request: str, closing: ExitStack
) -> Start:
    user, program, staged = bubblewrap.as_user(launcher, plan.uid, plan.stage, plan.hidden())
    seccomp_fd = pipe(closing, seccomp.program(os.uname().machine))
    passwd_fd = pipe(closing, bubblewrap.PASSWD)
    # fmt: off
    command = [
        program, "--unshare-all", "--share-net", "--unshare-user", "--disable-userns",
        "--uid", str(bubblewrap.INSIDE_UID), "--gid", str(bubblewrap.INSIDE_UID), "--hostname", "pip",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--proc", "/proc", "--dev", "/dev", "--size", str(16 << 20), "--tmpfs", "/tmp", "--dir", _HOME,  # noqa: S108
    ]
    # fmt: on
    command += bubblewrap.system(plan.folders, staged)
    for name in _SYSTEM:
        command += ["--ro-bind-try", name, name]
    for path in plan.files.values():
        command += ["--ro-bind", str(staged.get(path, path)), str(path)]
    if plan.layer:
        command += ["--ro-bind", str(staged.get(plan.layer, plan.layer)), bubblewrap.LAYER]
    command += ["--ro-bind-data", str(passwd_fd), "/etc/passwd"]
    command += ["--bind", str(staged.get(plan.workspace, plan.workspace)), WORK, "--chdir", WORK, "--remount-ro", "/"]
    for name, value in variables.items():
        command += ["--setenv", name, value]
    command += ["--seccomp", str(seccomp_fd), "--", str(interpreter()), "-P", "-", request]
    return Start([*user, *command], {"PATH": os.environ.get("PATH", os.defpath)}, (seccomp_fd, passwd_fd))
