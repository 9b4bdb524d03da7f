"""A real podman for the tests: storage of its own, and an image made of this machine's Python; nothing is pulled.

The base is the running interpreter with the libraries that it needs, as a tar file; `sandbox-agent image build` puts
ipykernel on it, from wheels that are made of what is installed here.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.metadata
import io
import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sandbox_agent_magic.executors.container import ContainerExecutor, Target
from sandbox_agent_magic.executors.container.build import build
from sandbox_agent_magic.executors.container.engine import LABEL, find

BASE, IMAGE = "localhost/base", "localhost/sandbox-agent"
PROGRAMS = ("cat", "id", "ls", "mount", "nsenter", "sh", "sleep", "su", "true", "umount", "unshare")
"""Beside Python: what attacks try."""
_FOLDERS = (
    "etc",
    "home",
    "proc",
    "sys",
    "dev",
    "run",
    "opt",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/local/bin",
    "var",
)
_LEFT_OUT = {
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
_MORE_LIBRARIES = (
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
)
"""What wheels expect of a system, beside what Python itself needs."""


@dataclass(frozen=True)
class Podman:
    """The engine: `path` is what AGENT_CONTAINER_ENGINE gets."""

    path: str

    def __call__(self, *arguments: str) -> str:
        """Run one of its commands, which must work."""
        done = subprocess.run([self.path, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def executor(self, image: str = IMAGE, **more: object) -> ContainerExecutor:
        """An executor on it."""
        return ContainerExecutor(Target(self.path, image), **more)  # type: ignore[arg-type]

    def image_with(self, tag: str, packages: Sequence[str]) -> str:
        """The name of an image that has packages which are installed here too; made if need be."""
        if find(self.path).inspect(tag) is None:
            with tempfile.TemporaryDirectory(prefix="wheels-") as name:
                write_wheels(Path(name, "wheels"), ["ipykernel", *packages])
                build(find(self.path), tag, base=IMAGE, packages=packages, wheels=Path(name, "wheels"))
        return tag

    def containers(self) -> list[str]:
        """Names of our containers, running or not."""
        return self("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}}").split()


def podman_is_missing() -> str:
    """Why there can be none here; empty where there can."""
    missing = [name for name in ("podman", "runc") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    with contextlib.suppress(OSError, KeyError):
        if os.getuid() == 0 or pwd.getpwuid(os.getuid()).pw_name in _names("/etc/subuid"):
            return ""
    return "this user has no subordinate ids (/etc/subuid)"


def _names(path: str) -> set[str]:
    return {line.partition(":")[0] for line in Path(path).read_text().splitlines()}


@functools.cache
def shared_podman() -> Podman:
    """The one of this test run."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(own_podman())


