"""The model behind the test proxy: it computes one sum, by a tool call or by a fenced block, and fails by name.

- a request about the "sum of numbers from 1 to 100": code that prints it; after the output, the answer;
- any other request: `echo: ...`.
"""

import json
from collections.abc import AsyncIterator, Iterator

import litellm
from litellm import CustomLLM
from litellm.types.utils import Choices, GenericStreamingChunk, Message, ModelResponse, Usage

CODE = "print(sum(range(1, 101)))"
USAGE = {"prompt_tokens": 120, "completion_tokens": 7, "total_tokens": 127}
FAILURES = {
    "fails-rate": (litellm.RateLimitError, "Rate limit reached for requests. Please try again in 7s."),
    "fails-quota": (litellm.RateLimitError, "You exceeded your current quota, please check your plan and billing."),
    "fails-context": (
        litellm.ContextWindowExceededError,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    ),
    "fails-filter": (
        litellm.ContentPolicyViolationError,
        "The response was filtered due to the prompt triggering the content management policy.",
    ),
    "fails-overload": (litellm.ServiceUnavailableError, "The model is overloaded."),
    "fails-broken": (litellm.InternalServerError, "The upstream server broke."),
}


def text_of(message: dict) -> str:
    """The text of a message, whose content may be a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def answer(model: str, messages: list, parameters: dict) -> tuple[str, str | None]:
    """Text and code of the next reply."""
    if model in FAILURES:
        kind, message = FAILURES[model]
        raise kind(message=message, model=model, llm_provider="scripted")
    if model == "no-tools" and parameters.get("tools"):
        raise litellm.BadRequestError("tools is not supported in this model", model, "scripted")
    if model == "no-temperature" and parameters.get("temperature") is not None:
        raise litellm.BadRequestError(
            "Unsupported value: 'temperature' does not support 0.03 with this model. Only 1 is supported.",
            model,
            "scripted",
        )
    last = text_of(messages[-1])
    if "5050" in last:
        return "The sum is 5050.", None
    if any("sum of numbers from 1 to 100" in text_of(m) for m in messages if m["role"] == "user"):
        return "I compute it.", CODE
    return f"echo: {last}", None


class Scripted(CustomLLM):
    """LiteLLM's interface for a provider of one's own."""

    def completion(self, *args: object, **kwargs: object) -> ModelResponse:
        text, code = answer(kwargs["model"], kwargs["messages"], kwargs["optional_params"])
        calls = None
        if code and kwargs["optional_params"].get("tools"):
            function = {"name": "python", "arguments": json.dumps({"code": code})}
            calls = [{"id": "call_sum", "type": "function", "function": function}]
        elif code:
            text = f"{text}\n```python\n{code}\n```"
        message = Message(role="assistant", content=text, tool_calls=calls)
        reply = ModelResponse(model=kwargs["model"])
        reply.choices = [Choices(index=0, finish_reason="tool_calls" if calls else "stop", message=message)]
        reply.usage = Usage(**USAGE)
        return reply

    async def acompletion(self, *args: object, **kwargs: object) -> ModelResponse:
        return self.completion(*args, **kwargs)

    def streaming(self, *args: object, **kwargs: object) -> Iterator[GenericStreamingChunk]:
        reply = self.completion(*args, **kwargs).choices[0]
        for piece in reply.message.content.splitlines(keepends=True):
            yield chunk(text=piece)
        for call in reply.message.tool_calls or []:
            yield chunk(tool=(call.id, call.function.name, ""))
            arguments = call.function.arguments
            for start in range(0, len(arguments), 7):
                yield chunk(tool=(None, None, arguments[start : start + 7]))
        yield chunk(finish=reply.finish_reason)

    async def astreaming(self, *args: object, **kwargs: object) -> AsyncIterator[GenericStreamingChunk]:
        for piece in self.streaming(*args, **kwargs):
            yield piece


def chunk(text: str = "", tool: tuple | None = None, finish: str = "") -> GenericStreamingChunk:
    """One piece of a stream: of the text, of the call (id, name, arguments), or its end."""
    use = None
    if tool is not None:
        id_, name, arguments = tool
        use = {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}, "index": 0}
    return GenericStreamingChunk(
        text=text,
        tool_use=use,
        is_finished=bool(finish),
        finish_reason=finish,
        index=0,
        usage=USAGE if finish else None,
    )


scripted = Scripted()
