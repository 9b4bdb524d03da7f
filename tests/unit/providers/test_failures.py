"""Every failure that servers are known to show, in their own words, and the error it becomes."""

from __future__ import annotations

import json
import time

import pytest

from sandbox_agent_magic.errors import (
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
from sandbox_agent_magic.providers.asked import Asked
from sandbox_agent_magic.providers.cleaning import clean
from sandbox_agent_magic.providers.failure import Failure
from sandbox_agent_magic.providers.failures import TABLE, classify
from sandbox_agent_magic.providers.refusals import refused_parameter
from sandbox_agent_magic.providers.transport import failure_of, transport_errors

ASKED = Asked("openai", "gpt-4o", "api.openai.com", "OPENAI_API_KEY from .env, ends in ...4f2a", timeout_s=300)


def said(status: int | None, message: str, *, type: str = "", code: str = "") -> Failure:
    """What a server says in its usual JSON."""
    return Failure.of_body(
        {"error": {"message": message, "type": type, "code": code, "param": None}}, status=status, secrets=()
    )


CASES: dict[str, tuple[Failure, type[ProviderError], bool]] = {
    # ---- servers themselves
    "bad key": (said(401, "Incorrect API key provided.", code="invalid_api_key"), ProviderAuthError, False),
    "key not allowed": (said(403, "You have insufficient permissions."), ProviderAuthError, False),
    "unknown model": (said(404, "The model `x` does not exist", code="model_not_found"), ProviderModelNotFound, False),
    "unknown model, Ollama": (said(404, 'model "x" not found, try pulling it first'), ProviderModelNotFound, False),
    "unknown model, Anthropic": (said(404, "model: x", type="not_found_error"), ProviderModelNotFound, False),
    "no such path": (Failure.of_body({"detail": "Not Found"}, status=404, secrets=()), ProviderUnavailable, False),
    "rate limit": (said(429, "Rate limit reached", code="rate_limit_exceeded"), ProviderRateLimited, True),
    "quota": (said(429, "You exceeded your current quota", code="insufficient_quota"), ProviderQuotaExceeded, False),
    "credit, Anthropic": (said(400, "Your credit balance is too low"), ProviderQuotaExceeded, False),
    "bad key, in other words": (said(401, "Who are you?"), ProviderAuthError, False),
    "balance": (said(402, "Insufficient Balance"), ProviderQuotaExceeded, False),
    "payment": (said(402, "Pay first."), ProviderQuotaExceeded, False),
    "context": (said(400, "Too long.", code="context_length_exceeded"), ProviderContextTooLong, False),
    "context, Anthropic": (said(400, "prompt is too long: 9 tokens > 8"), ProviderContextTooLong, False),
    "context, llama.cpp": (
        said(400, "the request exceeds the available context size", type="exceed_context_size_error"),
        ProviderContextTooLong,
        False,
    ),
    "too large": (Failure.of_body("<html>413</html>", status=413, secrets=()), ProviderContextTooLong, False),
    "filter": (said(400, "Stopped.", code="content_filter"), ProviderContentFiltered, False),
    "overload": (said(503, "The engine is overloaded"), ProviderUnavailable, True),
    "overload, Anthropic": (said(529, "Overloaded", type="overloaded_error"), ProviderUnavailable, True),
    "overload in a stream": (said(200, "Overloaded", type="overloaded_error"), ProviderUnavailable, True),
    "rate limit in a stream": (said(None, "Slow down", type="rate_limit_error"), ProviderRateLimited, True),
    "redirect": (said(301, "Moved"), ProviderUnavailable, False),
    "page 502": (Failure.of_body("<title>502 Bad Gateway</title>", status=502, secrets=()), ProviderUnavailable, True),
    "gateway timeout": (Failure.of_body("", status=504, secrets=()), ProviderTimeout, True),
    "bad request": (said(400, "messages: at least one is required"), ProviderError, False),
    # ---- through LiteLLM
    "LiteLLM, bad key without a database": (said(400, "No connected db."), ProviderAuthError, False),
    "LiteLLM, bad key": (said(401, "Invalid token.", type="token_not_found_in_db"), ProviderAuthError, False),
    "LiteLLM, model not allowed": (
        said(401, "key not allowed to access model.", type="key_model_access_denied"),
        ProviderModelNotFound,
        False,
    ),
    "LiteLLM, unknown model": (said(400, "Invalid model name passed in model=x"), ProviderModelNotFound, False),
    "LiteLLM, rate limit": (
        said(429, "litellm.RateLimitError: try again in 1s", type="throttling_error"),
        ProviderRateLimited,
        True,
    ),
    "LiteLLM, quota": (
        said(429, "litellm.RateLimitError: You exceeded your current quota", type="throttling_error"),
        ProviderQuotaExceeded,
        False,
    ),
    "LiteLLM, budget": (
        said(429, "Budget has been exceeded! Current cost: 1.0", type="budget_exceeded"),
        ProviderBudgetExceeded,
        False,
    ),
    "LiteLLM, context": (said(400, "litellm.ContextWindowExceededError: x"), ProviderContextTooLong, False),
    "LiteLLM, filter": (said(400, "litellm.ContentPolicyViolationError: x"), ProviderContentFiltered, False),
    "LiteLLM, overload": (said(503, "litellm.ServiceUnavailableError: x"), ProviderUnavailable, True),
    "LiteLLM, timeout": (said(408, "litellm.Timeout: x"), ProviderTimeout, True),
    "LiteLLM, timeout in a stream": (said(None, "litellm.Timeout: x"), ProviderTimeout, True),
    "LiteLLM, upstream is down": (said(500, "OpenAIException - Connection error."), ProviderUnavailable, True),
    "LiteLLM, error in a stream": (said(None, "it broke", code="500"), ProviderUnavailable, True),
    "LiteLLM, cut in a stream": (said(None, "Response payload is not completed"), ProviderUnavailable, True),
    # ---- no server
    "refused": (Failure("connect", "[Errno 111] Connection refused"), ProviderUnavailable, False),
    "unknown host": (Failure("connect", "[Errno -2] Name or service not known"), ProviderUnavailable, False),
    "certificate": (Failure("connect", "CERTIFICATE_VERIFY_FAILED"), ProviderUnavailable, False),
    "no TLS": (Failure("connect", "[SSL: WRONG_VERSION_NUMBER] wrong version number"), ProviderUnavailable, False),
    "no answer to the connection": (Failure("connect", "timed out"), ProviderUnavailable, True),
    "no scheme": (Failure("address", "missing an 'http://' protocol"), ProviderUnavailable, False),
    "out of time": (Failure("timeout", ""), ProviderTimeout, True),
    "silent in the middle": (Failure("idle", "no further word within 60 s"), ProviderTimeout, True),
    "cut": (Failure("cut", "Server disconnected"), ProviderUnavailable, True),
    "not a completion": (Failure("reply", "it begins with '<html>'"), ProviderReplyInvalid, False),
    "key that is no header": (Failure("key", "Illegal header value"), ProviderAuthError, False),
    "anything else": (Failure("other", "?"), ProviderError, False),
}


@pytest.mark.parametrize(("failure", "error", "retryable"), CASES.values(), ids=CASES)
def test_a_failure_becomes_the_right_error(failure: Failure, error: type[ProviderError], retryable: bool) -> None:
    made = classify(failure, ASKED)
    assert type(made) is error
    assert made.retryable is retryable
    assert 2 <= len(made.lines()) <= 3
    assert "{" not in str(made)


def test_every_row_of_the_table_is_met_by_a_case() -> None:
    met = {next(row for row in TABLE if row.fits(failure)) for failure, _, _ in CASES.values()}
    assert set(TABLE) == met


def test_the_last_line_says_what_to_do_and_names_the_setting_and_the_source_of_the_key() -> None:
    lines = classify(said(401, "Incorrect API key provided: sk-abc***def."), ASKED).lines()
    assert lines[0] == "api.openai.com did not accept the API key."
    assert lines[1] == "It said (status 401): Incorrect API key provided: ***"
    assert "OPENAI_API_KEY from .env, ends in ...4f2a" in lines[2]


def test_a_server_of_our_own_has_no_address_or_key_to_check() -> None:
    own = Asked("local", "small", "The model's own server", key="", url_setting="", model_setting="AGENT_LOCAL_MODEL")
    for failure in (Failure("connect", "Connection refused"), said(401, "no")):
        assert "started anew" in classify(failure, own).hint


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({}, "Please try again in 1s.", 1.0),
        ({}, "Please try again in 20ms.", 0.02),
        ({}, "Please try again in 1m30.5s.", 90.5),
        ({}, "try again in 6 minutes", 360.0),
        ({}, "Rate limit reached.", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "-3"}, "", 0.0),
        ({"retry-after": "1e300"}, "", None),
    ],
)
def test_the_wait_is_read_from_headers_or_text(headers: dict[str, str], message: str, seconds: float | None) -> None:
    failure = Failure.of_body({"error": {"message": message}}, status=429, secrets=(), headers=headers)
    error = classify(failure, ASKED)
    assert isinstance(error, ProviderRateLimited)
    assert error.retry_after == seconds


