"""How executions end: timeouts, Ctrl-C, death, floods and lies; in a real sandbox, the hardest case of a kernel."""

from __future__ import annotations

import resource
import signal
import time

import pytest

from sandbox_agent_magic.executors.sandbox import SandboxExecutor
from tests.support.sandbox import attempt, run, text

pytestmark = pytest.mark.integration


def test_a_timeout_interrupts_the_code_and_keeps_state_and_outputs(sandbox: SandboxExecutor) -> None:
    run(sandbox, "kept = 'kept'")
    result = run(sandbox, "import time\nprint('begun')\ntime.sleep(60)", timeout_s=0.5)
    assert (result.status, result.state_lost) == ("timeout", False)
    assert result.error is not None
    assert "0.5 seconds" in result.error.evalue
    assert text(result).startswith("begun")
    assert text(run(sandbox, "kept")) == "'kept'"


def test_an_endless_loop_that_ignores_interrupts_ends_in_time_and_the_sandbox_goes_on(sandbox: SandboxExecutor) -> None:
    code = """
        import signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("looping", flush=True)
        while True:
            pass
    """
    started = time.monotonic()
    result = run(sandbox, code, timeout_s=0.5)
    assert time.monotonic() - started < 3
    assert (result.status, result.state_lost) == ("timeout", True)
    assert text(result).splitlines() == [
        "looping",
        "CellTimeout: The code was stopped after 0.5 seconds (AGENT_CELL_TIMEOUT, --timeout).",
    ]
    again = run(sandbox, "1 + 1")
    assert (text(again), again.state_lost) == ("2", False)


class Alarm:
    """Raises KeyboardInterrupt in the main thread after the given delays, as Ctrl-C does."""

    def __init__(self, *delays_s: float) -> None:
        self._delays_s = list(delays_s)

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, self._delays_s.pop(0))

    def _ring(self, number: int, frame: object) -> None:
        if self._delays_s:
            signal.setitimer(signal.ITIMER_REAL, self._delays_s.pop(0))
        raise KeyboardInterrupt

    def __exit__(self, *exc: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._previous)


def test_ctrl_c_interrupts_the_code_at_once_and_keeps_the_state(sandbox: SandboxExecutor) -> None:
    run(sandbox, "kept = 'kept'")
    with Alarm(0.5):
        result = run(sandbox, "import time\nprint('begun', flush=True)\ntime.sleep(60)")
    assert (result.status, result.state_lost) == ("interrupted", False)
    assert result.duration_s < 1.5
    assert text(run(sandbox, "kept")) == "'kept'"


@pytest.mark.parametrize("second_s", [0.01, 0.1, 0.45, 0.5, 0.51, 0.52, 0.55])
def test_a_second_ctrl_c_breaks_nothing(sandbox: SandboxExecutor, second_s: float) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    run(sandbox, "1")
    started = time.monotonic()
    try:
        with Alarm(0.2, second_s):
            result = run(sandbox, code)
            time.sleep(max(0, 0.2 + second_s + 0.05 - (time.monotonic() - started)))
    except KeyboardInterrupt:
        pass  # it came when the work was done
    else:
        assert (result.status, result.state_lost) == ("interrupted", True)
    assert time.monotonic() - started < 1.3
    assert text(run(sandbox, "6 * 7")) == "42"


@pytest.mark.parametrize("after_s", [0.03, 0.04, 0.045, 0.05, 0.055, 0.06, 0.07])
def test_ctrl_c_while_the_sandbox_starts_runs_nothing_and_the_next_cell_works(after_s: float) -> None:
    executor = SandboxExecutor()
    try:
        executor.start()
        with Alarm(after_s):
            result = run(executor, "open('ran', 'w')")
        assert (result.status, result.state_lost, result.new_files) == ("interrupted", False, ())
        assert text(run(executor, "6 * 7")) == "42"
        assert [file.name for file in executor.list_files()] == []
    finally:
        executor.shutdown()


def test_a_kernel_that_dies_gives_its_last_output_and_is_replaced(sandbox: SandboxExecutor) -> None:
    farewell = "import os, signal, time\nprint('last words', flush=True)\ntime.sleep(0.5)\n"
    code = f"{farewell}os.kill(os.getpid(), signal.SIGKILL)"
    result = run(sandbox, code)
    assert (result.status, result.state_lost) == ("died", True)
    assert text(result).startswith("last words\nKernelDied: ")
    assert text(run(sandbox, "6 * 7")) == "42"


