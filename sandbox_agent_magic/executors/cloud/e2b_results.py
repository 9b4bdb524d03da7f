"""What E2B's code interpreter makes of a result, made into an output again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...types import MimeBundle, Output
from .engine import MIMETYPES

if TYPE_CHECKING:
    from e2b_code_interpreter.models import Result

_MARK = "\u2060"
"""Word joiner, before a text that begins and ends with a quotation mark: the interpreter takes those away otherwise."""

PREAMBLE = f"""
def exact(plain):
    if hasattr(type(plain), "exact"):
        return

    class Exact(type(plain)):
        exact = True

        def __call__(self, obj):
            text = super().__call__(obj)
            return {_MARK!r} + text if isinstance(text, str) and text[:1] == "'" == text[-1:] else text

    plain.__class__ = Exact


try:
    exact(get_ipython().display_formatter.formatters["text/plain"])
except (NameError, AttributeError, KeyError, TypeError):
    pass  # no IPython: then texts are as the interpreter makes them
"""
"""Python that keeps the interpreter from that, in a context."""


def rich(result: Result) -> Output:
    """A result as an output; what it says is cleaned by whoever takes it."""
    data: MimeBundle = {}
    for field, mimetype in MIMETYPES.items():
        value = getattr(result, field)
        if isinstance(value, str) and value:
            data[mimetype] = value.removeprefix(_MARK) if field == "text" else value
    if result.json is not None:
        data["application/json"] = result.json
    if isinstance(result.extra, dict):
        data |= {str(key): value for key, value in result.extra.items() if "/" in str(key)}
    if result.is_main_result:
        return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}
    return {"output_type": "display_data", "data": data, "metadata": {}}
