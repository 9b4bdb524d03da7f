"""The seams: values that cross between rooms, and Protocols for who handles them.

Nothing here imports anything of the package but `errors`. All values are frozen; a field's meaning and unit stand
under it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NotRequired, Protocol, TypeAlias, TypedDict

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"


# ---- outputs: plain dicts in nbformat's schema ------------------------------------------------------------------

MimeBundle: TypeAlias = dict[str, JSON]
"""Mimetype to data, as in nbformat: text as one string, pictures as base64 text, `+json` types as JSON."""


class StreamOutput(TypedDict):
    """Text on stdout or stderr."""

    output_type: Literal["stream"]
    name: Literal["stdout", "stderr"]
    text: str


class DisplayOutput(TypedDict):
    """Something that was displayed, such as a picture."""

    output_type: Literal["display_data"]
    data: MimeBundle
    metadata: dict[str, JSON]
    transient: NotRequired[dict[str, JSON]]
    """While it is shown live: its `display_id`, and `update` if it replaces an earlier one. Never part of a result."""


class ResultOutput(TypedDict):
    """The value of a cell's last expression."""

    output_type: Literal["execute_result"]
    data: MimeBundle
    metadata: dict[str, JSON]
    execution_count: int | None


class ErrorOutput(TypedDict):
    """An exception that ended a cell."""

    output_type: Literal["error"]
    ename: str
    evalue: str
    traceback: list[str]


Output: TypeAlias = StreamOutput | DisplayOutput | ResultOutput | ErrorOutput
OutputHook: TypeAlias = Callable[[Output], None]
TextHook: TypeAlias = Callable[[str], None]


def no_text(_text: str) -> None:
    """A `TextHook` that does nothing."""


ProgressHook: TypeAlias = Callable[[int, int], None]
"""Told of bytes done and bytes in all."""


