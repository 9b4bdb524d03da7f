"""What the reader watches while the agent works: one area in the cell's output (`area`), or lines of text (`lines`).

Both show a `view` of the run, in the same `words`. Nothing of the model or of the code is ever shown as markup: the
area's HTML (`markup`) holds escaped text only.
"""

from .area import RUN_METADATA, NotebookDisplay
from .lines import ERASE, TextDisplay, is_live
from .words import amounts, summary

__all__ = ["ERASE", "RUN_METADATA", "NotebookDisplay", "TextDisplay", "amounts", "is_live", "summary"]
