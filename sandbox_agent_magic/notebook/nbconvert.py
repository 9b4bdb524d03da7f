"""For nbconvert: an exporter that executes a notebook and makes real cells, and a preprocessor for other exporters.

    jupyter nbconvert --to sandbox-agent NOTEBOOK
    jupyter nbconvert --execute --to html \\
        --HTMLExporter.preprocessors=sandbox_agent_magic.notebook.nbconvert.ExpandCells NOTEBOOK

nbconvert runs the preprocessors of that option after its own, so after `--execute`. What should happen before the
notebook is executed has to take the place of its `ExecutePreprocessor`, as the exporter does.
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

    def preprocess(self, nb: NotebookNode, resources: object) -> tuple[NotebookNode, object]:
        """Expand `nb`."""
        return expand(nb), resources


class ExecuteAndExpand(ExecutePreprocessor):
    """Executes a notebook without the cells of its earlier runs, and makes real cells of the new ones.

    It has `ExecutePreprocessor`'s options, such as `--ExecutePreprocessor.timeout` and `--allow-errors`.
    """

    @default("enabled")
    def _enabled_default(self) -> bool:
        return True

    def setup_kernel(self, **options: object) -> AbstractContextManager[None]:
        """Tell the kernel which notebook it runs, so that the sandbox's files stay beside it."""
        about = (self.resources or {}).get("metadata", {})
        notebook = Path(about.get("path", "")) / f"{about.get('name', '')}.ipynb"
        environment = {**os.environ, **environment_of(notebook)}
        made: AbstractContextManager[None] = super().setup_kernel(env=environment, **options)
        return made

    def preprocess(self, nb: NotebookNode, resources: object = None, km: object = None) -> tuple[NotebookNode, object]:
        """Execute and expand `nb`.

        Raises:
            CellExecutionError: a cell failed, and errors are not allowed.
        """
        notebook, resources = super().preprocess(drop_earlier(nb), resources, km)
        return expand(notebook), resources


class AgentNotebookExporter(NotebookExporter):
    """`--to sandbox-agent`: an executed notebook whose agent cells have their real cells below them."""

    export_from_notebook = None  # no entry in JupyterLab's "Save and Export": it would run a model

    @default("default_preprocessors")
    def _default_preprocessors_default(self) -> list[object]:
        names = NotebookExporter.default_preprocessors.default()
        return [ExecuteAndExpand if name == _EXECUTE else name for name in names]
