"""One request to a Jupyter server, and the JSON of its answer: bounded in time and size, tried again where that helps.

Written against `requests` rather than a client of kernels: the token stays out of addresses, where servers and proxies
log it; no redirect is followed with it; and each failure is told apart, once.
"""

from __future__ import annotations

import atexit
import contextlib
import email.utils
import json
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ...errors import ExecutorError
from .patience import Patience
from .refusals import Reply, bad_certificate, no_server, refused, silent, unreachable
from .target import Target

if TYPE_CHECKING:
    import requests

_CONNECT_S = 10.0
_MAX_ANSWER = 1 << 20
_TRIES = 6
_FIRST_PAUSE_S = 0.5
"""Doubled from try to try: 15 seconds in all, unless the server says how long to wait."""
_LATE_S = 600.0
"""For what is started over there when nobody waits for it any more: it is to be ended."""
_GOODBYE_S = 5.0


class Rest:
    """Requests to one server. Keeps no connection; may be used from several threads."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def headers(self) -> dict[str, str]:
        """For each request. The gateways know `token` and not `Bearer`; all servers know `token`."""
        return {"Authorization": f"token {self._target.token}"} if self._target.token else {}

    def ask(
        self,
        verb: str,
        path: str,
        body: dict[str, object] | None = None,
        *,
        patience: Patience,
        again: Collection[int] = (),
        what: str = "",
        late: Callable[[object], None] | None = None,
    ) -> object:
        """The JSON of the answer, or None where there is none.

        Args:
            verb: GET, POST, DELETE.
            path: after the server's address.
            body: sent as JSON.
            patience: how long all of it may take.
            again: statuses after which it is worth, and safe, to send it once more.
            what: is being waited for; said to the reader.
            late: takes an answer that comes when nobody waits any more.

        Raises:
            Refusal: the server's answer is no success.
            ExecutorTimeout: no whole answer in time.
            ExecutorError: the server cannot be reached, or is none.
        """
        pause = _FIRST_PAUSE_S
        for attempt in range(1, _TRIES + 1):
            reply = self._send(verb, path, body, patience, what or f"Waiting for {self._target.shown}", late)
            if reply.status not in again or attempt == _TRIES:
                break
            wait = pause if reply.retry_after_s is None else reply.retry_after_s
            if wait >= patience.left:
                break
            patience.sleep(wait, f"{self._target.shown} answered {reply.status}; trying again")
            pause *= 2
        if not 200 <= reply.status < 300:
            raise Refusal(reply, refused(self._target, reply))
        try:
            return _parsed(reply)
        except (ValueError, RecursionError):
            said = "it answers with a web page, perhaps one where one logs in" if reply.is_page else "that is no JSON"
            raise no_server(self._target, said) from None

    def _send(
        self,
        verb: str,
        path: str,
        body: dict[str, object] | None,
        patience: Patience,
        what: str,
        late: Callable[[object], None] | None,
    ) -> Reply:
        """Send it once. In a thread: a server that sends a byte now and then would else hold its caller for ever."""
        read_s = patience.left + (_LATE_S if late is not None else 0)
        pending = _Pending(lambda: self._exchange(verb, path, body, read_s), late)
        try:
            while not pending.done.wait(patience.look_s):
                patience.tell(what)
                if not patience.left:
                    raise silent(self._target, patience.seconds)
        except BaseException:  # a Ctrl-C too
            pending.abandon()
            raise
        if isinstance(pending.result, Reply):
            return pending.result
        raise pending.result or unreachable(self._target, "it failed.")

    def _exchange(self, verb: str, path: str, body: dict[str, object] | None, seconds: float) -> Reply | ExecutorError:
        import requests

        try:
            with requests.request(
                verb,
                f"{self._target.url}/{path}",
                json=body,
                headers={**self.headers(), "Accept": "application/json", "Accept-Encoding": "identity"},
                auth=_as_it_is,
                timeout=(_CONNECT_S, seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                return Reply(
                    response.status_code,
                    response.raw.read(_MAX_ANSWER) or b"",
                    location=response.headers.get("Location", ""),
                    retry_after_s=_seconds(response.headers.get("Retry-After", "")),
                    is_page="html" in response.headers.get("Content-Type", ""),
                )
        except requests.Timeout:
            return silent(self._target, seconds)
        except requests.exceptions.SSLError as error:
            return bad_certificate(self._target, _innermost(error))
        except Exception as error:  # its other errors, the system's, and urllib3's own, where `raw` is read
            return unreachable(self._target, _innermost(error))


class Refusal(ExecutorError):
    """An answer that is no success; `reply` tells which."""

    def __init__(self, reply: Reply, error: ExecutorError) -> None:
        super().__init__(error.message, executor=error.executor, why=error.why, hint=error.hint)
        self.reply = reply


class _Pending:
    """A request on its way, in a thread of its own."""

    def __init__(self, work: Callable[[], Reply | ExecutorError], late: Callable[[object], None] | None) -> None:
        self.done = threading.Event()
        self.result: Reply | ExecutorError | None = None
        self._work = work
        self._late = late
        self._lock = threading.Lock()
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="sandbox-agent-remote", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """Nobody waits any more: an answer that comes all the same goes to `late`."""
        with self._lock:
            self._abandoned = True
            if self._late is None:
                return
            if self.done.is_set():
                self._hand_over()
            else:
                _late_ones.append(self._thread)

    def _run(self) -> None:
        result = self._work()
        with self._lock:
            self.result = result
            self.done.set()
            if self._abandoned:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._late is None or not isinstance(self.result, Reply) or not 200 <= self.result.status < 300:
            return
        with contextlib.suppress(ValueError, RecursionError, ExecutorError):
            self._late(_parsed(self.result))


_late_ones: list[threading.Thread] = []


@atexit.register
def _wait_for_late_ones() -> None:
    """A kernel that is just being started for nobody is ended, if its server says soon that it is there."""
    end = time.monotonic() + _GOODBYE_S
    for thread in _late_ones:
        thread.join(max(0.0, end - time.monotonic()))


def _parsed(reply: Reply) -> object:
    return json.loads(reply.content) if reply.content.strip() else None


def _seconds(retry_after: str) -> float | None:
    """Of a Retry-After, which is a number of seconds or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps a line of ~/.netrc from taking the token's place."""
    return request


def _innermost(error: BaseException) -> str:
    """The reason at the bottom of a chain of errors: the system's own words, where there are some."""
    seen = error
    for _ in range(10):
        inner = getattr(seen, "reason", None) or seen.__cause__ or seen.__context__ or (seen.args[:1] or (None,))[0]
        if not isinstance(inner, BaseException):
            break
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return f"{seen.strerror}."
    return f"{type(seen).__name__}."
