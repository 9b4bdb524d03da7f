"""Text that grows is the text that was put in, and its beginning can be dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_agent_magic.outputs.pieces import Pieces

TEXTS = st.lists(st.text(max_size=20).map(lambda text: text * 400), max_size=20)


@given(TEXTS)
def test_all_that_was_added_comes_out_once(texts: list[str]) -> None:
    pieces = Pieces()
    for text in texts:
        pieces.add(text)
    assert pieces.size == len("".join(texts))
    assert pieces.take() == "".join(texts)
    assert (pieces.size, pieces.take()) == (0, "")


@given(TEXTS, st.integers(0, 20_000))
def test_what_is_dropped_is_counted_and_never_too_much(texts: list[str], kept: int) -> None:
    pieces = Pieces()
    dropped = 0
    for text in texts:
        pieces.add(text)
        dropped += pieces.keep_last(kept)
    whole = "".join(texts)
    assert pieces.size == len(whole) - dropped >= min(kept, len(whole))
    assert pieces.take() == whole[dropped:]


def test_many_short_pieces_stay_few() -> None:
    pieces = Pieces()
    for _ in range(100_000):
        pieces.add("ab")
    assert len(pieces._pieces) < 100
