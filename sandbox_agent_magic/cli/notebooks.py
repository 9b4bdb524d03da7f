"""`sandbox-agent run`, `expand` and `demo`: notebooks without a browser."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from .. import scratch
from ..errors import NotebookWriteError, UsageError
from ..settings.options import overrides_of
from . import COMPLETED, NOT_COMPLETED, add_run_options

if TYPE_CHECKING:
    from nbformat import NotebookNode

Commands = argparse._SubParsersAction
_DEMO_SEED = 42
_MOST_JOBS = 100


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `run`, `expand` and `demo`."""
    run_parser = commands.add_parser(
        "run",
        help="execute notebooks without a browser and make real cells of what their agent cells did",
        description="Execute each NOTEBOOK in a kernel of its own and expand it. Options apply to every agent cell "
        "that does not say otherwise. The exit code is 1 where a cell failed or an agent cell reached no answer; what "
        "was done is written even so. Of several notebooks, those that are finished are skipped the next time.",
    )
    run_parser.add_argument("notebook", type=Path, nargs="+", metavar="NOTEBOOK", help="or a folder of notebooks")
    run_parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="default: NAME-run.ipynb beside NOTEBOOK; of several, a folder"
    )
    run_parser.add_argument(
        "-j", "--jobs", type=_jobs, metavar="N", help="notebooks at a time; default 1; auto: one for each core"
    )
    run_parser.add_argument("--force", action="store_true", help="of several: also those that are finished")
    run_parser.add_argument("--time-limit", type=_seconds, metavar="SECONDS", help="of each notebook; default: none")
    add_run_options(run_parser)
    run_parser.set_defaults(command=run)

    expand_parser = commands.add_parser(
        "expand",
        help="make real cells of what agent cells did in a notebook that something else executed",
        description="Turn the cells that NOTEBOOK keeps in the outputs of its agent cells, as after `jupyter execute`, "
        "into real cells.",
    )
    expand_parser.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    expand_parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="default: NOTEBOOK itself")
    expand_parser.set_defaults(command=expand)

    demo_parser = commands.add_parser(
        "demo",
        help="run the example notebook with the embedded model",
        description="Run the example with the embedded model in the sandbox; write the finished notebook and its HTML.",
    )
    demo_parser.add_argument("-o", "--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    demo_parser.set_defaults(command=demo)


def run(options: argparse.Namespace) -> int:
    """Execute and expand notebooks."""
    if options.executor == "local":
        raise UsageError(
            "`run` cannot choose the local executor for a whole notebook.",
            why="Running code without the sandbox is decided cell by cell.",
            hint="Write %%agent --executor local --yes in the cells that need it.",
        )
    from .many.plan import is_pattern, result_beside

    scratch.sweep()
    overrides = {name: value for name, value in overrides_of(options).items() if value is not None}
    first: Path = options.notebook[0]
    several = len(options.notebook) > 1 or first.is_dir() or is_pattern(first)
    if several or options.jobs is not None or options.force or options.time_limit is not None:
        from .many import run_many

        return run_many(
            options.notebook,
            output=options.output,
            overrides=overrides,
            jobs=options.jobs or 1,
            force=options.force,
            time_limit_s=options.time_limit,
        )
    return run_one(first, options.output or result_beside(first), overrides)


def run_one(source: Path, target: Path, overrides: Mapping[str, object]) -> int:
    """Execute one notebook, show how it goes on and what came of it.

    Args:
        source: the notebook.
        target: where the finished one goes.
        overrides: settings that win over the environment's, by name in lower case.
    """
    from .execution import environment_with, execute, settings_of
    from .following import TextFollower
    from .words import shown

    digest = settings_of(source, overrides)[1]
    environment = environment_with(overrides)
    outcome = execute(source, target, environment, follower=TextFollower(sys.stderr), settings_sha256=digest)
    place = shown(outcome.written)
    if outcome.misplaced:
        print(outcome.misplaced, file=sys.stderr)
    if outcome.status == "interrupted":
        print(f"What was done before the interrupt is in {place}.", file=sys.stderr)
        raise KeyboardInterrupt
    if outcome.stopped_by:
        print(f"{outcome.stopped_by}\nWhat was done before it is in {place}.", file=sys.stderr)
        return NOT_COMPLETED
    print(place)
    for end in outcome.unanswered:
        print(f"An agent cell did not complete: {end}", file=sys.stderr)
    return COMPLETED if outcome.status == "completed" else NOT_COMPLETED


def expand(options: argparse.Namespace) -> int:
    """Expand one notebook."""
    from ..notebook import expand as expansion
    from ..notebook.files import read_notebook, write_notebook
    from .words import shown

    target: Path = options.output or options.notebook
    write_notebook(expansion.expand(read_notebook(options.notebook)), target)
    print(shown(target))
    return COMPLETED


def demo(options: argparse.Namespace) -> int:
    """Run the shipped example with the embedded model."""
    from .. import model_store
    from ..notebook.files import read_notebook
    from ..settings import load

    settings = load()
    model_store.resolve(settings.agent_local_model)  # says how to fetch it, before anything is started
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("sandbox_agent_magic") / "demo") as shipped:
        example = shipped if shipped.is_dir() else Path(__file__).parents[2] / "examples"
        for name in ("demo.ipynb", "seattle-weather.csv"):
            shutil.copyfile(example / name, folder / (name if name != "demo.ipynb" else "demo-source.ipynb"))
    overrides = {"agent_provider": "local", "temperature": 0, "agent_local_seed": _DEMO_SEED}
    target = folder / "demo.ipynb"
    code = run_one(folder / "demo-source.ipynb", target, overrides)
    (folder / "demo-source.ipynb").unlink()
    finished = read_notebook(target)
    _write_html(finished, target.with_suffix(".html"))
    for cell in finished.cells:
        if cell.cell_type == "markdown" and "sandbox_agent" in cell.metadata:
            print(f"\n{cell.source}")
    print(f"\nNotebook: {target}\nHTML:     {target.with_suffix('.html')}")
    return code


def _write_html(notebook: NotebookNode, path: Path) -> None:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_notebook_node(notebook)
    try:
        path.write_text(body, encoding="utf-8")
    except OSError as exc:
        raise NotebookWriteError(f"Cannot write {path}.", why=f"Reason: {exc.strerror}.") from None


def _jobs(text: str) -> int:
    """The value of --jobs."""
    if text == "auto":
        from ..providers.local_server import default_threads

        return default_threads()
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number from 1 to {_MOST_JOBS} nor auto")
    return int(text)


def _seconds(text: str) -> float:
    """The value of --time-limit."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 1 or more")
    return seconds
