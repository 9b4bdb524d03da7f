"""Notebooks whose agent cells follow a script, so that a test knows what the model will say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nbformat

Replies = dict[str, Sequence[dict[str, object]]]
"""Scripts for the scripted model, by file name."""
LOAD = "%load_ext sandbox_agent_magic"
TABLE = "from IPython.display import HTML\nprint('made')\nHTML('<table><tr><th>a</th></tr><tr><td>1</td></tr></table>')"
PICTURE = """
import base64, struct, zlib
from IPython.display import Image
chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
rows = b''.join(b'\\0' + bytes((x + y) % 256 for x in range(200)) for y in range(100))
Image(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 200, 100, 8, 0, 0, 0, 0))
      + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
""".strip()
"""Code that shows something rich with nothing but the standard library."""


def agent(script: str, options: str = "", request: str = "Work.") -> str:
    """An agent cell whose model follows a script of `write_notebook`."""
    return f"%%agent -p scripted -m SCRIPTS-{script}.json {options}".rstrip() + f"\n{request}"


def step(code: str, **fields: object) -> dict[str, object]:
    """A reply with code."""
    return {"text": "I work.", "code": code, **fields}


def answer(text: str, **fields: object) -> dict[str, object]:
    """The last reply."""
    return {"text": text, **fields}


def waiting(name: str) -> str:
    """Code that waits for `NotebookPage.touch(name)`, so that a test says when a step ends."""
    return f"import os, time\nwhile not os.path.exists({name!r}): time.sleep(0.02)\nos.remove({name!r})\n"


def write_notebook(folder: Path, name: str, *cells: str, scripts: Replies | None = None) -> None:
    """A notebook of code cells, and scripts for the scripted model beside it."""
    for script, replies in (scripts or {}).items():
        (folder / f"{Path(name).stem}-{script}.json").write_text(json.dumps(list(replies)))
    cells = tuple(cell.replace("SCRIPTS", Path(name).stem) for cell in cells)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / name)