def test_a_restart_loses_variables_and_keeps_files(sandbox: SandboxExecutor) -> None:
    run(sandbox, "gone = 1; open('stays', 'w').close()")
    sandbox.restart()
    assert attempt(sandbox, "gone") == "NameError"
    assert "stays" in [file.name for file in sandbox.list_files()]


def test_a_hundred_megabytes_of_printing_cost_the_host_little_memory(sandbox: SandboxExecutor) -> None:
    run(sandbox, "1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run(sandbox, "for _ in range(1000): print('y' * 99_999)\nprint('the end')")
    used_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used_kib < 20 * 1024
    assert len(text(result)) < 1 << 20
    assert "characters cut" in text(result)
    assert text(result).endswith("the end")


def test_code_that_goes_round_the_kernels_own_cap_is_capped_on_the_host(sandbox: SandboxExecutor) -> None:
    run(sandbox, "1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = """
        kernel = get_ipython().kernel
        for _ in range(100):
            content = {"name": "stdout", "text": "y" * (1 << 20)}
            kernel.session.send(kernel.iopub_socket, "stream", content, parent=kernel.get_parent())
    """
    result = run(sandbox, code)
    assert result.status == "ok"
    assert len(text(result)) < (1 << 20) + 1000
    # What libzmq queues comes on top of what is kept.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_an_output_over_the_limit_is_an_error_that_says_so_and_state_is_kept(sandbox: SandboxExecutor) -> None:
    run(sandbox, "kept = 'kept'")
    code = "from IPython.display import display\ndisplay({'text/plain': 'x' * 20_000_000}, raw=True)"
    result = run(sandbox, code)
    assert (result.status, result.state_lost) == ("error", False)
    assert result.error is not None
    assert result.error.ename == "OutputLimitExceeded"
    assert text(run(sandbox, "kept")) == "'kept'"


def test_forged_and_broken_messages_neither_kill_the_client_nor_become_outputs(sandbox: SandboxExecutor) -> None:
    code = """
        import json
        kernel = get_ipython().kernel
        send, parent = kernel.iopub_socket.send_multipart, kernel.get_parent()
        header = json.dumps({**parent["header"], "msg_type": "stream"}, default=str).encode()
        own = json.dumps(parent["header"], default=str).encode()
        forged = json.dumps({"name": "stdout", "text": "forged"}).encode()
        send([b"<IDS|MSG>", b"0" * 64, header, own, b"{}", forged])
        send([b"<IDS|MSG>", b"", b"{", b"{", b"{", b"{"])
        send([b"no delimiter"])
        send([b""])
        deep = b"[" * 100_000
        strange = [("comm_open", {}), ("input_request", {"prompt": "?"}), ("stream", {"text": 5}), ("unheard_of", {}),
                   ("display_data", {"data": 7}), ("error", {"traceback": 3}), ("status", {}),
                   ("execute_result", {"data": {"text/plain": "genuine"}, "execution_count": 10**100})]
        nested = []
        for _ in range(900):
            nested = [nested]
            strange.append(("display_data", {"data": {"application/json": nested}, "metadata": {}}))
        for kind, content in strange:
            kernel.session.send(kernel.iopub_socket, kind, content, parent=parent)
        other = {"header": {**parent["header"], "msg_id": "of another request"}}
        kernel.session.send(kernel.iopub_socket, "stream", {"name": "stdout", "text": "late"}, parent=other)
        signed = [deep, own, b"{}", b"{}"]
        send([b"<IDS|MSG>", kernel.session.sign(signed), *signed])
        print("genuine")
    """
    result = run(sandbox, code)
    assert (result.status, text(result).splitlines()[0]) == ("ok", "genuine")
    assert "forged" not in text(result)
    assert "late" not in text(result)
    counts = [output["execution_count"] for output in result.outputs if output["output_type"] == "execute_result"]
    assert counts == [None]
    assert text(run(sandbox, "6 * 7")) == "42"


def test_output_of_an_earlier_cells_thread_does_not_enter_a_later_cell(sandbox: SandboxExecutor) -> None:
    code = """
        import threading, time
        kernel = get_ipython().kernel
        parent = kernel.get_parent()
        def later():
            time.sleep(0.3)
            kernel.session.send(kernel.iopub_socket, "stream", {"name": "stdout", "text": "late"}, parent=parent)
        threading.Thread(target=later).start()
    """
    run(sandbox, code)
    assert text(run(sandbox, "time.sleep(0.6); print('mine')")) == "mine"
