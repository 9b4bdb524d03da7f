"""`sandbox-agent packages`: what was installed for the sandboxes of your notebooks."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import COMPLETED, NOT_COMPLETED

if TYPE_CHECKING:
    from ..sandbox import KeptLayer

Commands = argparse._SubParsersAction


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `packages` with its own commands."""
    parser = commands.add_parser("packages", help="list and remove packages of sandboxes", description=__doc__)
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    actions.add_parser("list", help="each folder's packages: size, last use").set_defaults(command=list_packages)
    sub = actions.add_parser("remove", help="delete the packages of a folder; they are fetched again when needed")
    sub.add_argument("names", nargs="*", metavar="NAME", help="a name of the list, or the folder")
    sub.add_argument("--unused", action="store_true", help="those whose folder does not exist any more")
    sub.add_argument("--all", action="store_true", help="all of them")
    sub.set_defaults(command=remove)


def list_packages(_: argparse.Namespace) -> int:
    """Print the layers."""
    from ..sandbox import kept_layers

    total = 0
    for layer in kept_layers():
        total += (size := layer.size())
        used = time.strftime("%Y-%m-%d", time.localtime(layer.used_at)) if layer.used_at else "-"
        gone = "" if _has_folder(layer) else " (gone)"
        print(f"{layer.name:34} {size / 1e6:7,.0f} MB  {used:10}  {_shown(layer.workspace or '-')}{gone}")
    print(f"{total / 1e6:,.0f} MB in all. Remove some with: sandbox-agent packages remove NAME | --unused | --all")
    return COMPLETED


def remove(options: argparse.Namespace) -> int:
    """Delete the layers that were named."""
    from ..sandbox import kept_layers

    layers = list(kept_layers())
    chosen = []
    for name in options.names:
        found = [layer for layer in layers if name == layer.name or name == str(layer.workspace)]
        if not found:
            raise UsageError(
                f"There are no packages {name!r}.", hint="sandbox-agent packages list shows what there is."
            )
        chosen += found
    if options.all:
        chosen = layers
    elif options.unused:
        chosen += [layer for layer in layers if not _has_folder(layer)]
    elif not options.names:
        raise UsageError("Nothing is named.", hint="sandbox-agent packages remove NAME | --unused | --all")
    code = COMPLETED
    for layer in dict.fromkeys(chosen):
        where = _shown(layer.workspace or layer.name)
        if layer.remove():
            print(f"removed: {where}")
        else:
            print(f"in use by a sandbox, kept: {where}")
            code = NOT_COMPLETED
    return code


def _has_folder(layer: KeptLayer) -> bool:
    return layer.workspace is not None and os.path.exists(layer.workspace)


def _shown(name: Path | str) -> str:
    """For a terminal: a folder's name may hold whatever a downloaded archive put there."""
    return str(name) if str(name).isprintable() else repr(str(name))
