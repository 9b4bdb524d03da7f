"""The sandbox that pip runs in: it has network, and sees no file or secret of the reader.

It sees the system, the Python environment, and of pip's configuration only what names the index: addresses, proxy and
certificates. Passwords in an index's address come along, since pip could not log in without; no code of a package runs
in here that could read them.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from . import bubblewrap

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


def command(
    launcher: bubblewrap.Launcher,
    config: PipConfiguration,
    *,
    uid: int | None,
    stage: Path,
    work: Path,
    layer: Path,
    seccomp_fd: int,
    passwd_fd: int,
    argument: str,
) -> list[str]:
    """The command line that runs `pip_inside.py`, read from stdin.

    Args:
        launcher: the bwrap binary.
        config: pip's.
        uid: as root, the user to run as.
        stage: as root, an empty folder that all can enter.
        work: the one folder it may write to; seen as `WORK`.
        layer: what was installed before, read-only.
        seccomp_fd: the system call filter.
        passwd_fd: a passwd file.
        argument: for the script.
    """
    folders = bubblewrap.environment_folders()
    shown = [path for path in config.paths if not any(path.is_relative_to(folder) for folder in folders)]

    def build(program: str, staged: Mapping[Path, Path]) -> list[str]:
        # fmt: off
        arguments = [
            program, "--unshare-all", "--share-net", "--unshare-user", "--disable-userns",
            "--uid", str(bubblewrap.INSIDE_UID), "--gid", str(bubblewrap.INSIDE_UID), "--hostname", "pip",
            "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
            "--proc", "/proc", "--dev", "/dev", "--size", str(16 << 20), "--tmpfs", "/tmp", "--dir", _HOME,  # noqa: S108
        ]
        # fmt: on
        arguments += bubblewrap.system(folders, staged)
        for name in _SYSTEM:
            arguments += ["--ro-bind-try", name, name]
        for path in shown:
            arguments += ["--ro-bind", str(staged.get(path, path)), str(path)]
        arguments += ["--ro-bind", str(staged.get(layer, layer)), bubblewrap.LAYER]
        arguments += ["--ro-bind-data", str(passwd_fd), "/etc/passwd"]
        arguments += ["--bind", str(staged.get(work, work)), WORK, "--chdir", WORK, "--remount-ro", "/"]
        variables = {
            "PIP_RETRIES": "1",
            **config.variables,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": _HOME,
            "TMPDIR": f"{WORK}/tmp",  # noqa: S108
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_CACHE_DIR": f"{WORK}/cache",
            "PIP_KEYRING_PROVIDER": "disabled",
            **_libraries(folders),
        }
        for name, value in variables.items():
            arguments += ["--setenv", name, value]
        return [*arguments, "--seccomp", str(seccomp_fd), "--", sys.executable, "-P", "-", argument]

    return bubblewrap.as_user(launcher, uid, stage, [*folders, work, layer, *shown], build)
