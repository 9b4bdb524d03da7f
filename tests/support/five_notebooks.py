"""Five notebooks, and what has to be the same in them whichever way they were executed.

    case = CASES["plot"]
    with case.model(folder):                   # writes job.ipynb into folder, and a .env that leads to the model
        ...                                    # execute it there
    assert normalised(notebook) == ...

A notebook is executed in a folder of its own, since it leaves files there; the environment must name no other model.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from .model_server import ModelServer, Reply

SETUP = "%load_ext sandbox_agent_magic\nimport os, pathlib\npathlib.Path('kernel.pid').write_text(str(os.getpid()));"
"""The first cell: the model of the interrupted run needs to know whom to interrupt."""
AGENT = "%%agent\nDo it."
STOP = Reply("(presses Stop)")

_SCRIPTS = Path(sys.executable).parent
_SECONDS = re.compile(r"\b\d+(?:\.\d+)? s\b")
_PAPERMILL_TAG = "papermill-error-cell-tag"
_PROVENANCE = ("step", "provider", "model", "executor", "usage", "source_sha256")


@dataclass(frozen=True)
class Case:
    """A notebook, the model's replies in it, and the sources that it has to end with."""

    replies: Sequence[Reply]
    inserted: Sequence[str]
    """Sources of the cells that the agent cell leaves below it."""
    after: str = ""
    """A cell of the reader's below the agent cell."""
    completes: bool = True

    @contextlib.contextmanager
    def model(self, folder: Path) -> Iterator[None]:
        """Write `job.ipynb` into `folder`, and serve its model."""
        cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, AGENT, self.after) if source]
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number}"
        nbformat.write(notebook, folder / "job.ipynb")
        replies = iter(self.replies)

        def choose(request: dict[str, object]) -> Reply:
            reply = next(replies)
            if reply is STOP:
                os.kill(int((folder / "kernel.pid").read_text()), signal.SIGINT)
                time.sleep(20)  # its client goes away
            return reply

        with ModelServer(choose) as server:
            (folder / ".env").write_text(f"OPENAI_BASE_URL={server.url}\nAGENT_PROVIDER=openai\n")
            yield

    @property
    def sources(self) -> list[str]:
        """Of all cells at the end."""
        return [source for source in (SETUP, AGENT, *self.inserted, self.after) if source]


_TABLE = "import pandas as pd\nsales = pd.DataFrame({'month': ['May', 'June'], 'revenue': [10, 30]})\nsales"
_CHART = "import matplotlib.pyplot as plt\nsales.plot(x='month', y='revenue')\nplt.show()\nprint('drawn')"
_SAVE = "with open('out.csv', 'w') as file:\n    file.write('a,b\\n1,2\\n')\nprint('saved')"

CASES = {
    "sum": Case(
        [Reply("I sum.", code="total = sum(range(1, 101))\nprint(total)"), Reply("The sum is **5050**.")],
        ["%%sandbox\ntotal = sum(range(1, 101))\nprint(total)", "The sum is **5050**."],
        after="%%sandbox\nprint(total + 1)",
    ),
    "plot": Case(
        [Reply(code=_TABLE), Reply(code=_CHART), Reply("It rises.")],
        [f"%%sandbox\n{_TABLE}", f"%%sandbox\n{_CHART}", "It rises."],
        after="1 + 1",
    ),
    "error in between": Case(
        [
            Reply("First.", code="values = [1, 2, 3]"),
            Reply("Then.", code="print(sum(value))"),
            Reply("A slip.", code="print(sum(values))"),
            Reply("It is 6."),
        ],
        ["%%sandbox\nvalues = [1, 2, 3]", "%%sandbox\nprint(sum(values))", "It is 6."],
        after="print('after')",
    ),
    "file": Case([Reply(code=_SAVE), Reply("It is in out.csv.")], [f"%%sandbox\n{_SAVE}", "It is in out.csv."]),
    "interrupted": Case([Reply("First.", code="print('first')"), STOP], ["%%sandbox\nprint('first')"], completes=False),
}

HEADLESS = {
    "run": ["sandbox-agent", "run", "job.ipynb", "-o", "done.ipynb"],
    "nbconvert": [
        "jupyter-nbconvert",
        "--execute",
        "--to",
        "sandbox-agent",
        "--allow-errors",
        "--output",
        "done",
        "job.ipynb",
    ],
    "papermill": ["papermill", "--engine", "sandbox-agent", "job.ipynb", "done.ipynb"],
}
"""Ways to execute `job.ipynb` without a browser, each into `done.ipynb`."""


def execute(way: str, case: Case, folder: Path) -> tuple[nbformat.NotebookNode, subprocess.CompletedProcess[str]]:
    """Execute a case's notebook in `folder`, one of the headless ways."""
    command, *arguments = HEADLESS[way]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AGENT_"))}
    with case.model(folder):
        done = subprocess.run(
            [str(_SCRIPTS / command), *arguments],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert (folder / "done.ipynb").exists(), done.stderr
    return nbformat.read(folder / "done.ipynb", 4), done


def normalised(notebook: nbformat.NotebookNode) -> list[dict[str, object]]:
    """Cells without what may differ: ids, times, run ids, and what the tool that executed it keeps for itself."""
    return [_cell(cell) for cell in notebook.cells if _PAPERMILL_TAG not in cell.metadata.get("tags", [])]


def _cell(cell: nbformat.NotebookNode) -> dict[str, object]:
    note = cell.metadata.get("sandbox_agent")
    made: dict[str, object] = {
        "cell_type": cell.cell_type,
        "source": cell.source,
        "tags": list(cell.metadata.get("tags", [])),
        "provenance": {key: note[key] for key in _PROVENANCE} if note is not None else None,
        "belongs": note is not None and "agent_cell" in note,
        "inserted": len(cell.metadata.get("sandbox_agent_inserted", [])),
    }
    if cell.cell_type == "code":
        made["execution_count"] = cell.execution_count
        made["outputs"] = _outputs(cell.outputs)
    return made


def _outputs(outputs: Sequence[nbformat.NotebookNode]) -> list[dict[str, object]]:
    """Streams joined, times and the sandbox's folder replaced."""
    made: list[dict[str, object]] = []
    for output in outputs:
        if output.output_type == "stream":
            if made and made[-1].get("name") == output.name:
                made[-1]["text"] = str(made[-1]["text"]) + _text(output.text)
            else:
                made.append({"output_type": "stream", "name": output.name, "text": _text(output.text)})
        elif output.output_type == "error":
            made.append({"ename": output.ename, "evalue": output.evalue, "traceback": list(output.traceback)})
        else:
            data = {key: _text(value) if isinstance(value, str) else value for key, value in output.data.items()}
            metadata = {key: value for key, value in output.metadata.items() if value}
            made.append({"output_type": output.output_type, "data": data, "metadata": metadata})
    return made


def _text(text: str) -> str:
    return re.sub(r"\S+\.sandbox\b", "NOTEBOOK.sandbox", _SECONDS.sub("N s", text))
