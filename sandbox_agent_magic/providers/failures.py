"""What went wrong with a request, said once for all providers that speak HTTP.

`classify` walks `TABLE` and makes the package's own error from the first row that fits a `Failure`. Order matters: the
special case stands above the general.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import (
    ProviderAuthError,
    ProviderBudgetExceeded,
    ProviderContentFiltered,
    ProviderContextTooLong,
    ProviderError,
    ProviderModelNotFound,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderReplyInvalid,
    ProviderTimeout,
    ProviderUnavailable,
)
from .asked import Asked
from .failure import Failure, Kind


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of failure: it fits if kind and status fit, and (where given) a word or the pattern."""

    error: type[ProviderError]
    message: str
    hint: str = ""
    kinds: tuple[Kind, ...] = ("server",)
    statuses: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    """Of `type` or `code`."""
    pattern: str = ""
    """Of the message; case does not count."""
    retryable: bool = False
    """Of `ProviderUnavailable`; the other classes know it themselves."""

    def fits(self, failure: Failure) -> bool:
        if failure.kind not in self.kinds or (self.statuses and failure.status not in self.statuses):
            return False
        if not self.words and not self.pattern:
            return True
        if failure.type in self.words or failure.code in self.words:
            return True
        return bool(self.pattern and re.search(self.pattern, failure.message, re.IGNORECASE))


_KEY_HINT = "Check {key}; the key must be one of {server}."
_OWN_SERVER_HINT = "Run it again: the server is then started anew. If it stays so, ask `sandbox-agent doctor`."
_LATER_HINT = "Try again later, or set {model_setting} to another model."
_ADDRESS_HINT = "Check {url_setting}: a full address such as {url_example}, and that the server runs."

TABLE: tuple[Row, ...] = (
    # ---- the server refused, and more of the same will not help
    Row(
        ProviderBudgetExceeded,
        "The budget of the key at {server} is used up.",
        "Ask for a higher budget, or use another key: {key}.",
        words=("budget_exceeded",),
        pattern=r"budget has been exceeded|ExceededBudget",
    ),
    Row(
        ProviderQuotaExceeded,
        "The quota or credit of the account at {server} is used up.",
        "Add credit to the account, or use another key: {key}.",
        words=("insufficient_quota", "billing_error", "billing_hard_limit_reached"),
        pattern=r"credit balance is too low|exceeded your current quota|insufficient (credit|quota|balance)",
    ),
    Row(ProviderQuotaExceeded, "{server} asks for payment.", "Add credit, or use another key: {key}.", statuses=(402,)),
    Row(
        ProviderContextTooLong,
        "The conversation is too long for {model}.",
        "Start afresh with `%agent reset`, send less data, or set {model_setting} to a model with a larger context.",
        statuses=(400, 413, 422, 500),
        words=("context_length_exceeded", "exceed_context_size_error"),
        pattern=r"ContextWindowExceeded|maximum context length|prompt is too long|(exceed|larger than)\w* .*context",
    ),
    Row(
        ProviderContextTooLong,
        "The request is too large for {server}.",
        "Start afresh with `%agent reset`, or send less data.",
        statuses=(413,),
    ),
    Row(
        ProviderContentFiltered,
        "The content filter of {server} stopped the request.",
        "Say it in other words, or leave out the text or data that the filter objects to.",
        words=("content_filter", "content_policy_violation"),
        pattern=r"ContentPolicyViolation|content management policy|content[ _](filter|policy)",
    ),
    # ---- key and model
    Row(
        ProviderModelNotFound,
        "The key may not use the model {model} at {server}.",
        "Set {model_setting} to a model that the key may use, or use another key: {key}.",
        words=("key_model_access_denied", "team_model_access_denied"),
        pattern=r"not allowed to access model|does not have access to model",
    ),
    Row(
        ProviderAuthError,
        "{server} did not accept the API key.",
        _KEY_HINT,
        words=("token_not_found_in_db", "invalid_api_key", "authentication_error"),
        pattern=r"No connected db|incorrect api key|invalid (x-)?api[ -]key",
    ),
    Row(ProviderAuthError, "{server} did not accept the API key.", _KEY_HINT, statuses=(401,)),
    Row(
        ProviderModelNotFound,
        "{server} has no model {model}.",
        "Set {model_setting} to a model that the server offers.",
        statuses=(400, 403, 404, 422),
        words=("model_not_found", "DeploymentNotFound"),
        pattern=r"Invalid model name|unknown model|no such model|not a valid model"
        r"|model\b.*\b(not found|not exist|no access)",
    ),
    Row(
        ProviderModelNotFound,
        "{server} has no model {model}.",
        "Set {model_setting} to a model that the server offers.",
        statuses=(404,),
        pattern=r"\bmodel\b",
    ),
    Row(ProviderAuthError, "{server} does not allow this request.", _KEY_HINT, statuses=(403,)),
    # ---- the server is busy or broken
    Row(
        ProviderRateLimited,
        "{server} limits the rate of requests.",
        "Wait a little; {max_retry} sets how often a request is sent again, {request_timeout} for how long in all.",
        statuses=(429,),
    ),
    Row(
        ProviderRateLimited,
        "{server} limits the rate of requests.",
        "Wait a little; {max_retry} sets how often a request is sent again, {request_timeout} for how long in all.",
        words=("throttling_error", "rate_limit_error", "rate_limit_exceeded"),
        pattern=r"RateLimitError|rate limit",
    ),
    Row(
        ProviderTimeout,
        "{server} gave up waiting for {model}.",
        _LATER_HINT,
        statuses=(408, 504),
    ),
    Row(
        ProviderTimeout,
        "{server} gave up waiting for {model}.",
        _LATER_HINT,
        pattern=r"litellm\.Timeout|timeout on reading|timed out",
    ),
    Row(
        ProviderUnavailable,
        "{server} is overloaded.",
        _LATER_HINT,
        statuses=(503, 529),
        retryable=True,
    ),
    Row(
        ProviderUnavailable,
        "{server} is overloaded.",
        _LATER_HINT,
        words=("overloaded_error",),
        pattern=r"overloaded",
        retryable=True,
    ),
    Row(
        ProviderUnavailable,
        "{server} cannot reach the server behind it.",
        "Try again later; if it stays so, the proxy's own settings are wrong.",
        pattern=r"Connection error|connection refused",
        retryable=True,
    ),
    Row(
        ProviderUnavailable,
        "{server} failed with status {status}.",
        _LATER_HINT,
        statuses=tuple(range(500, 600)),
        retryable=True,
    ),
    # ---- the address is not that of a model server
    Row(
        ProviderUnavailable,
        "{server} has nothing at this address.",
        "Check {url_setting}: an address such as {url_example}.",
        statuses=(404, 405),
    ),
    Row(
        ProviderUnavailable,
        "{server} redirects to another address.",
        "Set {url_setting} to the address that answers itself (mind http or https, and the path).",
        statuses=(301, 302, 303, 307, 308),
    ),
    Row(
        ProviderError,
        "{server} refused the request.",
        "Check {model_setting} and the options of the request.",
        statuses=tuple(range(400, 500)),
    ),
    Row(ProviderUnavailable, "{server} broke off with an error.", _LATER_HINT, retryable=True),
    # ---- no server to say anything
    Row(
        ProviderTimeout,
        "No complete reply from {server} within {timeout_s:.3g} s.",
        "Try again, ask for less, or raise {request_timeout}.",
        kinds=("timeout",),
    ),
    Row(
        ProviderTimeout,
        "{server} fell silent in the middle of its reply.",
        "Try again; if the model needs its time, raise {idle_timeout}.",
        kinds=("idle",),
    ),
    Row(
        ProviderUnavailable,
        "{server} is unknown.",
        "Check {url_setting} and the network.",
        kinds=("connect",),
        pattern=r"name or service|name resolution|getaddrinfo|nodename|no address associated",
    ),
    Row(
        ProviderUnavailable,
        "{server} does not take the connection in time.",
        _ADDRESS_HINT,
        kinds=("connect",),
        pattern=r"timed out|timeout",
        retryable=True,
    ),
    Row(
        ProviderUnavailable,
        "{server} does not speak TLS.",
        "Check {url_setting}: it may have to begin with http:// instead of https://.",
        kinds=("connect",),
        pattern=r"wrong version number|record layer failure|packet length too long|http request|EOF occurred",
    ),
    Row(
        ProviderUnavailable,
        "The certificate of {server} cannot be trusted.",
        "Check {url_setting}; for a company's own certificates set SSL_CERT_FILE in the environment.",
        kinds=("connect",),
        pattern=r"certificate|ssl|tls",
    ),
    Row(ProviderUnavailable, "{server} cannot be reached.", _ADDRESS_HINT, kinds=("connect",)),
    Row(ProviderUnavailable, "The address of the model server is not valid.", _ADDRESS_HINT, kinds=("address",)),
    Row(
        ProviderUnavailable,
        "{server} broke the connection off.",
        "Try again; if it stays so, look at the server's own log.",
        kinds=("cut",),
        retryable=True,
    ),
    Row(
        ProviderReplyInvalid,
        "{server} answered with something that is not a chat completion.",
        "Check {url_setting}: an address such as {url_example}.",
        kinds=("reply",),
    ),
    Row(
        ProviderAuthError,
        "The API key cannot be sent.",
        "Copy the key again, without line breaks or quotes: {key}.",
        kinds=("key",),
    ),
    Row(
        ProviderError,
        "The request to {server} failed.",
        "Try `sandbox-agent doctor --call`; with DEBUG=true, requests.log has what was sent.",
        kinds=("other",),
    ),
)


