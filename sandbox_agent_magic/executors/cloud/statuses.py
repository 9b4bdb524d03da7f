"""The HTTP status behind an exception of an SDK that lost it."""

from __future__ import annotations

import traceback

_LOCALS = ("res", "resp", "response", "r")


def status_of(problem: BaseException) -> int:
    """The status that the provider answered with; 0 where there was none.

    An SDK that stumbles over an error's body says so, and not what the error was. The response is still a local
    variable of a frame that the exception went through.
    """
    said = getattr(problem, "http_status", None)  # connectrpc's
    if isinstance(said, int) and said >= 400:
        return said
    for frame, _ in traceback.walk_tb(problem.__traceback__):
        for name in _LOCALS:
            response = frame.f_locals.get(name)
            for attribute in ("status_code", "status"):
                found = getattr(response, attribute, None)
                if isinstance(found, int) and 400 <= found < 600:
                    return int(found)
    return 0
