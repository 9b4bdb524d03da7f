"""Real servers and sandboxes that several integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox_agent_magic.executors.sandbox import SandboxExecutor


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxExecutor]:
    """One sandbox for the tests of a module; those that spoil theirs make their own."""
    executor = SandboxExecutor()
    executor.start()
    yield executor
    executor.shutdown()
