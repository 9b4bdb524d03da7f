"""Reasoning between tags at the beginning of a text, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_agent_magic.providers.thinking import ThinkingSplitter


def split(pieces: list[str]) -> tuple[str, str]:
    """All of the reply, and all of the reasoning."""
    splitter = ThinkingSplitter()
    parts = [*(splitter.feed(piece) for piece in pieces), splitter.rest()]
    return "".join(reply for reply, _ in parts), "".join(thought for _, thought in parts)


@pytest.mark.parametrize(
    ("text", "reply", "thought"),
    [
        ("<think>Let me see.</think>\n\nTwo.", "Two.", "Let me see."),
        ("\n<think>\nx < y</thin\n</think>Two.", "Two.", "\nx < y</thin\n"),
        ("Two.", "Two.", ""),
        ("Use <think> as a tag.", "Use <think> as a tag.", ""),
        ("<thing>", "<thing>", ""),
        ("<thi", "<thi", ""),
        ("<think>never ends", "", "never ends"),
        ("<think></think>", "", ""),
        ("", "", ""),
    ],
)
def test_reasoning_is_parted_from_the_reply_wherever_the_text_is_cut(text: str, reply: str, thought: str) -> None:
    for size in range(1, max(2, len(text))):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert split(pieces) == (reply, thought)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", "</", "\n", "a", " "]), max_size=9))
def test_how_a_text_is_cut_changes_nothing(pieces: list[str]) -> None:
    assert split(pieces) == split(["".join(pieces)])
