"""Every exception of the package, in one place.

An error has up to three lines: what failed, why (with the source of a value), what to do. `lines()` gives them;
the magic and the command line print them and nothing else. Code that raises inside an executor is data
(`ErrorInfo`), never one of these.
"""

from __future__ import annotations


class SandboxAgentError(Exception):
    """Base of all errors that this package raises.

    Args:
        message: what failed, one sentence.
        why: the cause, with the source of the offending value; may be empty.
        hint: what the reader can do; may be empty.
    """

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.hint = hint
        self.detailed = True
        """Whether all lines are shown, or only the first (DETAILED_ERROR)."""

    def lines(self) -> list[str]:
        """The message as at most three lines of text."""
        parts = [self.message, self.why, self.hint] if self.detailed else [self.message]
        return [" ".join(part.split()) for part in parts if part.strip()]

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a traceback."""
        return self.lines()

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UsageError(SandboxAgentError):
    """A magic line, a command line or an argument of the Python API cannot be understood."""


class SettingsError(SandboxAgentError):
    """A setting is missing or has a bad value.

    Args:
        message: what failed.
        name: the setting, such as `TEMPERATURE`.
        source: where its value came from, such as `environment` or the path of a `.env`.
    """

    def __init__(self, message: str, *, name: str, source: str, why: str = "", hint: str = "") -> None:
        super().__init__(message, why=why, hint=hint)
        self.name = name
        self.source = source


class MissingDependencyError(SandboxAgentError, ImportError):
    """An optional package is not installed; `extra` names the extra that brings it."""

    def __init__(self, message: str, *, extra: str, why: str = "") -> None:
        super().__init__(message, why=why, hint=f'Install it with: pip install "sandbox-agent-magic[{extra}]"')
        self.extra = extra


class ModelStoreError(SandboxAgentError):
    """The files of the embedded model could not be fetched, checked or written."""


class ProviderError(SandboxAgentError):
    """A request to a model provider failed.

    Args:
        message: what failed.
        provider: the provider's name, such as `openai`.
        model: the model that was asked.
        status: HTTP status, where there was one.
        retry_after: seconds that the server asks to wait, if it said so.
    """

    retryable = False
    """Whether sending the same request again may succeed."""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str,
        status: int | None = None,
        retry_after: float | None = None,
        why: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, why=why, hint=hint)
        self.provider = provider
        self.model = model
        self.status = status
        self.retry_after = retry_after


class ProviderAuthError(ProviderError):
    """The key is missing, wrong, or not allowed to do this."""


class ProviderModelNotFound(ProviderError):
    """The server does not know the model, or the key may not use it."""


class ProviderRateLimited(ProviderError):
    """Too many requests."""

    retryable = True


class ProviderQuotaExceeded(ProviderError):
    """The account's quota or credit is used up."""


class ProviderBudgetExceeded(ProviderQuotaExceeded):
    """The budget that a proxy keeps for the key is used up: a run ends there, with what it has done."""


class ProviderContextTooLong(ProviderError):
    """The conversation no longer fits into the model's context window."""


class ProviderContentFiltered(ProviderError):
    """The provider's content filter stopped the request or the reply."""


class ProviderUnavailable(ProviderError):
    """The server cannot be reached, or is overloaded.

    Overload is worth a retry; a refused connection, an unknown host or a bad certificate is not.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str,
        status: int | None = None,
        retryable: bool = False,
        why: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, provider=provider, model=model, status=status, why=why, hint=hint)
        self.retryable = retryable


class ProviderTimeout(ProviderError):
    """No reply, or no next piece of it, within the time allowed."""

    retryable = True


class ProviderReplyInvalid(ProviderError):
    """The server answered with something that is not a chat completion."""


class ExecutorError(SandboxAgentError):
    """The place where code runs failed (not the code)."""

    def __init__(self, message: str, *, executor: str, why: str = "", hint: str = "") -> None:
        super().__init__(message, why=why, hint=hint)
        self.executor = executor


class SandboxUnavailable(ExecutorError):
    """No sandbox that holds can be had on this machine; `why` says what was tried."""


class KernelDied(ExecutorError):
    """The kernel died and could not be started again."""


class ExecutorTimeout(ExecutorError):
    """The executor did not become ready in time."""


class WorkspaceError(SandboxAgentError):
    """A folder cannot be a workspace, or a file cannot go in or out."""


class NotebookWriteError(SandboxAgentError):
    """A notebook could not be read, expanded or written."""