def test_a_wait_until_a_date_is_counted_from_now() -> None:
    import email.utils

    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    failure = Failure.of_body("", status=429, secrets=(), headers={"retry-after": date})
    assert failure.retry_after == pytest.approx(90, abs=5)


# ---- secrets ----------------------------------------------------------------------------------------------------

SECRET = "sk-proj-Ab3dEf6hIj9_Lm2oPq5"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        f"key {SECRET[:14]}... is wrong",
        f"the key that ends in {SECRET[-10:]}",
        repr({"key": SECRET}),
        json.dumps({"key": SECRET}),
        f"http://user:{SECRET}@host/v1",
    ],
)
def test_a_secret_and_its_ends_never_show(text: str) -> None:
    shown = clean(text, [SECRET])
    assert SECRET[:10] not in shown
    assert SECRET[-8:] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abcdefgh12345678",
        "sk-ant-api03-abcdefgh",
        "AIzaSyA1234567890abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_def-1",
        "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918",
        "gsk_abcdefgh1234",
    ],
)
def test_what_looks_like_a_key_is_hidden_even_if_it_is_not_ours(text: str) -> None:
    assert clean(f"Wrong: {text} given", ()) == "Wrong: *** given"


def test_ordinary_words_stay() -> None:
    text = "The model claude-sonnet-4-5-20250929-thinking has a maximum context length of 128000 tokens; see https://example.org/docs"
    assert clean(text, ["no-such-secret"]) == text


