"""Take the outputs of one execution as they arrive; coalesce and cap them."""

from __future__ import annotations

from typing import Literal

from ..types import DisplayOutput, Output, OutputHook, StreamOutput
from .clean import PICTURE_TYPES, clean_output, clean_text
from .limits import OutputLimits, mib
from .pieces import Pieces

MAX_OUTPUTS = 1_000
"""Outputs of one cell."""
_MAX_NOTES = 100
_MAX_ID = 200
MAX_ERRORS = 20
"""Exceptions of one cell: honest code ends with one."""
MAX_RICH_BYTES = 32 << 20
"""All rich outputs of one cell together."""


class OutputCollector:
    """Takes the outputs of one execution as they arrive and keeps what may be kept.

    Args:
        on_output: called with each cleaned output as it arrives.
        limits: what is kept; of text, the head is passed on and the tail follows at `finish`.
        trusted: rich types pass as they are, all but our own cells.
        bounded: the rich outputs together have a largest size; not so for the reader's own kernel.
    """

    def __init__(
        self,
        on_output: OutputHook,
        *,
        limits: OutputLimits | None = None,
        trusted: bool = False,
        bounded: bool = True,
    ) -> None:
        self._on_output = on_output
        self._limits = limits or OutputLimits()
        self._head_left = self._limits.text_bytes // 2
        self._tail_bytes = self._limits.text_bytes - self._head_left
        self._tail = Pieces()
        self._tail_name: Literal["stdout", "stderr"] = "stdout"
        self._trusted = trusted
        self._bounded = bounded
        self._outputs: list[Output] = []
        self._more = Pieces()
        """Text of the last output that is not in it yet."""
        self._displays: dict[str, list[DisplayOutput]] = {}
        """Outputs that may still be replaced, by their `display_id`."""
        self._elsewhere: dict[str, int] = {}
        """Sizes of what this cell put in the place of outputs that others display, by their `display_id`."""
        self._clear_at_next = False
        self._rich_left = MAX_RICH_BYTES
        self._errors = 0
        self._told_bytes = 0
        self._told_dropped = False
        self.truncated_bytes = 0
        """Text that was left out between head and tail."""
        self.dropped: list[str] = []
        """Mimetypes and other things that were refused."""
        self.breach = ""
        """A limit that an output broke, with its value and setting."""

    def add(self, output: Output) -> None:
        """Clean `output`, keep it and pass it on. Malformed ones are dropped, never raised."""
        if self._clear_at_next:
            self._clear_at_next = False
            self.clear()
        clean = self._cleaned(output)
        if clean is None:
            return
        is_error = clean["output_type"] == "error"
        self._errors += is_error
        if is_error and self._errors > MAX_ERRORS:
            self._note(f"exceptions after the first {MAX_ERRORS}")
            return
        if not is_error and len(self._outputs) >= MAX_OUTPUTS:
            self._note(f"outputs after the first {MAX_OUTPUTS:,}")
            return
        if not self._has_room(_size(clean)):
            return
        self._flush_tail()
        self._close_text()
        self._outputs.append(clean)
        display_id = _display_id(output)
        if clean["output_type"] == "display_data" and display_id:
            self._displays.setdefault(display_id, []).append(clean)
            clean = {**clean, "transient": {"display_id": display_id}}
        self._on_output(clean)

    def update(self, output: Output) -> None:
        """Replace what was displayed under the same `display_id`, as `update_display_data` asks for."""
        display_id = _display_id(output)
        clean = self._cleaned(output) if display_id else None
        if clean is None or clean["output_type"] != "display_data":
            return
        shown = self._displays.get(display_id, [])
        if shown:
            grown = sum(_size(clean) - _size(old) for old in shown)
        elif display_id in self._elsewhere or len(self._elsewhere) < MAX_OUTPUTS:
            grown = _size(clean) - self._elsewhere.get(display_id, 0)
        else:
            self._note(f"updates of other cells' outputs after the first {MAX_OUTPUTS:,}")
            return
        if not self._has_room(grown):
            return
        if not shown:
            self._elsewhere[display_id] = _size(clean)
        for old in shown:
            old["data"], old["metadata"] = clean["data"], clean["metadata"]
        self._on_output({**clean, "transient": {"display_id": display_id, "update": True}})

    def _cleaned(self, output: Output) -> Output | None:
        """What may be kept of `output`; text is kept in here already."""
        try:
            if output["output_type"] == "stream":
                self._add_stream(output)
                return None
            clean = clean_output(output, self.dropped, trusted=self._trusted, max_bytes=self._limits.picture_bytes)
            self._note_large_picture(output)
            return clean
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            self.dropped.append("malformed output")
            return None
        finally:
            del self.dropped[_MAX_NOTES:]

    def _has_room(self, size: int) -> bool:
        """Whether rich outputs may take `size` more characters; notes it if not."""
        if not self._bounded:
            return True
        self._rich_left -= size
        if self._rich_left < 0:
            self._note(f"outputs over {MAX_RICH_BYTES >> 20} MiB in all")
        return self._rich_left >= 0

    def clear(self, *, wait: bool = False) -> None:
        """What `clear_output` asks for; with `wait`, only when the next output comes."""
        if wait:
            self._clear_at_next = True
            return
        self._outputs.clear()
        self._displays.clear()
        self._tail.take()
        self._more.take()

    def finish(self) -> tuple[Output, ...]:
        """Everything that was kept, in order, with notes on what was not. May be called again."""
        self._flush_tail()
        if self.dropped and not self._told_dropped:
            self._told_dropped = True
            names = ", ".join(dict.fromkeys(self.dropped))[:300]
            self._append_text("stderr", f"[not shown: {names}]\n")
        self._close_text()
        return tuple(self._outputs)

    def _note(self, what: str) -> None:
        if what not in self.dropped:
            self.dropped.append(what)

    def _note_large_picture(self, output: Output) -> None:
        if self._trusted or output["output_type"] not in ("display_data", "execute_result"):
            return
        limit = self._limits.picture_bytes
        sizes = [len(str(value)) * 3 // 4 for key, value in output["data"].items() if key in PICTURE_TYPES]
        if any(size > limit for size in sizes):
            self.breach = (
                f"A picture of {mib(max(sizes))} is not shown: one may have {mib(limit)} (AGENT_LIMIT_PICTURE)."
            )

    def _add_stream(self, output: StreamOutput) -> None:
        name: Literal["stdout", "stderr"] = "stderr" if output["name"] == "stderr" else "stdout"
        text = clean_text(str(output["text"]))
        head, rest = text[: self._head_left], text[self._head_left :]
        self._head_left -= len(head)
        if head:
            self._append_text(name, head)
        if rest:
            self._add_tail(name, rest)

    def _add_tail(self, name: Literal["stdout", "stderr"], text: str) -> None:
        self._tail_name = name
        kept = text[len(text) - min(len(text), self._tail_bytes) :]
        self._tail.add(kept)
        self.truncated_bytes += len(text) - len(kept) + self._tail.keep_last(self._tail_bytes)

    def _flush_tail(self) -> None:
        tail = self._tail.take()
        over = max(0, len(tail) - self._tail_bytes)
        self.truncated_bytes += over
        if self.truncated_bytes > self._told_bytes:
            cut = self.truncated_bytes - self._told_bytes
            self._told_bytes = self.truncated_bytes
            kept = f"; a cell keeps {mib(self._limits.text_bytes)} of text (AGENT_LIMIT_TEXT)"
            why = kept if cut == self.truncated_bytes else ""  # said once
            self._append_text("stdout", f"\n[... {cut:,} characters cut here{why} ...]\n")
        if not tail:
            return
        self._tail_bytes -= len(tail) - over  # many pictures between long prints must not each keep a tail
        self._append_text(self._tail_name, tail[over:])

    def _append_text(self, name: Literal["stdout", "stderr"], text: str) -> None:
        last = self._outputs[-1] if self._outputs else None
        if last is not None and last["output_type"] == "stream" and last["name"] == name:
            self._more.add(text)
        else:
            self._close_text()
            self._outputs.append({"output_type": "stream", "name": name, "text": text})
        self._on_output({"output_type": "stream", "name": name, "text": text})

    def _close_text(self) -> None:
        """Put the last text together."""
        last = self._outputs[-1] if self._outputs else None
        if last is not None and last["output_type"] == "stream":
            last["text"] += self._more.take()


def _size(output: Output) -> int:
    """Characters of a rich output; an error counts nothing."""
    if output["output_type"] == "stream" or output["output_type"] == "error":
        return 0
    return sum(len(str(value)) for value in output["data"].values())


def _display_id(output: Output) -> str:
    """The id under which an output can be replaced; empty where there is none that may be one."""
    transient = output.get("transient")
    found = transient.get("display_id") if isinstance(transient, dict) else None
    return found if isinstance(found, str) and len(found) <= _MAX_ID else ""
