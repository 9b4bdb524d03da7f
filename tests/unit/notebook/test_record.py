"""What a result says of its run: read from files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_agent_magic.notebook.record import (
    RunRecord,
    Spent,
    content_digest,
    read_record,
    seen_from,
    settings_digest,
    source_of,
)
from sandbox_agent_magic.settings import load

RECORD = RunRecord(
    "completed", "../work.ipynb", "a" * 64, "b" * 64, "2026-11-24T13:40:00+00:00", 12.5, Spent(7, 0.1, 1)
)


def write(path: Path, *sources: str, record: RunRecord | None = None) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    if record is not None:
        record.write(notebook.metadata)
    nbformat.write(notebook, path)
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(write(tmp_path / "a.ipynb", "1", record=RECORD)) == RECORD


def test_other_metadata_of_ours_stays(tmp_path: Path) -> None:
    metadata: dict[str, object] = {"sandbox_agent": {"other": 1}}
    RECORD.write(metadata)  # type: ignore[arg-type]
    assert metadata["sandbox_agent"]["other"] == 1  # type: ignore[index]


@pytest.mark.parametrize("text", ["", "[]", "no JSON", '{"metadata": 3}', "[" * 100_000, '{"metadata": {}}', "\xff"])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(text.encode("latin-1"))
    assert read_record(path) is None
    assert read_record(tmp_path / "missing.ipynb") is None
    assert read_record(tmp_path) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("completed") | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["tokens", "cost_usd"]), inner),
    max_leaves=4,
)
FIELDS = ["status", "source", "source_sha256", "settings_sha256", "finished", "duration_s", "spent"]


@given(run=st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_a_record_that_somebody_made_up_is_read_or_refused_and_never_raises(
    run: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "made-up.ipynb"
    made_up = {"status": "completed", "source": "s", "source_sha256": "s", "settings_sha256": "s", "finished": "s"}
    content = {"metadata": {"sandbox_agent": {"run": {**made_up, "duration_s": 1, "spent": {}, **run}}}}
    path.write_text(json.dumps(content))
    found = read_record(path)
    if found is not None:
        assert isinstance(found.day, str)
        assert found.spent.tokens >= 0
        assert (found.spent + found.spent).cost_usd != float("inf")


def test_the_digest_is_of_what_would_be_executed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ipynb", "1 + 1")
    digest = content_digest(path)
    notebook = nbformat.read(path, 4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.cells[0].metadata["collapsed"] = True
    nbformat.write(notebook, path)
    assert content_digest(path) == digest
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    assert content_digest(path) != digest
    assert content_digest(write(path, "1 + 2")) != digest
    assert content_digest(write(path, "1 + 1", "")) != digest


def test_the_digest_of_settings_holds_no_key_and_no_limit(tmp_path: Path) -> None:
    def digest(**settings: str) -> str:
        return settings_digest(load(environ={name.upper(): value for name, value in settings.items()}, folder=tmp_path))

    assert digest() == digest()
    assert digest(openai_api_key="sk-one") == digest(openai_api_key="sk-two") != digest()
    assert digest(model="m") != digest()
    assert digest(max_retry="9", agent_cell_timeout="9", agent_day_budget_usd="9") == digest()


def test_a_result_knows_its_notebook_wherever_the_two_are_moved_together(tmp_path: Path) -> None:
    source, folder = tmp_path / "class" / "ann" / "work.ipynb", tmp_path / "marked" / "ann"
    assert seen_from(folder, source) == "../../class/ann/work.ipynb"
    named = RunRecord("completed", seen_from(folder, source), "", "", "", 1.0, Spent())
    assert source_of(folder / "work.ipynb", named) == source


@pytest.mark.parametrize(
    ("one", "other", "cost", "unpriced"),
    [(0.1, 0.2, 0.3, 0), (None, 0.2, 0.2, 1), (None, None, None, 2), (0.0, None, 0.0, 1)],
)
def test_costs_add_up_as_far_as_they_are_known(
    one: float | None, other: float | None, cost: float | None, unpriced: int
) -> None:
    total = Spent(1, one, int(one is None)) + Spent(2, other, int(other is None))
    assert (total.tokens, total.cost_usd, total.unpriced) == (3, pytest.approx(cost), unpriced)
