"""`sandbox-agent run`, `expand` and `demo`: notebooks without a browser."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotebookWriteError, UsageError
from ..folders import environment_of
from ..settings.options import overrides_of
from . import COMPLETED, NOT_COMPLETED, add_run_options

if TYPE_CHECKING:
    from nbclient.exceptions import CellExecutionError
    from nbformat import NotebookNode

Commands = argparse._SubParsersAction
_DEMO_SEED = 42
_KERNEL_START_S = 180
"""A kernel takes a second; on a busy machine with a cold disk it was seen to take more than a minute."""


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `run`, `expand` and `demo`."""
    run_parser = commands.add_parser(
        "run",
        help="execute a notebook without a browser and make real cells of what its agent cells did",
        description="Execute NOTEBOOK and expand it. Options apply to every agent cell that does not say otherwise. "
        "The exit code is 1 where a cell failed or an agent cell reached no answer; what was done is written even so.",
    )
    run_parser.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    run_parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="default: NAME-run.ipynb beside NOTEBOOK")
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
    """Execute and expand one notebook."""
    source: Path = options.notebook
    target: Path = options.output or source.with_name(f"{source.stem}-run.ipynb")
    if options.executor == "local":
        raise UsageError(
            "`run` cannot choose the local executor for a whole notebook.",
            why="Running code without the sandbox is decided cell by cell.",
            hint="Write %%agent --executor local --yes in the cells that need it.",
        )
    environment = {name.upper(): str(value) for name, value in overrides_of(options).items() if value is not None}
    environment["AGENT_INSERT"] = "cells"
    return execute(source, target, environment)


def execute(source: Path, target: Path, environment: dict[str, str]) -> int:
    """Run `source` in its own kernel and write it, expanded, to `target`; what was done before an error is kept.

    Args:
        source: the notebook to run; its folder is the kernel's working directory, the sandbox's folder lies beside it.
        target: where the finished notebook goes.
        environment: added to the kernel's environment.
    """
    from nbclient.exceptions import CellExecutionError as Failed
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    from ..notebook import expand as expansion
    from .following import FollowedClient

    notebook = expansion.drop_earlier(expansion.read_notebook(source))
    if not target.exists():  # a place that cannot be written is better found before a model is asked
        expansion.write_notebook(notebook, target)
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0

    def on_start(cell: NotebookNode, cell_index: int) -> None:  # noqa: ARG001
        nonlocal done
        if cell.cell_type == "code":
            done += 1
            print(f"[{done}/{total}] {_first_line(cell.source)}", file=sys.stderr, flush=True)

    always = {"AGENT_TRUST_OUTPUT": "false", **environment_of(source)}
    problem = ""
    # Unix sockets in a folder of our own: an open TCP port would let other users of the machine listen.
    with tempfile.TemporaryDirectory(prefix="sandbox-agent-") as sockets:
        connection = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}
        client = FollowedClient(
            notebook,
            out=sys.stderr,
            timeout=None,
            startup_timeout=_KERNEL_START_S,
            kernel_name="python3",
            config=Config({"ConnectionFileMixin": connection}),
            resources={"metadata": {"path": str(source.resolve().parent)}},
            on_cell_start=on_start,
        )
        log = Path(sockets) / "kernel.log"
        try:
            with log.open("wb") as own_words:  # a kernel's log is not the reader's concern, unless it does not start
                client.execute(env={**os.environ, **environment, **always}, stderr=own_words)
        except Failed as exc:
            problem = _failure(exc)
        except (DeadKernelError, RuntimeError, AssertionError) as exc:
            # On Ctrl-C nbclient ends the kernel by itself, and then stumbles over its absence.
            if getattr(client, "_async_cleanup_kernel_future", None) is not None:
                print(f"What was done before the interrupt is in {target}.", file=sys.stderr)
                raise KeyboardInterrupt from None
            if isinstance(exc, AssertionError):
                raise
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            problem = " ".join(["The notebook's kernel did not start, or died.", *last])
        finally:
            expansion.write_notebook(expansion.expand(notebook), target)
    if problem:
        print(f"{problem}\nWhat was done before it is in {target}.", file=sys.stderr)
        return NOT_COMPLETED
    print(target)
    ends = [end for cell in notebook.cells for end in _ends(cell)]
    for end in ends:
        print(f"An agent cell did not complete: {end}", file=sys.stderr)
    return NOT_COMPLETED if ends else COMPLETED


def _failure(error: CellExecutionError) -> str:
    """Why a cell ended the run."""
    if error.ename == "AgentInterrupted":
        return "An agent cell was interrupted."
    return f"A cell failed: {error.ename}: {error.evalue}"


def _ends(cell: NotebookNode) -> list[str]:
    """How the runs of an agent cell ended that reached no answer and raised no error."""
    from ..display import RUN_METADATA

    found = []
    for output in cell.get("outputs", []):
        about = output.get("metadata", {}).get(RUN_METADATA)
        if isinstance(about, dict) and about.get("status") != "completed":
            found.append(" ".join(str(output.get("data", {}).get("text/plain", "")).split()))
    return found


def expand(options: argparse.Namespace) -> int:
    """Expand one notebook."""
    from ..notebook import expand as expansion

    target: Path = options.output or options.notebook
    notebook = expansion.expand(expansion.read_notebook(options.notebook))
    expansion.write_notebook(notebook, target)
    print(target)
    return COMPLETED


def demo(options: argparse.Namespace) -> int:
    """Run the shipped example with the embedded model."""
    from .. import model_store
    from ..notebook import expand as expansion
    from ..settings import load

    settings = load()
    model_store.resolve(settings.agent_local_model)  # says how to fetch it, before anything is started
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("sandbox_agent_magic") / "demo") as shipped:
        example = shipped if shipped.is_dir() else Path(__file__).parents[2] / "examples"
        for name in ("demo.ipynb", "seattle-weather.csv"):
            shutil.copyfile(example / name, folder / (name if name != "demo.ipynb" else "demo-source.ipynb"))
    environment = {"AGENT_PROVIDER": "local", "TEMPERATURE": "0", "AGENT_LOCAL_SEED": str(_DEMO_SEED)}
    target = folder / "demo.ipynb"
    code = execute(folder / "demo-source.ipynb", target, environment)
    (folder / "demo-source.ipynb").unlink()
    finished = expansion.read_notebook(target)
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


def _first_line(source: str) -> str:
    line = source.strip().splitlines()[0] if source.strip() else "(empty)"
    rest = next((text for text in source.strip().splitlines()[1:] if text.strip()), "")
    return f"{line}  {rest}"[:100] if line.startswith("%%") else line[:100]
