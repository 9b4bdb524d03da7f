"""Makes an image to run code in, from the Containerfile that comes with the package."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ...errors import ExecutorError, UsageError
from .engine import Engine

BASE = "docker.io/library/python:3.12-slim"
PACKAGES = ("matplotlib", "numpy", "pandas", "pyarrow")
"""What is installed unless packages are named."""
_NEEDED = "ipykernel>=6.29"


def build(
    engine: Engine,
    tag: str,
    *,
    base: str = BASE,
    packages: Sequence[str] = PACKAGES,
    requirements: Path | None = None,
    wheels: Path | None = None,
) -> str:
    """Make an image, with the engine's own progress on the terminal.

    Args:
        engine: makes it.
        tag: its name.
        base: image that it starts from; it must have Python 3.10 or newer, and pip.
        packages: names of packages, with versions if need be; ipykernel comes by itself.
        requirements: a file that lists further ones.
        wheels: a folder of wheels; then nothing is downloaded.

    Returns:
        The image's id.

    Raises:
        UsageError: a file is not there.
        ExecutorError: it could not be made.
    """
    for path, there in ((requirements, Path.is_file), (wheels, Path.is_dir)):
        if path is not None and not there(path):
            raise UsageError(f"There is no {path}.", hint="Give --requirements a file, --wheels a folder.")
    with tempfile.TemporaryDirectory(prefix="sandbox-agent-image-") as name:
        context = Path(name)
        (context / "Containerfile").write_text(
            (files(__package__) / "Containerfile").read_text("utf-8"), encoding="utf-8"
        )
        wanted = [_NEEDED, *packages]
        if requirements is not None:
            shutil.copyfile(requirements, context / "more.txt")
            wanted.append("-r more.txt")
        (context / "requirements.txt").write_text("\n".join(wanted) + "\n", encoding="utf-8")
        arguments = [f"--build-arg=BASE={base}"]
        if wheels is not None:
            shutil.copytree(wheels, context / "wheels")
            arguments += ["--build-arg=PIP_OPTIONS=--no-index --find-links=/build/wheels", "--network=none"]
        command = [
            engine.path,
            "build",
            "--no-cache",
            f"--file={context / 'Containerfile'}",
            f"--tag={tag}",
            *arguments,
            name,
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    image = engine.inspect(tag)
    if done.returncode != 0 or image is None:
        raise ExecutorError(
            f"The image {tag} was not made.",
            executor="container",
            why=f"{engine} ended with status {done.returncode}; its messages stand above.",
            hint="Check --base, --packages and the network; --wheels FOLDER needs none.",
        )
    return str(image.get("Id", ""))