@contextlib.contextmanager
def own_podman() -> Iterator[Podman]:
    """Make it, with the images `BASE` and `IMAGE`, and remove all of it in the end. About ten seconds."""
    folder = Path(tempfile.mkdtemp(prefix="containers-", dir="/tmp"))
    try:
        base_file = folder / "base.tar"
        with tarfile.open(base_file, "w") as tar:
            _write_base(tar)
        podman = _working(folder, base_file)
        base_file.unlink()
        wheels = folder / "wheels"
        write_wheels(wheels, ["ipykernel"])
        build(find(podman.path), IMAGE, base=BASE, packages=(), wheels=wheels)
        yield podman
        podman("rm", "--all", "--force")
    finally:
        find.cache_clear()
        for driver in ("overlay", "vfs"):
            subprocess.run(["umount", str(folder / "root" / driver)], capture_output=True, check=False)
        if os.getuid() != 0:  # files of its subordinate ids are its own
            subprocess.run(["podman", "unshare", "rm", "-rf", str(folder / "root")], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _working(folder: Path, base: Path) -> Podman:
    """The first storage driver with which a container starts: overlay is quick, but not on each file system."""
    # Without these, it asks for more open files and processes than a container of a CI machine may have.
    (folder / "containers.conf").write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
    script = folder / "podman"
    failure = ""
    for driver in ("overlay", "vfs"):
        options = f"--root {folder}/root --runroot {folder}/run --storage-driver {driver} --runtime runc"
        with_conf = f"CONTAINERS_CONF={folder}/containers.conf exec podman {options} --cgroup-manager cgroupfs"
        script.write_text(f'#!/bin/sh\n{with_conf} "$@"\n')
        script.chmod(0o755)
        podman = Podman(str(script))
        try:
            podman("import", "--quiet", str(base), BASE)
            podman("run", "--rm", "--network=none", BASE, "true")
            return podman
        except AssertionError as error:
            failure = str(error)
            shutil.rmtree(folder / "root", ignore_errors=True)
            shutil.rmtree(folder / "run", ignore_errors=True)
    pytest.fail(f"podman cannot start a container here: {failure}")


# ---- the base image ----------------------------------------------------------------------------------------------


def _write_base(tar: tarfile.TarFile) -> None:
    """The smallest system with Python in it."""
    stdlib, python = Path(sysconfig.get_path("stdlib")), Path(os.path.realpath(sys.executable))
    root = f"usr/local/lib/{stdlib.name}"
    written: set[str] = set()

    def add(source: Path, name: str) -> None:
        for parent in reversed(Path(name).parents[:-1]):
            folder(str(parent))
        if name not in written:
            written.add(name)
            tar.add(source, name, recursive=False, filter=_of_root)

    def folder(name: str, mode: int = 0o755) -> None:
        if name not in written:
            written.add(name)
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)

    def link(name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        tar.addfile(info)

    folder("usr")
    for name in ("bin", "lib", "lib64"):
        link(name, f"usr/{name}")
    link("sbin", "usr/bin")
    for name in ("usr/local", *_FOLDERS):
        folder(name)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700)):
        folder(name, mode)
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
        info = tarfile.TarInfo(f"etc/{name}")
        info.size, info.mode = len(text), 0o644
        tar.addfile(info, io.BytesIO(text.encode()))
    needed = _libraries(python)
    for path in _files(stdlib):
        add(path, f"{root}/{path.relative_to(stdlib)}")
        if path.suffix == ".so":
            needed |= _libraries(path)
    site = Path(sysconfig.get_path("purelib"))
    for package in (site / "pip", *site.glob("pip-*.dist-info")):
        for path in _files(package):
            add(path, f"{root}/site-packages/{path.relative_to(site)}")
    add(python, f"usr/local/bin/{python.name}")
    for name in {"python", "python3"} - {python.name}:
        link(f"usr/local/bin/{name}", python.name)
    for program in PROGRAMS:
        found = Path(os.path.realpath(shutil.which(program) or "/bin/false"))
        add(found, f"usr/bin/{program}")
        needed |= _libraries(found)
    libc = next(path for path in needed if path.name == "libc.so.6")
    needed |= {path for name in _MORE_LIBRARIES if (path := libc.parent / name).exists()}
    for path in needed:
        place = "lib64" if path.parent.name == "lib64" else "lib"
        add(Path(os.path.realpath(path)), f"usr/{place}/{path.name}")


def _files(folder: Path) -> Iterator[Path]:
    """All that a program reads; what is compiled as well, since in a container nothing can be."""
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("config-"))
        yield from (
            Path(current, name) for name in sorted(files) if not name.endswith((".opt-1.pyc", ".opt-2.pyc", ".a"))
        )


def _libraries(program: Path) -> set[Path]:
    """The shared libraries that the loader would give it, and the loader."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", listed)}


def _of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


# ---- wheels ------------------------------------------------------------------------------------------------------


def write_wheels(folder: Path, names: Sequence[str]) -> None:
    """Make wheels of packages that are installed here, and of all that they need."""
    folder.mkdir()
    todo, found = list(names), {}
    while todo:
        distribution = importlib.metadata.distribution(todo.pop())
        if distribution.name not in found:
            found[distribution.name] = distribution
            needed = map(Requirement, distribution.requires or [])
            todo += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    for distribution in found.values():
        _write_wheel(folder, distribution)


def _write_wheel(folder: Path, distribution: importlib.metadata.Distribution) -> None:
    tags = [tag.split("-") for tag in re.findall(r"^Tag: (.+)$", distribution.read_text("WHEEL") or "", re.MULTILINE)]
    tag = "-".join(".".join(dict.fromkeys(column)) for column in zip(*tags, strict=True))
    listed = [file for file in distribution.files or [] if ".." not in file.parts and file.suffix != ".pyc"]
    info = next(file.parts[0] for file in listed if file.name == "WHEEL")
    kept = [file for file in listed if file.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")]
    with zipfile.ZipFile(folder / f"{info.removesuffix('.dist-info')}-{tag}.whl", "w") as wheel:
        for file in kept:
            wheel.write(Path(str(file.locate())), str(file))
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in (*kept, f"{info}/RECORD")))
