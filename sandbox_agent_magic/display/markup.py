"""The HTML of the area: escaped text in a few elements, without colours of its own, so that it fits every theme.

The area is replaced as a whole at each update. So only an update that tells something new is a live region for a screen
reader; the ticking of seconds is not. Titles are headings by role only: a notebook's table of contents lists `<h4>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..outputs import cap_text, clean_text, strip_colours, text_of
from ..types import Step
from .view import Attempt
from .words import step_title

_TRANSCRIPT_BYTES = 4_000
_LINES_SHOWN = 12
_STEPS_SHOWN = 8
_CODE_SHOWN = 60

_AREA = (
    "border-left:3px solid var(--jp-border-color1,currentColor);padding:0 0 0 .8em;margin:.2em 0;"
    "font-family:var(--jp-ui-font-family,sans-serif);font-size:var(--jp-ui-font-size1,.9em);"
    "line-height:1.5;color:inherit"
)
_PRE = (
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:.3em 0;padding:.3em .6em;color:inherit;"
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,.9em)"
)
_CODE = f"{_PRE};background:var(--jp-layout-color2,transparent)"


def working(status: str, steps: Sequence[Step], tail: str, *, news: bool) -> str:
    """The area while the run goes on.

    Args:
        status: what it is doing, one line.
        steps: those that have ended.
        tail: the end of what streams in.
        news: whether a screen reader shall say the status.
    """
    live = 'role="status"' if news else 'aria-live="off"'
    parts = [f"<div {live}><b>Agent</b>: {_text(status)}</div>"]
    if steps:
        hidden = len(steps) - _STEPS_SHOWN
        rows = [f"<li>... {hidden} earlier</li>"] if hidden > 0 else []
        rows += [_row(step) for step in steps[-_STEPS_SHOWN:]]
        parts.append(f'<ul style="list-style:none;margin:0;padding:0">{"".join(rows)}</ul>')
    if tail:
        lines = "\n".join(tail.splitlines()[-_LINES_SHOWN:])
        # From the bottom up: if lines wrap and it gets too high, its end is what stays in sight.
        parts.append(
            '<div style="display:flex;flex-direction:column-reverse;max-height:18em;overflow:auto" tabindex="0" '
            f'role="log" aria-live="off" aria-label="what streams in"><pre style="{_CODE}">{_text(lines)}</pre></div>'
        )
    return _area("".join(parts))


def finished(summary: str, entries: Sequence[Step | Attempt]) -> str:
    """The area at the end: the summary, which opens the transcript where there is one."""
    line = _text(summary).replace("\n", "<br>")
    if not entries:
        return _area(f'<div role="status">{line}</div>')
    rows = "".join(_step(entry) if isinstance(entry, Step) else _attempt(entry) for entry in entries)
    return _area(
        '<div role="status"><details><summary style="cursor:pointer" title="transcript">'
        f"{line}</summary>{rows}</details></div>"
    )


def _area(content: str) -> str:
    return f'<div class="sandbox-agent" style="{_AREA}">{content}</div>'


def _row(step: Step) -> str:
    """A finished step on one line."""
    error = step.result.error
    code = next((line.strip() for line in step.code.splitlines() if line.strip()), "")[:_CODE_SHOWN]
    what = f"{error.ename}: {error.evalue}"[:_CODE_SHOWN] if error is not None else code
    return f"<li>{_text(step_title(step))} · <code>{_text(what)}</code></li>"


def _step(step: Step) -> str:
    said = f"<p style='margin:.2em 0'>{_text(step.explanation)}</p>" if step.explanation else ""
    output = cap_text(text_of(step.result.outputs), _TRANSCRIPT_BYTES)
    shown = f'<pre style="{_PRE}" aria-label="output">{_text(output)}</pre>' if output else ""
    return f'{_heading(step_title(step))}{said}<pre style="{_CODE}" aria-label="code">{_text(step.code)}</pre>{shown}'


def _attempt(attempt: Attempt) -> str:
    text = cap_text(attempt.text, _TRANSCRIPT_BYTES)
    return _heading(attempt.title) + (f'<pre style="{_PRE}">{_text(text)}</pre>' if text else "")


def _heading(text: str) -> str:
    return f'<div role="heading" aria-level="4" style="font-weight:bold;margin:.6em 0 .2em">{_text(text)}</div>'


def _text(text: str) -> str:
    return escape(clean_text(strip_colours(text)))
