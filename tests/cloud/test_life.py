"""A sandbox costs: it lives while it is used, ends with the kernel unless it is kept, and is found again by its id."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from sandbox_agent_magic.errors import ExecutorError
from sandbox_agent_magic.executors.cloud import CloudExecutor
from sandbox_agent_magic.executors.conformance import check
from sandbox_agent_magic.executors.healing import HealingExecutor

from .conftest import Provider, inner, run, text

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_each_promise_of_an_executor_is_kept_and_no_sandbox_is_left(provider: Provider) -> None:
    found = list(check(lambda: inner(provider.make())))
    assert [f"{each.name}: {each.detail}" for each in found if not each.ok] == []
    assert provider.ids() == []


def test_no_sandbox_is_made_before_there_is_code(provider: Provider, executor: HealingExecutor) -> None:
    executor.start()
    assert provider.ids() == []


def short(executor: HealingExecutor, life_s: int) -> HealingExecutor:
    """With a life shorter than a setting can say."""
    made = inner(executor)
    target = replace(made.box.target, life_s=life_s)
    engine = type(made.box.engine)(target)  # type: ignore[call-arg]
    return HealingExecutor(CloudExecutor(engine, target))


def test_a_sandbox_lives_as_long_as_its_code_runs_and_it_is_used(provider: Provider, executor: HealingExecutor) -> None:
    executor = short(executor, 4)
    result = run(executor, "import time\nfor i in range(8): print(i, flush=True); time.sleep(1)")
    assert (result.status, text(result)[-1]) == ("ok", "7")
    for _ in range(3):
        time.sleep(2)
        assert text(run(executor, "i")) == "7"
    executor.shutdown()


def test_one_that_expired_unused_is_replaced(provider: Provider, executor: HealingExecutor) -> None:
    executor = short(executor, 3)
    run(executor, "n = 42")
    (before,) = provider.ids()
    end = time.monotonic() + 30
    while provider.ids() and time.monotonic() < end:
        time.sleep(0.2)
    assert text(run(executor, "n")).endswith("42")
    assert provider.ids() != [before]
    executor.shutdown()
    assert provider.ids() == []


SCRIPT = """
import sys
from sandbox_agent_magic import executors, settings
executor = executors.create(sys.argv[1], settings=settings.load(dict(pair.split("=") for pair in sys.argv[2:])))
print(executor.execute("print('worked'); n = 42", timeout_s=60, on_output=lambda _: None).outputs)
"""


def process(provider: Provider, *settings: str, script: str = SCRIPT) -> str:
    return subprocess.run(
        [sys.executable, "-P", "-c", script, provider.name, *settings],
        env={**os.environ, **provider.environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_the_end_of_the_process_ends_its_sandbox_but_not_one_that_is_kept(provider: Provider) -> None:
    assert "worked" in process(provider)
    assert provider.ids() == []
    assert any(request.startswith("DELETE") for request in provider.cloud.requests())
    process(provider, "agent_keep_sandbox=true")
    assert len(provider.ids()) == 1


def test_a_child_of_the_process_ends_nothing(provider: Provider) -> None:
    fork = "import os\nif not (child := os.fork()):\n    sys.exit()\nos.waitpid(child, 0)\n"
    after = "print(executor.execute('n', timeout_s=60, on_output=lambda _: None).outputs)\n"
    assert "42" in process(provider, script=SCRIPT + fork + after)


def test_a_kept_sandbox_is_used_by_its_id_with_its_variables_and_files_and_left_running(provider: Provider) -> None:
    process(provider, "agent_keep_sandbox=true")
    (sandbox_id,) = provider.ids()
    again = provider.make(agent_session=sandbox_id)
    assert text(run(again, "n")) == "42"
    run(again, "open('made.txt', 'w').write('x')")
    again.shutdown()
    assert provider.ids() == [sandbox_id]
    third = provider.make(agent_session=sandbox_id)
    assert [info.name for info in third.list_files()] == ["made.txt"]
    assert inner(third).end(sandbox_id)
    assert provider.ids() == []
    assert not inner(third).end(sandbox_id)


def test_an_id_that_there_is_not_is_said_and_nothing_is_made_instead(provider: Provider) -> None:
    with pytest.raises(ExecutorError, match="There is no sandbox sbx-none") as caught:
        run(provider.make(agent_session="sbx-none"), "1")
    assert "%agent sandboxes" in caught.value.hint
    assert provider.ids() == []


def test_variables_for_the_sandbox_are_there_after_a_restart_too_and_the_key_never_is(provider: Provider) -> None:
    executor = provider.make(agent_sandbox_env="GREETING=hello, OTHER=a=b")
    look = "import os; os.environ['GREETING'], os.environ['OTHER']"
    assert text(run(executor, look)) == "('hello', 'a=b')"
    executor.restart()
    assert text(run(executor, look)) == "('hello', 'a=b')"
    assert provider.cloud.key not in text(run(executor, "import os; print(dict(os.environ))"))
