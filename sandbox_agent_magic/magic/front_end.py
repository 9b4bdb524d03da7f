"""What the reader sits in front of, and what that front end can do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

FrontEnd: TypeAlias = Literal["terminal", "notebook", "headless", "unknown"]
"""`terminal`: IPython without a kernel. `notebook`: one that updates what it has shown (JupyterLab, Notebook 7, VS
Code, Colab). `headless`: nobody is there to read or to answer (nbclient, nbconvert, papermill). `unknown`: any other
client of a kernel; of these, `jupyter console` does not update what it has shown."""


def front_end(shell: InteractiveShell) -> FrontEnd:
    """The kind of front end that runs the current cell."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return "terminal"
    # Front ends with a reader let the kernel ask for input; nbclient, nbconvert and papermill do not.
    if not getattr(kernel, "_allow_stdin", True):
        return "headless"
    # JupyterLab, Notebook 7 and VS Code name the cell that they run.
    get_parent = getattr(shell, "get_parent", None)
    parent = get_parent() if get_parent is not None else None
    metadata = parent.get("metadata") if isinstance(parent, dict) else None
    named = isinstance(metadata, dict) and "cellId" in metadata
    return "notebook" if named or "google.colab" in sys.modules else "unknown"