def test_terminal_codes_and_line_breaks_of_a_server_are_not_passed_on() -> None:
    assert clean("a\x1b[31mred\x07\n\n  b\u202e", ()) == "a [31mred b"


def test_a_page_is_shown_by_its_title() -> None:
    page = "<html><head><style>p {color: red}</style><title>502 Bad Gateway</title></head><body>" + "<p>x" * 9999
    assert Failure.of_body(page, status=502, secrets=()).message == "502 Bad Gateway"


@pytest.mark.parametrize("page", ["<" * 10**6, "<title" * 10**5, "a-" * 10**6, "sk-" * 10**6, "1a" * 10**6])
def test_a_hostile_page_costs_no_time(page: str) -> None:
    begun = time.monotonic()
    classify(Failure.of_body(page, status=500, secrets=[SECRET]), ASKED)
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("body", [None, 5, [], {}, {"error": None}, {"error": [1]}, {"error": {"message": {"a": 1}}}])
def test_any_json_may_come_as_an_error(body: object) -> None:
    assert classify(Failure.of_body(body, status=500, secrets=()), ASKED).retryable


def test_no_error_of_the_sdk_or_below_it_goes_untranslated() -> None:
    """Every exception class of the SDK's and its HTTP client's is caught, and becomes a failure that has a row."""
    import anthropic
    import httpx2
    import openai

    caught = (openai.OpenAIError, anthropic.AnthropicError, *transport_errors())
    request = httpx2.Request("GET", "http://127.0.0.1")
    names = [(openai, name) for name in openai.__all__ if name.endswith("Error")]
    names += [(anthropic, name) for name in anthropic.__all__ if name.endswith("Error")]
    names += [(httpx2, name) for name in httpx2.__all__]
    kinds = [kind for module, name in names if isinstance(kind := getattr(module, name), type)]
    errors = [kind for kind in kinds if issubclass(kind, Exception)]
    assert len(errors) > 60
    for kind in errors:
        assert issubclass(kind, caught), kind
        exc = kind.__new__(kind, "text")
        exc.args = ("text",)
        exc.__dict__["_request"] = request
        assert isinstance(classify(failure_of(exc, ()), ASKED), ProviderError)


# ---- refused parameters -----------------------------------------------------------------------------------------

SENT = ["image_url", "stream_options", "temperature", "max_tokens", "tools"]


@pytest.mark.parametrize(
    ("status", "message", "parameter"),
    [
        (400, "Unsupported value: 'temperature' does not support 0.03 with this model.", "temperature"),
        (400, "litellm.UnsupportedParamsError: openai does not support parameters: ['temperature']", "temperature"),
        (400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens"),
        (400, "registry.ollama.ai/library/x does not support tools", "tools"),
        (404, "No endpoints found that support tool use.", "tools"),
        (400, '"auto" tool choice requires --enable-auto-tool-choice', "tools"),
        (500, "tools param requires --jinja flag", "tools"),
        (400, "unknown variant `image_url`, expected `text`", "image_url"),
        (500, "image input is not supported", "image_url"),
        (422, "stream_options: Extra inputs are not permitted", "stream_options"),
        (400, "Invalid 'temperature': decimal above maximum value.", None),
        (400, "messages with role 'tool' must be a response to a preceding message", None),
        (400, "unknown model my-tool-writer", None),
        (401, "tools are not supported for this key", None),
        (400, "This model's maximum context length is 8192 tokens; reduce max_tokens.", None),
    ],
)
def test_a_refused_parameter_is_recognised_by_the_servers_words(
    status: int, message: str, parameter: str | None
) -> None:
    assert refused_parameter(said(status, message), SENT, "my-tool-writer") == parameter
