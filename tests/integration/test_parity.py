"""The same notebook comes out of every headless way to execute it, and it is the right one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from tests.support.five_notebooks import CASES, HEADLESS, execute, normalised

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", CASES)
def test_every_headless_way_gives_the_same_cells(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    folders = {way: tmp_path / way for way in HEADLESS}
    for folder in folders.values():
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(folders, pool.map(lambda way: execute(way, case, folders[way]), folders), strict=True))
    for way, (notebook, process) in done.items():
        nbformat.validate(notebook)
        assert [cell["source"] for cell in normalised(notebook)] == case.sources, way
        assert (process.returncode == 0) == (case.completes or way == "nbconvert"), process.stderr  # --allow-errors
    first = normalised(done["run"][0])
    assert normalised(done["nbconvert"][0]) == first
    assert normalised(done["papermill"][0]) == first
    if name == "file":
        for folder in folders.values():
            stem = "done" if folder.name == "papermill" else "job"
            assert (folder / f"{stem}.sandbox" / "out.csv").read_text() == "a,b\n1,2\n"
    if name == "plot":
        table, chart = first[2], first[3]
        assert "<table" in str(table["outputs"])
        assert "image/png" in str(chart["outputs"])
        assert len(first[1]["outputs"]) == 1  # type: ignore[arg-type]  # the area; the rest is in the cells
    if name == "error in between":
        assert "3 steps (1 failed)" in str(first[1]["outputs"])
        assert "NameError" in str(first[1]["outputs"])
    if name == "interrupted":
        assert "Interrupted in N s" in str(first[1]["outputs"])
        assert "Interrupted. The steps that had finished are kept." in str(first[1]["outputs"])
