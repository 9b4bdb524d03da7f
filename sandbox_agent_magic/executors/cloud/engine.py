"""The seam to a provider of cloud sandboxes: what one adapter for each SDK gives, and in which words it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Literal, Protocol, TypeAlias

from ...types import OutputHook

Kind: TypeAlias = Literal[
    "key",  # 401, or no key
    "forbidden",  # 403
    "gone",  # the sandbox does not exist (any more)
    "template",  # there is no such template
    "refused",  # 400, 409, 422: the request itself
    "funds",  # 402, or a quota that is used up
    "busy",  # 429
    "server",  # 5xx
    "unreachable",  # refused, unknown host, bad certificate
    "cut",  # the connection broke in the middle
    "late",  # no answer in time
    "file",  # a file cannot be read or written there
    "reply",  # anything else that was not understood
]
"""What went wrong between here and the provider."""


STATUSES: dict[int, Kind] = {
    400: "refused",
    401: "key",
    402: "funds",
    403: "forbidden",
    404: "gone",
    408: "late",
    409: "refused",
    410: "gone",
    422: "refused",
    429: "busy",
}
"""What an HTTP status means, unless an SDK has more to say of it; the rest from 500 on is `server`."""


class CloudFailure(Exception):
    """What an adapter raises: never with a key in it, never with the SDK's exception behind it.

    Args:
        kind: what it was.
        detail: the provider's own words, cleaned and short; may be empty.
        status: the HTTP status, where there was one.
    """

    def __init__(self, kind: Kind, detail: str = "", status: int | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: Kind = kind
        self.detail = detail
        self.status = status


@dataclass(frozen=True, slots=True)
class CloudTarget:
    """Which account, which kind of sandbox, and how long it may live."""

    api_key: str = field(repr=False)
    domain: str = ""
    """Where the provider's API is; empty leaves it to the SDK's default."""
    api_url: str = ""
    """The whole address of the API, where `domain` does not say it; not with every provider."""
    sandbox_url: str = ""
    """The whole address of the gateway to all sandboxes, likewise."""
    template: str = ""
    """What a sandbox is made from; empty leaves it to the SDK's default."""
    session: str = ""
    """Id of a running sandbox to use instead of an own one."""
    keep: bool = False
    """An own sandbox goes on when the kernel ends."""
    life_s: int = 300
    """Seconds that a sandbox lives after it was last used."""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Variables for the sandbox."""
    key_name: str = ""
    """The key's setting, for messages."""
    key_source: str = ""
    """Where the key came from, for messages."""
    domain_name: str = ""
    """The domain's setting, for messages."""


@dataclass(frozen=True, slots=True)
class CloudSandbox:
    """A sandbox that the account has."""

    sandbox_id: str
    started: datetime | None = None
    """With a time zone; None where nobody says."""
    ours: bool = False
    """It was made by this package, in whatever notebook."""


OURS = {"made_by": "sandbox-agent-magic"}
"""Metadata of every sandbox that is made here: by it a left-over one is found."""


MIMETYPES = {
    "text": "text/plain",
    "html": "text/html",
    "markdown": "text/markdown",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "latex": "text/latex",
}
"""What the SDKs call the parts of a result."""


class CloudEngine(Protocol):
    """One account and, once made or connected, one sandbox of it.

    All calls may block and are made from worker threads, one at a time but for `extend` and `interrupt`, which come
    while `run` goes on. Each raises CloudFailure, and nothing else.
    """

    name: str
    """The executor's, such as `scalebox`."""
    title: str
    """The provider's, such as `Scalebox`."""
    preamble: str
    """Python that runs once in each context, before any code of the reader's; may be empty."""

    def create(self) -> str:
        """Make a sandbox, with the metadata `OURS`, wait until it takes requests, and return its id."""

    def connect(self, sandbox_id: str) -> None:
        """Use a sandbox that runs. Its default context is the one that earlier clients used."""

    def extend(self, life_s: int) -> None:
        """Let the sandbox live for `life_s` seconds from now; `gone` if it is not there any more."""

    def kill(self, sandbox_id: str) -> bool:
        """End a sandbox; False if there was none."""

    def list(self) -> Sequence[CloudSandbox]:
        """All that run under this account."""

    def run(self, code: str, *, on_output: OutputHook, timeout_s: float) -> None:
        """Run code in the context, and return at its end.

        Args:
            code: Python.
            on_output: takes each output as it comes, an exception of the code included; hostile, to be cleaned by the
                caller. What it raises comes out of `run` as it is.
            timeout_s: an upper bound; the caller interrupts sooner.
        """

    def interrupt(self, pid: int) -> None:
        """Send SIGINT to a process in the sandbox."""

    def replace_context(self, pid: int) -> None:
        """Kill that process in the sandbox, if it is there, and use a new context from now on."""

    def write(self, path: str, source: BinaryIO) -> None:
        """Write a file of the sandbox, whose folder exists."""

    def read(self, path: str) -> bytes:
        """A file of the sandbox; `file` if there is none."""

    def disconnect(self) -> None:
        """Close connections; what comes next connects anew to the same sandbox. Never raises."""
