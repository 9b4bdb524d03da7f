"""For papermill: `papermill --engine sandbox-agent IN OUT` executes a notebook and makes real cells.

papermill calls a notebook failed if it has an error output anywhere. So it does here if a step that failed had to
become a cell, because a later one needs what it left behind or because of `--keep all`.

papermill imports this module itself, by its entry point; to import it directly, import papermill first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from papermill.engines import NBClientEngine, NotebookExecutionManager
from papermill.iorw import write_ipynb

from ..folders import environment_of
from .expand import drop_earlier, expand

if TYPE_CHECKING:
    from nbformat import NotebookNode


class SandboxAgentEngine(NBClientEngine):
    """papermill's own engine, without the cells of earlier runs, and with real cells at the end."""

    @classmethod
    def execute_notebook(
        cls, nb: NotebookNode, kernel_name: str, output_path: str | None = None, **options: object
    ) -> NotebookNode:
        """Execute and expand `nb`; what was done before a failure or an interrupt is expanded and written too."""
        try:
            done = super().execute_notebook(drop_earlier(nb), kernel_name, output_path=output_path, **options)
        except BaseException:
            if output_path:
                write_ipynb(expand(nb), output_path)
            raise
        return expand(done)

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: object
    ) -> NotebookNode:
        """Execute it, and tell its kernel which notebook it is, so that the sandbox's files stay beside the output."""
        with _environment(environment_of(Path(nb_man.output_path or ""))):
            return super().execute_managed_notebook(nb_man, kernel_name, **options)


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """papermill passes no environment on: the kernel inherits this process's."""
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
