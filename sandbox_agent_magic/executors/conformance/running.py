"""Promises about code and its outputs. Each check's docstring is the promise."""

from __future__ import annotations

import threading
import time

from ...outputs import strip_colours
from ...types import Output
from .room import Room, Unmet, expect, expect_status, rich, text

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_UNICODE = "naïve ✓ 漢字 Ω 🎉"
_LIVE_GAP_S = 2.0


def starts(room: Room) -> None:
    """It starts by itself, and says what it is and what an expression's value is."""
    expect(bool(room.executor.name), "it has no name")
    room.executor.start()
    result = room.run("40 + 2")
    expect_status(result, "ok")
    expect([found.get("text/plain") for found in rich(result)] == ["42"], f"40 + 2 gives {text(result)!r}")
    expect(result.error is None, "a result that is ok carries an error")
    expect(not result.state_lost, "a first execution says that state was lost")


def keeps_state(room: Room) -> None:
    """Variables, imports and functions live from one execution to the next."""
    expect_status(room.run("import math\nkept = 41\ndef more(n):\n    return n + 1"), "ok")
    expect(room.value("more(kept) + math.floor(0.5)") == "42", "a variable, an import or a function is gone")


def streams_live(room: Room) -> None:
    """Outputs arrive while the code runs, in order, and stdout and stderr are told apart."""
    seen: list[tuple[float, Output]] = []
    code = (
        "import sys, time\nprint('one', flush=True)\nprint('two', file=sys.stderr, flush=True)\n"
        f"time.sleep({_LIVE_GAP_S})\nprint('three', flush=True)"
    )
    result = room.run(code, on_output=lambda output: seen.append((time.monotonic(), output)))
    expect_status(result, "ok")
    streams = [(output["name"], output["text"]) for output in result.outputs if output["output_type"] == "stream"]
    expect(streams == [("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "three\n")], f"it kept {streams}")
    passed_on = [output["text"] for _, output in seen if output["output_type"] == "stream"]
    expect("".join(passed_on) == "one\ntwo\nthree\n", f"it passed on {passed_on}")
    gap = seen[-1][0] - seen[0][0]
    expect(gap > _LIVE_GAP_S / 2, f"what was {_LIVE_GAP_S} s apart was passed on {gap:.2f} s apart")


def shows_pictures(room: Room) -> None:
    """A picture arrives as it was made, between the texts around it."""
    code = (
        "from IPython.display import display\nprint('before', flush=True)\n"
        f"display({{'image/png': {_PNG!r}, 'text/plain': 'a dot'}}, raw=True)\nprint('after')"
    )
    result = room.run(code)
    expect_status(result, "ok")
    kinds = [output["output_type"] for output in result.outputs]
    expect(kinds == ["stream", "display_data", "stream"], f"the outputs are {kinds}")
    picture = str(rich(result)[0].get("image/png", ""))
    expect("".join(picture.split()) == _PNG, "the picture's bytes differ")


def shows_html(room: Room) -> None:
    """A table arrives as HTML and as text; its script does not, where code is kept from the reader."""
    code = (
        "class Table:\n    def _repr_html_(self):\n"
        "        return '<table><tr><td>cell</td></tr></table><script>alert(1)</script>'\n"
        "    def __repr__(self):\n        return 'a table'\nTable()"
    )
    result = room.run(code)
    expect_status(result, "ok")
    expect(len(rich(result)) == 1, f"there are {len(rich(result))} rich outputs")
    html = str(rich(result)[0].get("text/html", ""))
    expect("<table>" in html and "cell" in html, f"the HTML is {html!r}")
    expect(rich(result)[0].get("text/plain") == "a table", "the text is gone")
    expect(not room.can.isolated or "<script" not in html, "a script reaches the reader's page")


def says_errors(room: Room) -> None:
    """An exception is a result with name, text and traceback; what came before it is kept, and so is the state."""
    result = room.run("print('before')\nhalf = 21\ndef fail():\n    return half / 0\nfail()")
    expect_status(result, "error")
    error = result.error
    if error is None:
        raise Unmet("the result carries no error")
    expect((error.ename, error.evalue) == ("ZeroDivisionError", "division by zero"), f"the error is {error}")
    shown = strip_colours("\n".join(error.traceback))
    expect("return half / 0" in shown, f"the traceback does not show the line: {shown[:300]!r}")
    kinds = [output["output_type"] for output in result.outputs]
    expect(kinds == ["stream", "error"], f"the outputs are {kinds}")
    expect(room.value("half * 2") == "42", "the state is gone")
    expect(room.value("def broken(:") == "SyntaxError", "a syntax error is no result")


def speaks_unicode(room: Room) -> None:
    """Letters of all scripts go in and come out: in code, streams, values and errors."""
    expect(room.value(f"größe = {_UNICODE!r}\ngröße") == repr(_UNICODE), "a value differs")
    expect(text(room.run(f"print({_UNICODE!r})")).strip() == _UNICODE, "printed text differs")
    error = room.run(f"raise ValueError({_UNICODE!r})").error
    expect(error is not None and error.evalue == _UNICODE, f"the error is {error}")


def bears_much_output(room: Room) -> None:
    """Five megabytes of text do no harm: the head is kept, and what is missing is said."""
    # The first line goes alone: a server in between may drop a message that is too much at once, and says so.
    result = room.run("for n in range(50_000):\n    print(f'{n:05} ' + 'x' * 93, flush=n == 0)")
    expect_status(result, "ok")
    shown = text(result)
    expect(shown.startswith("00000 xxx"), "the head is missing")
    said = "cut here" in shown or "exceeded" in shown
    expect(shown.count("\n") > 50_000 or said, f"{len(shown):,} characters came, and nothing says that more was there")
    expect(len(shown) <= 8 << 20, f"{len(shown):,} characters came of 5,000,000")
    expect(room.value("6 * 7") == "42", "it does not work afterwards")


def keeps_to_time(room: Room) -> None:
    """Code that takes too long is stopped; what it had printed is kept, and so is the state."""
    began = time.monotonic()
    room.run("patient = 42")
    result = room.run("import time\nprint('before', flush=True)\ntime.sleep(600)", timeout_s=3)
    expect_status(result, "timeout")
    expect("before" in text(result), "what was printed before is lost")
    expect(result.error is not None and "3" in result.error.evalue, f"the error is {result.error}")
    expect(time.monotonic() - began < 60, "it took more than a minute")
    expect(room.value("patient") == "42", "the state is gone, though the code could be interrupted")


def interrupts(room: Room) -> None:
    """`interrupt` from another thread ends the code that runs; the state stays."""
    room.run("steady = 42")
    timers: list[threading.Timer] = []

    def soon(_: Output) -> None:
        if not timers:
            timers.append(threading.Timer(0.5, room.executor.interrupt))
            timers[0].start()

    result = room.run("import time\nprint('go', flush=True)\ntime.sleep(600)", timeout_s=20, on_output=soon)
    for timer in timers:
        timer.join(30)
    expect(result.status in ("error", "interrupted"), f"the status is {result.status}")
    expect(result.error is None or result.error.ename == "KeyboardInterrupt", f"the error is {result.error}")
    expect("go" in text(result), "what was printed before is lost")
    expect(room.value("steady") == "42", "the state is gone")
    room.executor.interrupt()  # where nothing runs it does nothing
    expect(room.value("steady") == "42", "an interrupt while nothing runs does harm")
