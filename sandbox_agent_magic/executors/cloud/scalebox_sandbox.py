"""The SDK's sandbox object, with what 1.0.10 lacks. Imports the SDK: only `scalebox.py` imports this, on use."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

import urllib3
from scalebox.code_interpreter import Sandbox
from urllib3.response import BaseHTTPResponse

_CONNECT_S = 15.0
_HEALTH_S = 5.0


class OurSandbox(Sandbox):
    """The SDK's sandbox.

    - `run_code` forgets to pass its timeouts on to the connection, where a silent server would hold it for ever.
    - Its reader of streams waits until a buffer is full: what code prints would come at its end, all at once.
    - `create` asks `is_running` for ten seconds and then prints a line; here it does not ask, and `answers` is asked.
    - Nothing closes its connections.
    """

    patience_s = 300.0
    """Seconds of silence after which a connection to running code is given up."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._others: urllib3.PoolManager = self.__dict__["_urllib3_pool"]
        self._runs = self.__dict__["_urllib3_pool"] = _Pool(self, headers=self.connection_config.headers)

    def is_running(self, request_timeout: float | None = None) -> bool:  # noqa: ARG002 - the SDK's signature
        """Always: see `answers`."""
        return True

    def answers(self) -> bool:
        """Whether the sandbox takes requests. Raises what the SDK raises."""
        return bool(super().is_running(request_timeout=_HEALTH_S))

    def close(self) -> None:
        """Close all connections, those that are read from included: whoever reads gets an error."""
        self._runs.end()
        close_pools(self._others)
        self._envd_api.close()


class _Pool(urllib3.PoolManager):
    """Connections to running code: with a bound for silence, and an end."""

    def __init__(self, owner: OurSandbox, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self._owner = weakref.ref(owner)
        self._responses: weakref.WeakSet[BaseHTTPResponse] = weakref.WeakSet()

    def urlopen(  # type: ignore[override]
        self,
        method: str,
        url: str,
        redirect: bool = True,  # noqa: ARG002 - the base's signature
        **options: Any,
    ) -> BaseHTTPResponse:
        """As the base's; the access token follows no redirect."""
        owner = self._owner()
        options["timeout"] = urllib3.Timeout(connect=_CONNECT_S, read=owner.patience_s if owner else _CONNECT_S)
        response = super().urlopen(method, url, False, **options)
        self._responses.add(response)
        response.read = _live(response)  # type: ignore[method-assign]
        return response

    def end(self) -> None:
        """Close everything."""
        for response in list(self._responses):
            with contextlib.suppress(Exception):
                response.shutdown()
            with contextlib.suppress(Exception):
                response.close()
        close_pools(self)


def close_pools(manager: urllib3.PoolManager) -> None:
    """Close connections that nobody uses; `clear` alone leaves that to the garbage collector."""
    for key in manager.pools.keys():  # noqa: SIM118 - no mapping, and not to be iterated over
        manager.pools[key].close()
    manager.clear()


def _live(response: BaseHTTPResponse) -> Callable[..., bytes]:
    """A `read` for a response, which returns what is there."""
    weak = weakref.ref(response)  # or it would hold itself
    whole = type(response).read

    def read(amt: int | None = None, *rest: Any, **options: Any) -> bytes:
        found = weak()
        if found is None:
            return b""
        return found.read1(amt) if amt is not None and amt > 0 else whole(found, amt, *rest, **options)

    return read
