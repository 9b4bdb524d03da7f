"""What a reader sees while a run goes on, and how soon Stop stops it: a real kernel, a real server, a real sandbox."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from sandbox_agent_magic.outputs import CELLS_MIMETYPE
from tests.support.kernel import Kernel, Ran, kernel
from tests.support.model_server import ModelServer, Reply

pytestmark = pytest.mark.integration

STOP_S = 1.0
BUSY_S = 2.0
"""Allowed beyond it: the machine of a test may be doing something else."""

STUBBORN = (
    "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        print('no')"
)
SUM = "total = sum(range(1, 101))\nprint(total)"


class Model:
    """What the server says next; tests put replies in."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def __call__(self, request: dict[str, object]) -> Reply:
        if not self.replies:
            return Reply(status=500, body={"error": {"message": "the script is over"}})
        reply = self.replies.pop(0)
        if reply.text == "(silence)":
            time.sleep(30)
        return reply


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("watching")
    with ModelServer(model) as server, kernel(folder, {"OPENAI_BASE_URL": server.url, "AGENT_PROVIDER": "openai"}) as k:
        k.run("%%sandbox\n1 + 1")  # the sandbox is up: its start is not what is measured
        yield k


def last_area(ran: Ran) -> str:
    return ran.areas[-1]["text/plain"] if ran.areas else ""


def test_the_area_comes_first_is_updated_in_place_and_ends_as_one_line(shared: Kernel, model: Model) -> None:
    model.replies = [Reply("I sum.", code=SUM), Reply("The sum is **5050**.")]
    ran = shared.run("%%agent\nSum 1 to 100.")
    assert (ran.status, ran.strays) == ("ok", [])
    assert ran.messages[0]["msg_type"] == "display_data"
    assert ran.messages[0]["content"]["transient"]  # type: ignore[index]
    line = r"Done in [0-9.]+ s · 1 step · 40 tokens in, 20 out · cost unknown · openai \S+ in sandbox"
    assert re.fullmatch(line, last_area(ran)), last_area(ran)
    assert "<details>" in ran.areas[-1]["text/html"]
    assert len([d for d in ran.displays if "text/markdown" in d]) == 2


def test_seconds_go_on_while_the_model_is_silent_and_belong_to_the_cell(shared: Kernel, model: Model) -> None:
    model.replies = [Reply("Done.", delay_s=0.6)]
    ran = shared.run("%%agent\nWait.")
    assert ran.strays == []
    seconds = {int(match[1]) for area in ran.areas if (match := re.search(r"Agent: (\d+) s", area["text/plain"]))}
    assert {0, 1} <= seconds


def test_the_area_is_not_caught_as_an_output_of_code_in_the_readers_own_kernel(shared: Kernel, model: Model) -> None:
    code = "import time\nfor i in range(3):\n    print(i)\n    time.sleep(0.6)\ndisplay('shown')"
    model.replies = [Reply(code=code), Reply("Done.")]
    ran = shared.run("%%agent -e local --yes\nCount.")
    assert (ran.status, ran.strays) == ("ok", [])
    running = [area["text/plain"] for area in ran.areas if "running step 1" in area["text/plain"]]
    assert len(running) >= 3
    payload = next(display[CELLS_MIMETYPE] for display in ran.displays if CELLS_MIMETYPE in display)
    (cell,) = payload["cells"]  # type: ignore[index]
    assert [output["output_type"] for output in cell["outputs"]] == ["stream", "display_data"]  # type: ignore[index]
    assert cell["outputs"][0]["text"] == "0\n1\n2\n"  # type: ignore[index]


def test_a_long_reply_is_at_most_ten_updates_a_second(shared: Kernel, model: Model) -> None:
    model.replies = [Reply(" ".join(["word"] * 150), delay_s=0.02)]
    began = time.monotonic()
    ran = shared.run("%%agent\nTalk.")
    assert len(ran.areas) <= 10 * (time.monotonic() - began) + 2
    assert any("the model writes" in area["text/plain"] for area in ran.areas)


def test_a_retry_counts_down(shared: Kernel, model: Model) -> None:
    model.replies = [
        Reply(status=429, body={"error": {"message": "slow down"}}, headers={"Retry-After": "2"}),
        Reply("Ok."),
    ]
    ran = shared.run("%%agent\nGo.")
    text = "\n".join(area["text/plain"] for area in ran.areas)
    assert "Retry 1 in 2 s" in text
    assert "Retry 1 in 1 s" in text
    assert "Retry 1 after 2.0 s" in ran.areas[-1]["text/html"]


STATES = {
    "waiting for the model": ([Reply("(silence)")], lambda ran: "Agent: 1 s · waiting" in last_area(ran)),
    "streaming": ([Reply("word " * 400, delay_s=0.05)], lambda ran: "word word word word" in last_area(ran)),
    "waiting for a retry": (
        [Reply(status=429, body={"error": {"message": "slow down"}}, headers={"Retry-After": "30"})],
        lambda ran: "Retry 1 in 29 s" in last_area(ran),
    ),
    "code running": (
        [Reply(code="import time\nprint('begun', flush=True)\ntime.sleep(60)")],
        lambda ran: "begun\n" in last_area(ran) + "\n" and "running" in last_area(ran),
    ),
    "code that holds on": ([Reply(code=STUBBORN)], lambda ran: "1 s · running step 2" in last_area(ran)),
}


@pytest.mark.parametrize("state", STATES)
def test_stop_ends_the_cell_at_once_and_says_what_was_cut_off(shared: Kernel, model: Model, state: str) -> None:
    replies, reached = STATES[state]
    model.replies = [Reply(code="print('kept')"), *replies]
    ran = shared.run("%%agent\nGo.", stop_when=reached)
    print(f"{state}: stopped after {ran.after_stop_s:.2f} s")
    assert ran.status == "error"
    assert ran.after_stop_s < STOP_S + BUSY_S
    assert last_area(ran).startswith("Interrupted in")
    (error,) = ran.contents("error")
    assert error["traceback"] == ["Interrupted. The steps that had finished are kept."]
    kept = [json.dumps(display) for display in ran.displays]
    assert any("print('kept')" in each for each in kept)
    html = ran.areas[-1]["text/html"]
    if state == "streaming":
        assert "Interrupted while the model wrote this" in html
        assert "word word" in html
    if state.startswith("code"):
        assert "1 interrupted" in last_area(ran)
        assert "Step 2: interrupted" in html
    model.replies = [Reply("Fine.")]
    assert shared.run("%%agent\nStill there?").status == "ok"
