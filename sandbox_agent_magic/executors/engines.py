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


@runtime_checkable
class RentsEngines(ListsEngines, Protocol):
    """An executor whose engine goes on costing if nobody ends it, and that can be found again by its id."""

    def engine_id(self) -> str:
        """Of the engine that is in use; empty if none is."""

    def fits(self, session: str) -> bool:
        """Whether it uses the engine of that id, or may: otherwise another executor is needed."""

    def keep(self) -> None:
        """Leave the engine running at the end."""

    def kept(self) -> bool:
        """Whether there is an engine that goes on after the end."""

    def end(self, engine_id: str) -> bool:
        """End an engine of the same account; False if there is none of that id.

        Raises:
            ExecutorError: the provider could not be asked, or refuses.
        """


def rented(executor: Executor) -> RentsEngines | None:
    """The executor itself if it rents its engines."""
    inner = unwrapped(executor)
    return inner if isinstance(inner, RentsEngines) else None


def engines_of(executor: Executor) -> Sequence[EngineInfo]:
    """What `executor` runs now, as far as it can tell. Raises as `ListsEngines.engines`."""
    inner = unwrapped(executor)
    return inner.engines() if isinstance(inner, ListsEngines) else ()
