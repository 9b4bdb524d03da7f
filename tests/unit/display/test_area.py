"""The area in the agent cell: escaped, throttled, alive while nothing happens, and tidy in the end."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox_agent_magic.display import NotebookDisplay, summary
from sandbox_agent_magic.types import (
    JSON,
    CodeProposed,
    OutputReceived,
    ReasoningStreamed,
    ReplyReceived,
    RequestSent,
    RetryScheduled,
    RunFinished,
    StepFinished,
    TextStreamed,
    Usage,
)
from tests.support.run_events import FAILED, HOSTILE, INTERRUPTED, RESULT


class Area:
    """A display, and every mime bundle that it showed."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, JSON]] = []
        self.display = NotebookDisplay(self._show)

    def _show(self, bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        self.bundles.append(bundle)
        self.metadata = metadata

    @property
    def html(self) -> str:
        return str(self.bundles[-1]["text/html"])

    @property
    def text(self) -> str:
        return str(self.bundles[-1]["text/plain"])

    def wait_for(self, words: str) -> str:
        """The HTML once it has `words` in it."""
        end = time.monotonic() + 5
        while words not in self.html:
            assert time.monotonic() < end, self.html
            time.sleep(0.02)
        return self.html


@contextmanager
def open_area() -> Iterator[Area]:
    area = Area()
    yield area
    area.display.close()


def test_nothing_of_the_model_or_the_code_is_markup() -> None:
    with open_area() as area:
        for event in (
            RequestSent(1, 1),
            TextStreamed(HOSTILE),
            RetryScheduled(1, 2.0, HOSTILE),
            CodeProposed(1, HOSTILE),
            OutputReceived(1, {"output_type": "stream", "name": "stdout", "text": HOSTILE}),
            StepFinished(FAILED),
        ):
            area.display(event)
            area.display._tick()
        area.display(RunFinished(RESULT))
        html = "".join(str(bundle["text/html"]) for bundle in area.bundles)
        assert len(area.bundles) >= 6
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert "\x1b" not in html


def test_what_the_model_thinks_is_shown_as_such_and_makes_room_for_what_it_writes() -> None:
    with open_area() as area:
        for event in (RequestSent(1, 1), ReasoningStreamed("perhaps a loop")):
            area.display(event)
        assert "perhaps a loop" in area.wait_for("the model thinks")
        area.display(TextStreamed("I sum."))
        assert "perhaps a loop" not in area.wait_for("the model writes")
        area.display(ReplyReceived(1, Usage(1200, output_tokens=30)))
        assert "1,200 tokens in, 30 out" in area.wait_for("1,200 tokens")


def test_a_second_of_streamed_words_is_at_most_ten_updates_and_the_last_word_is_shown() -> None:
    with open_area() as area:
        began = time.monotonic()
        for number in range(200):
            area.display(TextStreamed(f"word{number} "))
            time.sleep(0.005)
        area.wait_for("word199")
        assert 3 <= len(area.bundles) <= 2 + 10 * (time.monotonic() - began)


def test_the_seconds_go_on_while_the_model_is_silent() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        assert "0 s · waiting for the model" in area.html
        area.wait_for("1 s · waiting for the model")
        area.wait_for("2 s · waiting for the model")


def test_a_retry_counts_down() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        area.display(RetryScheduled(1, 2.5, "The server is overloaded."))
        for left in (3, 2, 1):
            area.wait_for(f"The server is overloaded. Retry 1 in {left} s")
        area.display(RequestSent(1, 2))
        assert "Retry" not in area.wait_for("waiting for the model")


def test_only_an_update_that_tells_something_new_is_read_out() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        assert 'role="status"' in area.html
        assert 'role="status"' not in area.wait_for(" 1 s · ")
        area.display(CodeProposed(1, "1/0"))
        assert 'role="status"' in area.wait_for("running step 1")


def test_steps_are_listed_as_they_end_and_the_running_code_is_shown() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        area.display(StepFinished(FAILED))
        area.display(CodeProposed(2, "print(6 * 7)"))
        area.display(OutputReceived(2, {"output_type": "stream", "name": "stdout", "text": "42\n"}))
        html = area.wait_for("print(6 * 7)\n\n42")
        assert "Step 1: failed, 0.0 s" in html
        assert "running step 2" in html


def test_the_end_is_one_line_that_opens_the_transcript() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        assert area.metadata["sandbox_agent_run"]["status"] == "running"
        area.display(RetryScheduled(1, 0.0, "Too many requests."))
        area.display(StepFinished(FAILED))
        area.display(RunFinished(RESULT))
        assert area.text == summary(RESULT)
        closed, _, opened = area.html.partition("</summary>")
        assert summary(RESULT) in closed
        about = area.metadata["sandbox_agent_run"]
        assert about == {"status": "completed", "usage": dataclasses.asdict(RESULT.usage)}
        assert "Too many requests. Retry 1 after 0.0 s." in opened
        assert "Step 1: failed" in opened


def test_what_was_cut_off_is_kept_and_labelled() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        area.display(TextStreamed("Half a sen"))
        area.display(RunFinished(INTERRUPTED))
        assert area.text.startswith("Interrupted in 0.0 s")
        assert "Interrupted while the model wrote this" in area.html
        assert "Half a sen" in area.html


def test_the_colours_are_the_themes_own() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        area.display(TextStreamed("words"))
        area.display(StepFinished(FAILED))
        area.wait_for("Step 1")
        area.display(RunFinished(RESULT))
        html = "".join(str(bundle["text/html"]) for bundle in area.bundles)
        colours = re.findall(r"(?:color|background|border-left):([^;\"]*)", html)
        assert len(colours) > 5
        assert {
            c for c in colours if not re.search(r"var\(--jp-[a-z0-9-]+,(inherit|transparent|currentColor)\)", c)
        } == {"inherit"}
        assert not re.search(r"<h[1-6]|<script|<style", html)


def test_an_error_before_anything_was_drawn_leaves_no_area() -> None:
    with open_area() as area:
        area.display.close()
        assert area.bundles == []


def test_an_error_after_that_keeps_the_transcript() -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        area.display(StepFinished(FAILED))
        area.display(RequestSent(2, 1))
        area.display.close()
        assert area.text == "Stopped by an error after 1 step (1 failed)."
        assert "Step 1: failed" in area.html


@pytest.mark.parametrize("end", [RunFinished(RESULT), None])
def test_nothing_is_drawn_after_the_end(end: RunFinished | None) -> None:
    with open_area() as area:
        area.display(RequestSent(1, 1))
        area.display(TextStreamed("word"))
        if end is not None:
            area.display(end)
        area.display.close()
        count = len(area.bundles)
        time.sleep(0.7)
        assert len(area.bundles) == count
        alive = [thread for thread in threading.enumerate() if thread.name == "sandbox-agent-display"]
        assert alive == []
