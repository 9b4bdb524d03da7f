"""For nbconvert: an exporter that executes a notebook and makes real cells, and a preprocessor for other exporters.

    jupyter nbconvert --execute --to sandbox-agent NOTEBOOK
    jupyter nbconvert --execute --to html \\
        --HTMLExporter.preprocessors=sandbox_agent_magic.notebook.nbconvert.ExpandCells NOTEBOOK

nbconvert runs the preprocessors of that option after its own, so after `--execute`. What should happen before the
notebook is executed has to take the place of its `ExecutePreprocessor`, as it does in the exporter.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from nbconvert.exporters import NotebookExporter
from nbconvert.preprocessors import ExecutePreprocessor, Preprocessor
from traitlets import default

from ..folders import environment_of
from .expand import drop_earlier, expand

if TYPE_CHECKING:
    from nbformat import NotebookNode

_EXECUTE = "nbconvert.preprocessors.ExecutePreprocessor"


class ExpandCells(Preprocessor):
    """Makes real cells of what the agent cells of an executed notebook published."""

    @default("enabled")
    def _enabled_default(self) -> bool:
        return True

    def preprocess(self, nb: NotebookNode, resources: object) -> tuple[NotebookNode, object]:
        """Expand `nb`."""
        return expand(nb), resources


class ExecuteAnew(ExecutePreprocessor):
    """Executes a notebook without the cells that its earlier runs left.

    It has `ExecutePreprocessor`'s options, such as `--execute`, `--allow-errors`, `--ExecutePreprocessor.timeout`.
    """

    def setup_kernel(self, **options: object) -> AbstractContextManager[None]:
        """Tell the kernel which notebook it runs, so that the sandbox's files stay beside it."""
        about = (self.resources or {}).get("metadata", {})
        notebook = Path(about.get("path", "")) / f"{about.get('name', '')}.ipynb"
        environment = {**os.environ, **environment_of(notebook)}
        made: AbstractContextManager[None] = super().setup_kernel(env=environment, **options)
        return made

    def preprocess(self, nb: NotebookNode, resources: object = None, km: object = None) -> tuple[NotebookNode, object]:
        """Execute `nb`.

        Raises:
            CellExecutionError: a cell failed, and errors are not allowed.
        """
        executed: tuple[NotebookNode, object] = super().preprocess(drop_earlier(nb), resources, km)
        return executed


class AgentNotebookExporter(NotebookExporter):
    """`--to sandbox-agent`: a notebook whose agent cells have their real cells below them.

    It executes the notebook only if `--execute` says so: JupyterLab lists every exporter in a menu, from which no model
    should be run.
    """

    @default("default_preprocessors")
    def _default_preprocessors_default(self) -> list[object]:
        names = NotebookExporter.default_preprocessors.default()
        at = names.index(_EXECUTE)
        return [*names[:at], ExecuteAnew, ExpandCells, *names[at + 1 :]]
