"""What is running: the engines that executors have started, for `%agent sandboxes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from ..types import Executor
from .wrapping import unwrapped


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine that runs: a process, a container, a kernel or a sandbox somewhere."""

    executor: str
    """Name of the executor that would use it."""
    id: str
    """What the reader needs to find it again: a kernel's or sandbox's id, a container's name, `process 4242`."""
    place: str
    """Where it is: a folder, an image, a server's address without user or query."""
    started: datetime | None = None
    """With a time zone; None where nobody knows."""
    note: str = ""
    """What is not so with every engine, such as "was there before, and stays"; empty: it ends with its executor."""


@runtime_checkable
class ListsEngines(Protocol):
    """An executor that can tell what it runs. Others need not."""

    def engines(self) -> Sequence[EngineInfo]:
        """What runs now, its own first.

        Raises:
            ExecutorError: whoever knows could not be asked.
        """


def engines_of(executor: Executor) -> Sequence[EngineInfo]:
    """What `executor` runs now, as far as it can tell. Raises as `ListsEngines.engines`."""
    inner = unwrapped(executor)
    return inner.engines() if isinstance(inner, ListsEngines) else ()
