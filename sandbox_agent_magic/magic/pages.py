"""`%agent insert` and `%agent undo`: what becomes of published cells in the notebook's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from .shown import publisher

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..notebook.offers import Offers


def insert(shell: InteractiveShell, offers: Offers) -> None:
    """Publish again what is kept. A page with our module inserts what it lacks; elsewhere the cells are shown.

    Raises:
        UsageError: nothing is kept.
    """
    runs = offers.runs()
    if not runs:
        raise UsageError("There are no cells to insert.", hint="An agent cell makes them: %%agent, then the request.")
    for run in runs:
        writer = publisher(shell, run.run_id, run.anchor)
        for cell in run.cells:
            writer.add(cell)
    count = sum(len(run.cells) for run in runs)
    print(
        f"Offered {count} cell{'s' if count != 1 else ''} again; what was in the notebook before is not inserted twice."
    )


def undo(shell: InteractiveShell, offers: Offers) -> None:
    """Have the page remove the cells of the run that began last, except those that the reader edited.

    Raises:
        UsageError: there is no such run.
    """
    from ..notebook.offers import undo_bundle

    run = offers.take_last() if hasattr(shell, "kernel") else None
    if run is None:
        raise UsageError("There is no run whose cells could be removed.", hint="%agent reset forgets the conversation.")
    shell.display_pub.publish(data=undo_bundle(run), metadata={})
