"""`sandbox-agent image`: images for code that runs in a container (`-e container`)."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import COMPLETED

Commands = argparse._SubParsersAction


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `image` with its own commands."""
    parser = commands.add_parser("image", help="make the image that -e container uses", description=__doc__)
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sub = actions.add_parser("build", help="make an image with ipykernel and your packages in it")
    sub.add_argument(
        "--base",
        metavar="IMAGE",
        help="image to start from, with Python 3.10 or newer and pip; default: python:3.12-slim of Docker Hub",
    )
    sub.add_argument(
        "--packages",
        nargs="+",
        metavar="NAME",
        help="packages, such as polars scipy==1.14.1, beside ipykernel; default: matplotlib numpy pandas pyarrow",
    )
    sub.add_argument("--requirements", type=Path, metavar="FILE", help="a requirements.txt with further ones")
    sub.add_argument("--wheels", type=Path, metavar="FOLDER", help="install from these wheels, without a network")
    sub.add_argument("--tag", metavar="NAME", help="the image's name; default: AGENT_CONTAINER_IMAGE")
    sub.set_defaults(command=build)


def build(options: argparse.Namespace) -> int:
    """Make an image."""
    from ..executors.container import DEFAULT_IMAGE, target_of
    from ..executors.container import build as building
    from ..executors.container.engine import find
    from ..sandbox import requirements
    from ..settings import load

    target = target_of(load())
    tag = options.tag or target.image
    packages = building.PACKAGES if options.packages is None else requirements(options.packages)
    engine = find(target.engine)
    building.build(
        engine,
        tag,
        base=options.base or building.BASE,
        packages=packages,
        requirements=options.requirements,
        wheels=options.wheels,
    )
    print(f"{engine} has the image {tag}.")
    use = "" if tag in (DEFAULT_IMAGE, target.image) else f"AGENT_CONTAINER_IMAGE={tag} in the environment, then "
    print(f"Use it: {use}%%agent -e container")
    return COMPLETED
