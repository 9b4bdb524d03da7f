"""Calls that block: each has a bound, and whoever waits can be interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from sandbox_agent_magic.executors.cloud import CloudFailure
from sandbox_agent_magic.executors.cloud.worker import Call, bounded


def test_a_value_and_an_exception_come_back() -> None:
    assert bounded(lambda: 42, 5) == 42
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, 5)


def test_a_failure_comes_back_without_what_was_behind_it() -> None:
    def fail() -> None:
        key = "secret"
        try:
            raise ValueError(key)
        except ValueError:
            raise CloudFailure("server", "told") from None

    with pytest.raises(CloudFailure, match="told") as caught:
        bounded(fail, 5)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_what_takes_too_long_is_given_up() -> None:
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(CloudFailure) as caught:
        bounded(lambda: release.wait(30), 0.3)
    assert caught.value.kind == "late"
    assert time.monotonic() - began < 5
    release.set()


def test_ctrl_c_reaches_whoever_waits() -> None:
    release = threading.Event()
    call = Call(lambda: release.wait(30))
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call.result(30)
    assert time.monotonic() - began < 5
    release.set()
    assert call.result(5) is True
