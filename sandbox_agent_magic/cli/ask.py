"""`sandbox-agent ask`: one request, its answer on stdout, its progress on stderr."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys

from ..errors import SandboxAgentError, SettingsError, UsageError
from ..settings.options import overrides_of
from ..types import JSON, RunResult
from . import BAD_USAGE, COMPLETED, INTERRUPTED, NOT_COMPLETED, add_run_options

Commands = argparse._SubParsersAction  # the type that add_subparsers returns has no public name


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `ask`."""
    parser = commands.add_parser("ask", help="ask once and print the answer", description=__doc__)
    parser.add_argument("prompt", metavar="PROMPT", help="the request; - reads it from standard input")
    parser.add_argument(
        "-f", "--file", action="append", default=[], metavar="FILE", help="send a copy; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--yes", action="store_true", help="consent to run code in this process (--executor local)")
    add_run_options(parser)
    parser.set_defaults(command=ask)


def ask(options: argparse.Namespace) -> int:
    """Run one request."""
    from ..commands import kept_text
    from ..display import TextDisplay
    from ..session import Session

    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    if not prompt.strip():
        raise UsageError("The request is empty.", hint='Write it in quotation marks: sandbox-agent ask "..."')
    display = TextDisplay(open(os.devnull, "w") if options.quiet else sys.stderr, stream=False)  # noqa: SIM115
    try:
        with Session() as session:
            result = session.ask(
                prompt, files=options.file, overrides=overrides_of(options), yes=options.yes, watcher=display
            )
            if kept := session.kept():
                print(kept_text(kept), file=sys.stderr)
    except SandboxAgentError as exc:
        if not options.json:
            raise
        print(json.dumps({"status": "failed", "error": [*exc.lines()]}, ensure_ascii=False))
        print("\n".join(exc.lines()), file=sys.stderr)
        return BAD_USAGE if isinstance(exc, (UsageError, SettingsError)) else NOT_COMPLETED
    if options.json:
        print(json.dumps(as_json(result), ensure_ascii=False, indent=1))
    else:
        print(result.answer)
    if result.status == "interrupted":
        return INTERRUPTED
    return COMPLETED if result.status == "completed" else NOT_COMPLETED


def as_json(result: RunResult) -> dict[str, JSON]:
    """A result as the JSON that `--json` prints."""
    steps: list[JSON] = []
    for step in result.steps:
        outputs: list[JSON] = [json.loads(json.dumps(output)) for output in step.result.outputs]
        steps.append({"code": step.code, "status": step.result.status, "outputs": outputs})
    usage = dataclasses.asdict(result.usage)
    files: list[JSON] = [{"name": file.name, "size": file.size} for file in result.files]
    return {
        "status": result.status,
        "answer": result.answer,
        "reason": result.reason,
        "label": result.label,
        "steps": steps,
        "usage": usage,
        "files": files,
        "provider": result.provider,
        "model": result.model,
        "executor": result.executor,
    }
