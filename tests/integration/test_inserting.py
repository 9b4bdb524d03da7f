"""Where a run's code, outputs and answer go, in each kind of front end: a real kernel, a real terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from sandbox_agent_magic.outputs import CELLS_MIMETYPE
from tests.support.kernel import Kernel, Ran, kernel
from tests.support.model_server import ModelServer, Reply

pytestmark = pytest.mark.integration

PLOT = "import matplotlib.pyplot as plt\nprint('drawn')\nplt.plot([1, 2])\nplt.show()"
FILE = "open('numbers.csv', 'w').write('1,2\\n')\nlen('ab')"
REPLIES = [Reply("Wrong.", code="1/0"), Reply("Look.", code=PLOT), Reply("Save.", code=FILE), Reply("It **rises**.")]


def answering() -> object:
    """The same run for each prompt."""

    def choose(request: dict[str, object]) -> Reply:
        messages = request["messages"]
        assert isinstance(messages, list)
        asked = max(index for index, m in enumerate(messages) if m["role"] == "user" and "Work." in str(m["content"]))
        return REPLIES[sum(message["role"] == "assistant" for message in messages[asked:])]

    return choose


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ModelServer(answering()) as server:  # type: ignore[arg-type]
        yield server.url


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("inserting"), {"OPENAI_BASE_URL": url, "AGENT_PROVIDER": "openai"}) as running:
        yield running


def pictures(ran: Ran) -> list[dict[str, object]]:
    return [m["content"] for m in ran.messages if "image/png" in m["content"].get("data", {})]  # type: ignore[attr-defined, misc]


def markdown(ran: Ran) -> str:
    return "\n\n".join(display["text/markdown"] for display in ran.displays if "text/markdown" in display)


def test_auto_publishes_cells_and_all_that_a_front_end_without_them_needs(shared: Kernel) -> None:
    ran = shared.run("%%agent\nWork.")
    assert len([display for display in ran.displays if CELLS_MIMETYPE in display]) == 3
    text = markdown(ran)
    assert f"```python\n%%sandbox\n{PLOT}\n```" in text
    assert "```\ndrawn\n```" in text
    assert text.endswith("It **rises**.")
    (picture,) = pictures(ran)
    assert "sandbox_agent" in picture["metadata"]  # type: ignore[operator]
    assert "Files: numbers.csv (4 bytes)" in ran.text
    assert ran.payload == []


@pytest.mark.parametrize("front_end", ["lab", "console", "nbclient"])
def test_inline_leaves_all_of_it_in_the_agent_cell_for_good(shared: Kernel, front_end: str) -> None:
    ran = shared.run("%%agent --insert inline\nWork.", front_end=front_end)  # type: ignore[arg-type]
    assert not any(CELLS_MIMETYPE in display for display in ran.displays)
    assert f"```python\n%%sandbox\n{PLOT}\n```" in markdown(ran)
    assert markdown(ran).endswith("It **rises**.")
    (picture,) = pictures(ran)
    assert "sandbox_agent" not in picture["metadata"]  # type: ignore[operator]  # `expand` must not take it away


def test_next_input_offers_the_code_that_worked_as_one_cell_and_shows_its_outputs(shared: Kernel) -> None:
    ran = shared.run("%%agent --insert next-input\nWork.")
    (payload,) = ran.payload
    assert (payload["source"], payload["text"]) == ("set_next_input", f"%%sandbox\n{PLOT}\n\n{FILE}")
    assert not any(CELLS_MIMETYPE in display for display in ran.displays)
    assert "%%sandbox" not in markdown(ran)
    assert markdown(ran) == "```\ndrawn\n```\n\n```\n2\n```\n\nIt **rises**."
    assert len(pictures(ran)) == 1


def test_headless_there_is_no_next_input_so_the_code_stays_in_the_agent_cell(shared: Kernel) -> None:
    ran = shared.run("%%agent --insert next-input\nWork.", front_end="nbclient")
    assert ran.payload == []
    assert PLOT in markdown(ran)


def test_none_leaves_the_answer_and_the_transcript(shared: Kernel) -> None:
    ran = shared.run("%%agent --insert none\nWork.")
    assert markdown(ran) == "It **rises**."
    assert pictures(ran) == []
    assert ran.payload == []
    assert "plt.plot([1, 2])" in ran.areas[-1]["text/html"]


def test_a_front_end_that_does_not_update_gets_lines_and_each_thing_once(shared: Kernel) -> None:
    ran = shared.run("%%agent\nWork.", front_end="console")
    assert ran.areas == []
    seen = "".join(
        str(m["content"].get("text") or m["content"].get("data", {}).get("text/plain", "")) + "\n"  # type: ignore[attr-defined]
        for m in ran.messages
    )
    for words in ("1/0", "(step 1: failed)", "plt.plot([1, 2])", "\ndrawn\n", "It **rises**.", "Done in"):
        assert seen.count(words) == (2 if words == "1/0" else 1), words  # the traceback quotes the code
    assert seen.count("waiting for the model") == 1


def test_the_setting_holds_unless_the_cell_says_otherwise_and_a_wrong_word_is_said(tmp_path: Path, url: str) -> None:
    environ = {"OPENAI_BASE_URL": url, "AGENT_PROVIDER": "openai", "AGENT_INSERT": "none"}
    with kernel(tmp_path, environ) as running:
        assert markdown(running.run("%%agent\nWork.")) == "It **rises**."
        assert PLOT in markdown(running.run("%%agent --insert inline\nWork."))
        (error,) = running.run("%%agent --insert sideways\nWork.").contents("error")
    lines = error["traceback"]
    assert isinstance(lines, list)
    assert len(lines) == 3
    assert "Allowed: auto, cells, next-input, inline, none." in lines[2]


def test_a_terminal_shows_text_once_and_offers_the_code_as_its_next_input(tmp_path: Path, url: str) -> None:
    environ = {
        **os.environ,
        "OPENAI_BASE_URL": url,
        "AGENT_PROVIDER": "openai",
        "TERM": "xterm",
        "MPLBACKEND": "agg",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    command = ["-P", "-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=nocolor"]
    shell = pexpect.spawn(
        sys.executable,
        command,
        cwd=str(tmp_path),
        env={**environ, "IPYTHONDIR": str(tmp_path / "profile")},
        encoding="utf-8",
        timeout=60,
        dimensions=(60, 120),
    )
    try:
        shell.expect(r"In \[1\]:")
        shell.send("%load_ext sandbox_agent_magic\r")
        shell.expect(r"In \[2\]:")
        shell.send("%%agent\rWork.\x1b\r")
        shell.expect("Done in [^\n]*")
        text = shown(shell.before)
        assert text.count("(step 1: failed)") == 1
        assert text.count("\ndrawn\n") == 1
        assert text.count("It **rises**.") == 1
        assert text.count("plt.plot") == 1
        assert "Files: numbers.csv (4 bytes)" in shown(shell.before + read_until(shell, r"In \[3\]:"))
        read_until(shell, "'ab'")
        shell.send("\x1b\r")  # what stands at the prompt runs as it is
        shell.expect("drawn\r\n")
        shell.expect(r"In \[4\]:")
        shell.send("exit\r")
        shell.expect(pexpect.EOF)
    finally:
        shell.close(force=True)


def read_until(shell: pexpect.spawn, pattern: str) -> str:
    shell.expect(pattern)
    return str(shell.before)


def shown(raw: str) -> str:
    """What is left to read: erased lines and escapes are not."""
    text = re.sub(r"[^\n]*\r\x1b\[K", "", raw)
    return re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|[=>])", "", text).replace("\r", "")