def classify(failure: Failure, asked: Asked) -> ProviderError:
    """The package's own error for `failure`.

    Raise it outside the `except` block: then no foreign exception, and no key in it, rides along in `__context__`.
    """
    row = next(row for row in TABLE if row.fits(failure))

    def fill(template: str) -> str:
        return template.format(
            provider=asked.provider,
            model=asked.model,
            server=asked.server,
            key=asked.key,
            url_setting=asked.setting(asked.url_setting),
            url_example=asked.url_example,
            model_setting=asked.setting(asked.model_setting),
            request_timeout=asked.setting("REQUEST_TIMEOUT"),
            idle_timeout=asked.setting("AGENT_IDLE_TIMEOUT"),
            max_retry=asked.setting("MAX_RETRY"),
            timeout_s=asked.timeout_s,
            idle_s=asked.idle_s,
            status=failure.status,
        )

    foreign = ("{key}" in row.hint and not asked.key) or ("{url_setting}" in row.hint and not asked.url_setting)
    hint = _OWN_SERVER_HINT if foreign else fill(row.hint)
    said = "It said" if failure.kind == "server" else "Reason"
    status = f" (status {failure.status})" if failure.status is not None else ""
    why = f"{said}{status}: {failure.message}" if failure.message else f"{said}{status}: nothing."
    make: Callable[..., ProviderError] = row.error
    common = {"provider": asked.provider, "model": asked.model, "status": failure.status}
    texts = {"why": why, "hint": hint}
    if issubclass(row.error, ProviderUnavailable):
        error = make(fill(row.message), retryable=row.retryable, **common, **texts)
    else:
        error = make(fill(row.message), **common, **texts)
    error.retry_after = failure.retry_after
    return error
