"""Notebook files: read as what they claim to be, written as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import NotebookWriteError

if TYPE_CHECKING:
    from nbformat import NotebookNode


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook as nbformat 4.

    Raises:
        NotebookWriteError: it cannot be read, or is not a notebook.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError as exc:
        raise NotebookWriteError(
            f"Cannot read {path}.", why=f"Reason: {exc.strerror}.", hint="Check the path."
        ) from None
    except Exception as exc:  # nbformat raises its own, json's and jsonschema's classes
        reason = " ".join(str(exc).split())[:150]
        raise NotebookWriteError(
            f"{path} is not a notebook that can be read.", why=f"Reason: {reason}", hint="It must be an .ipynb file."
        ) from None
    return give_ids(notebook)


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Validate and write; whatever happens, `path` is the old file or the whole new one.

    Raises:
        NotebookWriteError: it is not valid, or cannot be written.
    """
    import nbformat

    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as exc:
        raise NotebookWriteError(f"The notebook for {path} is not valid.", why=str(exc.message)[:150]) from None
    _replace(path, nbformat.writes(notebook) + "\n")


def check_place(path: Path) -> None:
    """Find out whether a notebook can be written to `path`, and leave what is there.

    Raises:
        NotebookWriteError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part = _part_of(path)
        _open_new(part).close()
        part.unlink()
    except OSError as exc:
        raise _cannot_write(path, exc) from None


def rescue_notebook(notebook: NotebookNode, name: str) -> Path:
    """Write a notebook that cannot be written where it belongs into a new temporary folder, valid or not.

    Args:
        notebook: what would be lost otherwise.
        name: of the file.

    Raises:
        NotebookWriteError: it cannot be written there either.
    """
    import nbformat

    try:
        path = Path(tempfile.mkdtemp(prefix="sandbox-agent-kept-")) / name
    except OSError as exc:
        raise _cannot_write(Path(tempfile.gettempdir()) / name, exc) from None
    _replace(path, nbformat.writes(notebook) + "\n")
    return path


def give_ids(notebook: NotebookNode) -> NotebookNode:
    """Ids for the cells of a notebook older than nbformat 4.5, so that inserted cells can refer to their agent cell."""
    if notebook.nbformat_minor < 5:
        notebook.nbformat_minor = 5
    for cell in notebook.cells:
        if "id" not in cell:
            cell["id"] = secrets.token_hex(4)
    return notebook


def _replace(path: Path, text: str) -> None:
    """Put `text` in the place of `path`, at once: no crash leaves half of it."""
    part = _part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_new(part) as file:
            if path.is_file():
                part.chmod(stat.S_IMODE(path.stat().st_mode))  # who could not read the old one shall not read this
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())  # or a machine that loses power may be left with the name and not the content
        part.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise _cannot_write(path, exc) from None


def _part_of(path: Path) -> Path:
    """The file that is written first. A crash leaves it behind, and the next run takes its place."""
    return path.with_name(f".{path.name}.partial")


def _open_new(part: Path) -> BinaryIO:
    """A new file, and never one that a link of that name leads to: the folder may be a downloaded one."""
    part.unlink(missing_ok=True)
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")


def _cannot_write(path: Path, exc: OSError) -> NotebookWriteError:
    reason = exc.strerror or str(exc)
    return NotebookWriteError(f"Cannot write {path}.", why=f"Reason: {reason}.", hint="Choose another place with -o.")
