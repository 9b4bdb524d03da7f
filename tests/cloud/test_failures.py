"""What fails between here and a provider: a clear error or a recovery, and never a key in it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from sandbox_agent_magic.errors import ExecutorError, KernelDied
from sandbox_agent_magic.executors.healing import HealingExecutor

from .conftest import Provider, inner, run, text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CREATE = r"POST (/v\d)?/sandboxes$"
EXECUTE = "(?i)execute$"
COUNT = "import time\nfor i in range(100): print(i, flush=True); time.sleep(0.05)"


def refused(executor: HealingExecutor) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught:
        run(executor, "1")
    return caught.value


def test_a_wrong_key_is_said_with_its_source_and_never_shown(provider: Provider) -> None:
    wrong = "sbx_wrong-0123456789abcdef"
    error = refused(provider.make(**{f"{provider.name}_api_key": wrong}))
    name = f"{provider.name.upper()}_API_KEY"
    assert "does not accept the key" in error.message
    assert f"{name} comes from argument" in error.why
    assert "invalid api key" in error.why
    assert error.hint == f"Set {name} to a key of your account."
    assert wrong not in str(error)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not accept the key"),
        (403, "refuses this"),
        (429, "takes no more requests now"),
        (500, "has a failure of its own"),
        (502, "has a failure of its own"),
        (503, "has a failure of its own"),
    ],
)
@pytest.mark.parametrize(
    "body", [None, {"message": "told"}, {}, "<html>told</html>"], ids=["own", "json", "{}", "html"]
)
def test_a_refusal_is_told_by_its_status_whatever_its_body(
    provider: Provider, executor: HealingExecutor, status: int, said: str, body: object
) -> None:
    provider.cloud.fail(CREATE, status=status, body=body, times=20)
    error = refused(executor)
    assert said in error.message
    assert 2 <= len(error.lines()) <= 3
    assert str(status) in error.why
    assert provider.cloud.key not in str(error)
    provider.cloud.heal()
    assert text(run(executor, "1 + 1")) == "2"


def test_a_template_that_there_is_not_is_named(provider: Provider) -> None:
    error = refused(provider.make(**{f"{provider.name}_template": "nothing-of-the-kind"}))
    assert f"{provider.name.upper()}_TEMPLATE" in error.hint
    assert "nothing-of-the-kind" in str(error)


def test_a_provider_that_is_down_is_named(provider: Provider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = {"scalebox_domain": f"127.0.0.1:{port}"}
    if provider.name == "e2b":
        address = {"e2b_api_url": f"http://127.0.0.1:{port}"}
    error = refused(provider.make(**address))
    assert "cannot be reached" in error.message
    assert next(iter(address)).upper() in error.hint


def test_a_slow_start_is_waited_for(
    provider: Provider, executor: HealingExecutor, capfd: pytest.CaptureFixture[str]
) -> None:
    provider.cloud.fail(CREATE, delay_s=7)
    if provider.name == "scalebox":
        provider.cloud.fail("/health$", status=502, times=40)  # longer than the SDK itself has patience, which prints
    assert text(run(executor, "1 + 1")) == "2"
    assert capfd.readouterr() == ("", "")


def test_a_sandbox_that_comes_after_the_reader_gave_up_is_ended(provider: Provider, executor: HealingExecutor) -> None:
    provider.cloud.fail(CREATE, delay_s=3)
    threading.Timer(1, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run(executor, "1")
    time.sleep(3)
    end = time.monotonic() + 20
    while provider.ids() and time.monotonic() < end:
        time.sleep(0.2)
    assert provider.ids() == []
    assert text(run(executor, "1 + 1")) == "2"


def test_a_cut_connection_is_an_error_and_the_variables_stay(provider: Provider, executor: HealingExecutor) -> None:
    run(executor, "kept = 42")
    provider.cloud.fail(EXECUTE, cut_after=3)
    result = run(executor, COUNT)
    assert (result.status, result.error.ename, result.state_lost) == ("error", "ConnectionLost", False)
    assert "was cut" in result.error.evalue
    assert "0\n1" in text(result)
    assert text(run(executor, "kept")) == "42"


def test_a_passing_failure_after_the_code_costs_nothing(provider: Provider, executor: HealingExecutor) -> None:
    run(executor, "kept = 42")
    threading.Timer(0.5, lambda: provider.cloud.fail(EXECUTE, status=503)).start()
    result = run(executor, "import time; time.sleep(1)\nopen('made.txt', 'w').close()")
    assert (result.status, result.state_lost, [info.name for info in result.new_files]) == ("ok", False, ["made.txt"])


def test_a_connection_that_ended_while_nobody_used_it_is_made_anew(
    provider: Provider, executor: HealingExecutor
) -> None:
    run(executor, "kept = 42")
    time.sleep(1.1)
    provider.cloud.fail(EXECUTE, cut_after=0)
    result = run(executor, "kept")
    assert (text(result), result.state_lost) == ("42", False)


def test_what_the_sdk_and_we_log_has_no_key_in_it(
    provider: Provider, executor: HealingExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run(executor, "1")
    provider.cloud.fail("/timeout$", status=401, times=3)
    inner(executor).box._extended_at = inner(executor).box._answered_at = -1e9
    refused(executor)
    assert provider.cloud.key not in caplog.text
    assert provider.cloud.key not in repr(inner(executor).box.target)


# ---- losses ---------------------------------------------------------------------------------------------------------


def test_a_sandbox_that_vanished_is_made_anew_with_files_and_variables_and_that_is_said_once(
    provider: Provider, executor: HealingExecutor, tmp_path: Path
) -> None:
    (tmp_path / "n.txt").write_text("40")
    executor.put_file(tmp_path / "n.txt", "n.txt")
    run(executor, "n = int(open('n.txt').read())")
    run(executor, "n += 2")
    (before,) = provider.ids()
    provider.cloud.vanish(before)
    time.sleep(1.1)
    result = run(executor, "n")
    assert (result.status, result.state_lost) == ("ok", False)
    said = f"The {provider.name} kernel was lost, and another one took its place: "
    said += "files were sent again, and the 2 pieces of code that had worked ran again."
    assert text(result) == f"{said}\n42"
    assert text(run(executor, "n")) == "42"
    assert len(provider.ids()) == 1
    assert provider.ids() != [before]


def test_a_sandbox_that_vanishes_under_the_code_is_healed_once_in_a_run(
    provider: Provider, executor: HealingExecutor
) -> None:
    executor.start()
    run(executor, "n = 42")
    threading.Timer(1, lambda: provider.cloud.vanish(provider.ids()[0])).start()
    result = run(executor, COUNT)
    assert (result.status, result.error.ename, result.state_lost) == ("died", "SandboxLost", True)
    assert "0\n1" in text(result)
    assert text(run(executor, "n")).endswith("42")
    threading.Timer(1, lambda: provider.cloud.vanish(provider.ids()[0])).start()
    assert run(executor, COUNT).status == "died"
    with pytest.raises(KernelDied, match="lost a second time in this run"):
        run(executor, "n")
    executor.start()  # the next run
    assert text(run(executor, "1 + 1")) == "2"


def test_a_kernel_that_ends_between_two_cells_is_noticed(executor: HealingExecutor) -> None:
    run(executor, "n = 42")
    run(executor, "import os, threading; threading.Timer(0.3, os._exit, [1]).start()")
    time.sleep(2)
    assert "kernel was lost" in text(run(executor, "1"))


def test_code_that_heeds_no_interrupt_is_ended_with_its_context(executor: HealingExecutor) -> None:
    run(executor, "n = 42")
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\n"
    result = run(executor, f"{stubborn}while True: time.sleep(1)", timeout_s=2)
    assert (result.status, result.state_lost) == ("timeout", True)
    assert "on" in text(result)
    assert text(run(executor, "n")).endswith("42")


def test_a_provider_that_falls_silent_between_two_cells_is_said(provider: Provider, executor: HealingExecutor) -> None:
    run(executor, "n = 42")
    time.sleep(1.1)
    provider.cloud.fail(EXECUTE, status=503, times=1)
    assert "has a failure of its own" in refused(executor).message
    assert text(run(executor, "n")) == "42"


@pytest.mark.registry
def test_packages_are_installed_again_in_the_sandbox_that_takes_its_place(
    provider: Provider, executor: HealingExecutor
) -> None:
    assert [name.partition("==")[0] for name in executor.install(["humanize"])] == ["humanize"]
    assert run(executor, "import humanize").status == "ok"
    provider.cloud.vanish(provider.ids()[0])
    time.sleep(1.1)
    result = run(executor, "humanize.naturalsize(3000)")
    assert text(result).endswith("'3.0 kB'")
    assert "packages installed again" in text(result)
    with pytest.raises(ExecutorError, match="Cannot install no-such-package-xyz") as caught:
        executor.install(["no-such-package-xyz==1.0"])
    assert "pip in the sandbox says: ERROR:" in caught.value.why


def test_deeply_nested_results_do_no_harm(executor: HealingExecutor) -> None:
    run(executor, "n = 42")
    deep = "from IPython.display import display\ndeep = 1\nfor _ in range({depth}): deep = [deep]\n"
    for depth in (100, 950, 5000):
        code = deep.format(depth=depth) + "display({'application/json': deep, 'text/plain': 'x'}, raw=True)"
        run(executor, code)
        assert text(run(executor, "n")).endswith("42")
        executor.start()
