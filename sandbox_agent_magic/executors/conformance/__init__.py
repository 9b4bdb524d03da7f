"""The suite that every executor passes, shipped so that others can hold theirs to it.

    sandbox-agent doctor --executor NAME --conformance

Each check is one promise of `types.Executor`. What an executor cannot do it says in its `Capabilities`; then
the check is that it refuses, with an error of ours. Nothing here knows how an executor works.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ... import scratch
from ...errors import SandboxAgentError
from ...types import Executor
from . import files, life, running
from .room import Room, Unmet

_CHECKS: tuple[Callable[[Room], None], ...] = (
    running.starts,
    running.keeps_state,
    running.streams_live,
    running.shows_pictures,
    running.shows_html,
    running.says_errors,
    running.speaks_unicode,
    running.bears_much_output,
    running.keeps_to_time,
    running.interrupts,
    files.moves_files,
    files.moves_big_files,
    files.tells_of_files,
    files.installs,
    life.survives_death,
    life.restarts,
    life.stands_beside_another,
    life.leaves_nothing,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    """The promise, as a sentence."""
    ok: bool
    detail: str
    """Why not; empty if it is kept."""
    duration_s: float


def check(make: Callable[[], Executor], *, package: str | None = None) -> Iterator[Finding]:
    """Hold an executor to each promise, and yield what was found, one after the other.

    Each check runs in a temporary working directory; all together take about a minute.

    Args:
        make: makes an executor; called several times. The suite shuts each one down.
        package: name of a small pure-Python package, also its module's name, to install where the executor can.
    """
    with scratch.temporary("sandbox-check") as folder:
        host, here = folder / "host", folder / "here"
        host.mkdir()
        here.mkdir()
        room: Room | None = None
        try:
            for promise in _CHECKS:
                began = time.monotonic()
                detail = ""
                try:
                    with contextlib.chdir(here):  # where an executor without a folder of its own puts its files
                        room = room or Room(make, host, package)
                        promise(room)
                except (Unmet, SandboxAgentError) as failure:
                    detail = str(failure)
                except Exception as failure:  # what an executor of others raises, whatever it is, is a finding
                    detail = f"{type(failure).__name__}: {failure}"
                name = " ".join((promise.__doc__ or promise.__name__).split()).rstrip(".")
                yield Finding(name, not detail, detail, time.monotonic() - began)
        finally:
            if room is not None:
                room.executor.shutdown()
