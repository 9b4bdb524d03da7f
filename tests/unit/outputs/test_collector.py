"""Outputs: what is let through, what is cut, what the model reads."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sandbox_agent_magic.outputs import (
    CELLS_MIMETYPE,
    OutputCollector,
    OutputLimits,
    cap_text,
    clean_html,
    clean_text,
    error_text,
    images_of,
    text_of,
)
from sandbox_agent_magic.types import ErrorInfo, MimeBundle, Output

PNG = "iVBORw0KGgo="


def collected(*outputs: Output, max_text_bytes: int = 1000) -> tuple[Output, ...]:
    collector = OutputCollector(lambda _: None, limits=OutputLimits(text_bytes=max_text_bytes))
    for output in outputs:
        collector.add(output)
    return collector.finish()


def stream(text: str) -> Output:
    return {"output_type": "stream", "name": "stdout", "text": text}


def display(data: MimeBundle) -> Output:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def update(data: MimeBundle, display_id: str) -> Output:
    return {"output_type": "display_data", "data": data, "metadata": {}, "transient": {"display_id": display_id}}


def test_an_update_replaces_what_was_displayed_under_its_id_and_nothing_else() -> None:
    seen: list[Output] = []
    collector = OutputCollector(seen.append)
    collector.add(update({"text/plain": "10 %"}, "bar"))
    collector.add(update({"text/plain": "other"}, "other"))
    collector.update(update({"text/plain": "100 %", "text/html": "<b onclick='x()'>100</b>"}, "bar"))
    first, second = collector.finish()
    assert first == display({"text/plain": "100 %", "text/html": "<b>100</b>"})
    assert second == display({"text/plain": "other"})
    assert [output.get("transient") for output in seen] == [
        {"display_id": "bar"},
        {"display_id": "other"},
        {"display_id": "bar", "update": True},
    ]


def test_an_update_of_something_unknown_adds_no_output() -> None:
    collector = OutputCollector(lambda _: None)
    collector.update(update({"text/plain": "x"}, "never shown"))
    collector.update(update({"text/plain": "x"}, "y" * 10_000))
    collector.update(display({"text/plain": "without an id"}))
    assert collector.finish() == ()


def test_updates_share_the_room_of_all_rich_outputs_but_one_replaced_takes_none() -> None:
    collector = OutputCollector(lambda _: None, limits=OutputLimits(picture_bytes=10 << 20))
    collector.add(update({"image/png": PNG}, "plot"))
    for _ in range(20):
        collector.update(update({"image/png": "A" * (4 << 20)}, "plot"))
    assert collector.dropped == []
    for number in range(9):
        collector.add(update({"image/png": "A" * (4 << 20)}, str(number)))
    assert any("MiB in all" in note for note in collector.dropped)


def test_updates_of_what_earlier_cells_displayed_share_that_room_too() -> None:
    seen: list[Output] = []
    collector = OutputCollector(seen.append, limits=OutputLimits(picture_bytes=10 << 20))
    for _ in range(20):
        collector.update(update({"image/png": "A" * (4 << 20)}, "animation"))
    assert len(seen) == 20
    for number in range(100):
        collector.update(update({"image/png": "A" * (4 << 20)}, f"plot {number}"))
    assert len(seen) < 30
    assert any("MiB in all" in note for note in collector.dropped)


def test_there_are_no_more_such_updates_than_outputs() -> None:
    seen: list[Output] = []
    collector = OutputCollector(seen.append)
    for number in range(3_000):
        collector.update(update({"text/plain": "x"}, str(number)))
    assert len(seen) == 1_000
    assert any("after the first 1,000" in note for note in collector.dropped)


def test_pieces_of_one_stream_become_one_output() -> None:
    assert collected(stream("a"), stream("b\n")) == ({"output_type": "stream", "name": "stdout", "text": "ab\n"},)


def test_long_text_keeps_its_head_and_its_tail_and_says_what_was_cut() -> None:
    text = text_of(collected(*(stream(f"line {i:06d}\n") for i in range(10_000))))
    assert text.startswith("line 000000")
    assert text.endswith("line 009999")
    assert "characters cut here" in text
    assert len(text) < 1200


def test_a_hundred_megabytes_leave_no_more_than_the_limit() -> None:
    collector = OutputCollector(lambda _: None, limits=OutputLimits(text_bytes=1000))
    for _ in range(100):
        collector.add(stream("x" * 1_000_000))
    assert sum(len(output["text"]) for output in collector.finish() if output["output_type"] == "stream") < 1200
    assert collector.truncated_bytes == 100_000_000 - 1000


def test_many_pictures_between_long_prints_do_not_each_keep_a_tail() -> None:
    outputs: list[Output] = []
    for _ in range(20):
        outputs += [stream("y" * 5_000), display({"image/png": PNG})]
    kept = sum(len(output["text"]) for output in collected(*outputs) if output["output_type"] == "stream")
    assert kept < 1000 + 20 * 60  # the limit, and a short note for each cut


def test_scripts_and_unknown_types_are_dropped_and_named() -> None:
    found = collected(display({"application/javascript": "alert(1)", "text/plain": "kept"}))
    assert found[0]["output_type"] == "display_data"
    assert found[0]["data"] == {"text/plain": "kept"}
    assert "application/javascript" in text_of(found[1:])


def test_our_own_cells_mimetype_is_refused_from_a_sandbox() -> None:
    found = collected(display({CELLS_MIMETYPE: {"cells": []}}))
    assert CELLS_MIMETYPE in text_of(found)
    assert all(output["output_type"] == "stream" for output in found)


def test_html_keeps_a_table_and_loses_everything_that_runs_or_loads() -> None:
    html = clean_html(
        '<table class="dataframe" border="1"><tr><td onclick="x()">1</td></tr></table>'
        '<script>alert(1)</script><img src="http://evil/x"><a href="javascript:x">a</a><iframe src="x"></iframe>'
        '<div style="position:fixed">s</div><svg onload="x()"></svg>'
    )
    assert '<table class="dataframe" border="1">' in html
    for bad in ("onclick", "script", "img", "href", "iframe", "style", "svg"):
        assert bad not in html


def test_a_malformed_output_never_raises() -> None:
    for bad in ({}, {"output_type": "display_data"}, {"output_type": "error", "ename": 3}, {"output_type": "what"}):
        collected(bad)  # type: ignore[arg-type]


def test_colours_stay_and_other_terminal_escapes_go() -> None:
    assert clean_text("\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2Jx\x07") == "\x1b[31mred\x1b[0mx"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_cleaned_text_never_holds_an_escape_but_a_colour(text: str) -> None:
    rest = clean_text(text + "\x1b" + text).replace("\x1b[", "")
    assert "\x1b" not in rest or all(part[:1] in "0123456789;m" for part in rest.split("\x1b")[1:])


@given(st.text(max_size=400), st.integers(min_value=30, max_value=200))
def test_capped_text_fits(text: str, limit: int) -> None:
    assert len(cap_text(text, limit).encode("utf-8", "replace")) <= limit + 40  # the note on the cut


def test_an_error_keeps_the_end_of_its_traceback() -> None:
    error = ErrorInfo("ValueError", "bad", tuple(f"\x1b[31mframe {i}\x1b[0m" for i in range(1000)))
    text = error_text(error, max_bytes=200)
    assert text.endswith("frame 999")
    assert "\x1b" not in text


def test_pictures_go_to_a_model_that_can_see_and_are_named_to_one_that_cannot() -> None:
    outputs = collected(display({"image/png": PNG, "text/plain": "<Figure>"}))
    assert images_of(outputs)[0].data == PNG
    assert text_of(outputs) == "[picture: image/png]"


def test_a_picture_that_is_not_base64_is_dropped() -> None:
    assert "image/png" in text_of(collected(display({"image/png": '"><script>'})))


def test_broken_text_becomes_text_that_can_be_saved() -> None:
    found = collected(stream("a\ud800b"), display({"text/html": "<b>\udfff</b>", "text/plain": "\ud800"}))
    json.dumps(found, ensure_ascii=False).encode("utf-8")


def test_json_that_cannot_be_saved_is_dropped() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for bad in (deep, float("nan"), {"x": "\ud800"}):
        found = collected(display({"application/json": bad, "text/plain": "kept"}))  # type: ignore[dict-item]
        assert found[0]["data"] == {"text/plain": "kept"}  # type: ignore[typeddict-item]


def test_all_pictures_of_a_cell_together_are_bounded() -> None:
    big = "A" * (5 << 20)
    found = collected(*(display({"image/png": big}) for _ in range(20)))
    assert sum(output["output_type"] == "display_data" for output in found) == 6
    assert "over 32 MiB in all" in text_of(found[6:])


def test_a_flood_of_exceptions_is_bounded() -> None:
    error: Output = {"output_type": "error", "ename": "E", "evalue": "x" * 10_000, "traceback": []}
    found = collected(*(error for _ in range(5_000)))
    assert sum(output["output_type"] == "error" for output in found) == 20
    assert "exceptions after the first 20" in text_of(found)


@given(st.lists(st.text(alphabet="abc\n", max_size=30), max_size=40))
def test_text_in_pieces_is_kept_as_the_same_text_in_one(texts: list[str]) -> None:
    limits = OutputLimits(text_bytes=200)
    told: list[Output] = []
    collector = OutputCollector(told.append, limits=limits)
    for text in texts:
        collector.add({"output_type": "stream", "name": "stdout", "text": text})
    whole = "".join(texts)
    cut = max(0, len(whole) - 200)
    found = "".join(output["text"] for output in collector.finish() if output["output_type"] == "stream")
    assert found == "".join(output["text"] for output in told if output["output_type"] == "stream")
    assert found.startswith(whole[:100])
    assert found.endswith(whole[100:][-100:])
    assert (f"{cut:,} characters cut here" in found) == bool(cut)
    assert collector.truncated_bytes == cut