# ---- the conversation with a model ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """A picture for the model."""

    mimetype: str
    data: str
    """Base64 text."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's wish to call a tool."""

    id: str
    name: str
    arguments: str
    """JSON text, exactly as the model wrote it (it may be broken)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation, independent of any provider's wire format."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's message."""
    tool_call_id: str | None = None
    """Of a tool's message: the call that it answers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function offered to the model."""

    name: str
    description: str
    parameters: Mapping[str, JSON]
    """JSON Schema."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What one call of a model gets."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    temperature: float | None = None
    max_output_tokens: int | None = None
    deadline_s: float = 300.0
    """Seconds that the whole attempt may take."""
    idle_s: float = 60.0
    """Seconds of silence after which a reply that has begun is given up."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money of one or more requests."""

    input_tokens: int = 0
    """All tokens read, the cached ones included."""
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """US dollars; None where nobody said."""
    cache_write_tokens: int = 0
    """Of the tokens read, those that the server put into its cache, where that has a price of its own."""

    def __add__(self, other: Usage) -> Usage:
        costs = [u.cost_usd for u in (self, other) if u.cost_usd is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            sum(costs) if costs else None,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What came back from one call."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    """`stop`, `tool_calls`, `length`, `content_filter`, or the server's own word."""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """How to speak with the model of a provider."""

    small: bool = False
    """A small model: short system prompt, no tools, one working code reply ends the work."""
    images: bool = True
    """Whether pictures may be sent."""
    label: str = ""
    """Shown beside its answers, such as "small local model, may be wrong"."""


class Provider(Protocol):
    """Asks one model. One attempt per call: retries belong to the agent, in sight of the reader."""

    name: str
    model: str
    traits: ModelTraits

    def complete(self, request: ModelRequest, *, on_text: TextHook, on_reasoning: TextHook = no_text) -> ModelReply:
        """Send `request`, pass the text on as it streams in, and return the whole reply.

        Args:
            request: what the model gets.
            on_text: takes the pieces of the reply's text.
            on_reasoning: takes what the model thinks aloud before it replies; no part of the reply.

        Raises:
            ProviderError: the request failed; `retryable` says whether another attempt is worth it.
        """

    def models(self) -> Sequence[str]:
        """Names of the models that the server offers.

        Raises:
            ProviderError: the server could not be asked.
        """

    def close(self) -> None:
        """Close connections. A shared server process goes on for other notebooks."""


# ---- running code -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception of the code that ran."""

    ename: str
    evalue: str
    traceback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of the workspace."""

    name: str
    """Path relative to the workspace, with `/`."""
    size: int
    """Bytes."""


ExecutionStatus: TypeAlias = Literal["ok", "error", "timeout", "interrupted", "died"]


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What one execution left behind. Code that raised is a result too, never an exception here."""

    status: ExecutionStatus
    outputs: tuple[Output, ...] = ()
    """In order, already capped and sanitised."""
    execution_count: int | None = None
    error: ErrorInfo | None = None
    new_files: tuple[FileInfo, ...] = ()
    """Files of the workspace that are new or changed."""
    duration_s: float = 0.0
    """Wall time inside the executor, seconds."""
    state_lost: bool = False
    """The kernel was restarted: its variables are gone."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an executor can do."""

    isolated: bool
    """Code cannot reach the reader's files, network or environment."""
    cell_magic: str = ""
    """Line that an inserted cell starts with to run there again, such as `%%sandbox`; empty: the reader's kernel."""
    files: bool = True
    """Files go in and out; otherwise `put_file`, `get_file` and `list_files` raise ExecutorError."""
    install: bool = False
    """Packages can be installed; otherwise `install` raises ExecutorError."""
    own_process: bool = True
    """Its code runs in a process of its own: that may die and be restarted, and two executors share nothing. Otherwise
    `restart` raises ExecutorError."""
    label: str = ""
    """What the reader should know about how it isolates, such as "landlock, weaker"."""


class Executor(Protocol):
    """Runs code and keeps its state between calls. Owned by a Session, which closes it."""

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """What it can do, as far as is known yet."""

    def start(self) -> None:
        """Begin to start, and return at once. Errors appear at the first `execute`."""

    def execute(self, code: str, *, timeout_s: float, on_output: OutputHook) -> ExecutionResult:
        """Run `code` to its end, or for `timeout_s` seconds, passing each output on as it arrives.

        KeyboardInterrupt while it runs interrupts the code and gives a result with status `interrupted`.

        Raises:
            SandboxUnavailable: it could not be started safely.
            KernelDied: the engine is gone and could not be restarted.
            ExecutorTimeout: it did not become ready in time.
        """

    def interrupt(self) -> None:
        """Interrupt the code that runs, if any."""

    def restart(self) -> None:
        """Start afresh: variables are lost, files stay."""

    def shutdown(self) -> None:
        """End it and leave nothing behind. Idempotent."""

    def put_file(self, source: Path, name: str, *, on_progress: ProgressHook | None = None) -> FileInfo:
        """Copy a file of the reader into the workspace as `name`."""

    def get_file(self, name: str, destination: Path) -> None:
        """Copy a file out of the workspace."""

    def list_files(self) -> Sequence[FileInfo]:
        """Regular files of the workspace."""

    def install(self, packages: Sequence[str]) -> Sequence[str]:
        """Install packages for the code; returns what was added, as `name==version`.

        Raises:
            UsageError: one is not a name of a package.
            ExecutorError: this executor cannot, or pip failed.
        """


# ---- the loop ---------------------------------------------------------------------------------------------------

KeepPolicy: TypeAlias = Literal["ok", "all", "final"]
RunStatus: TypeAlias = Literal["completed", "failed", "limit", "budget", "stuck", "interrupted"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    max_iterations: int = 12
    """Model turns."""
    max_retry: int = 3
    """Retries of one request."""
    request_timeout_s: float = 300.0
    """Of one request, its retries included."""
    idle_timeout_s: float = 60.0
    """Silence in the middle of a reply."""
    cell_timeout_s: float = 120.0
    model_output_bytes: int = 3_500
    """Text of one step that goes back to the model. Ten turns then stay below 250 kB in total."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the reader asked for, from a cell, the command line or Python."""

    prompt: str
    files: tuple[Path, ...] = ()
    keep: KeepPolicy = "ok"
    output_name: str | None = None
    """Variable of the reader's kernel that receives the result."""
    cell_id: str | None = None
    """Id of the agent cell, where the front end says one."""
    variables: Mapping[str, object] = field(default_factory=dict)
    """Values of the reader that become variables of the code."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of code that the model wrote, and what became of it."""

    index: int
    """From 1."""
    code: str
    result: ExecutionResult
    explanation: str = ""
    """What the model said before the code."""
    usage: Usage = Usage()
    """Of the reply that brought it; counted once, at that reply's first step."""


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """The end of a run."""

    status: RunStatus
    answer: str
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    files: tuple[FileInfo, ...] = ()
    reason: str = ""
    """Why it did not complete, one sentence."""
    provider: str = ""
    model: str = ""
    executor: str = ""
    label: str = ""
    """A caution about the model, such as "small local model, may be wrong"."""
    run_id: str = ""
    requests: int = 0
    """Requests that were sent, retries included."""
    duration_s: float = 0.0

    def __repr__(self) -> str:
        """Short: a result holds pictures, and is often the last line of a cell."""
        return f"<RunResult {self.status}: {self.answer or self.reason!r}, {len(self.steps)} steps in {self.executor}>"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer."""

    allowed: bool
    reason: str = ""


class Gate(Protocol):
    """Says whether the loop may go on."""

    def allow_request(self, estimate: Usage) -> Verdict:
        """May a request of about this size be sent?"""

    def allow_code(self, code: str) -> Verdict:
        """May this code run?"""


# ---- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A request is on its way."""

    turn: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TextStreamed:
    """A piece of the model's text arrived."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningStreamed:
    """A piece of what the model thinks before it replies: progress, never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """A request was answered in full."""

    turn: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class CodeProposed:
    """A step is about to run."""

    index: int
    code: str


@dataclass(frozen=True, slots=True)
class OutputReceived:
    """The running step produced an output."""

    index: int
    output: Output


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step has ended, well or not."""

    step: Step


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """A request failed and will be sent again."""

    attempt: int
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over."""

    result: RunResult


Event: TypeAlias = (
    RequestSent
    | TextStreamed
    | ReasoningStreamed
    | ReplyReceived
    | CodeProposed
    | OutputReceived
    | StepFinished
    | RetryScheduled
    | RunFinished
)
EmitHook: TypeAlias = Callable[[Event], None]


# ---- the notebook -----------------------------------------------------------------------------------------------


class NotebookCell(TypedDict):
    """A cell in nbformat 4.5's schema."""

    cell_type: Literal["code", "markdown"]
    id: str
    source: str
    metadata: dict[str, JSON]
    outputs: NotRequired[list[Output]]
    execution_count: NotRequired[int | None]


class CellWriter(Protocol):
    """Receives the cells of a run, in order."""

    def add(self, cell: NotebookCell) -> None:
        """One finished cell."""

    def finish(self, result: RunResult) -> None:
        """No more cells will come."""


@dataclass(frozen=True, slots=True)
class FileNote:
    """What the model is told about a file that was sent."""

    info: FileInfo
    description: str = ""
    columns: tuple[tuple[str, str], ...] = field(default=())
    """Of a table: names and dtypes."""
