"""`sandbox-agent`: ask, run, expand, demo, doctor, model, packages, image.

Exit codes: 0 completed, 1 not completed, 2 bad usage or settings, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ..errors import SandboxAgentError, SettingsError, UsageError

COMPLETED, NOT_COMPLETED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except SandboxAgentError as exc:
        exc.detailed = _detailed()
        print("\n".join(exc.lines()), file=sys.stderr)
        return BAD_USAGE if isinstance(exc, (UsageError, SettingsError)) else NOT_COMPLETED
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone (`| head`); the interpreter would complain on exit
        return NOT_COMPLETED


def _detailed() -> bool:
    """Whether errors are shown in full; they are if it is the settings that cannot be read."""
    from ..settings import load

    try:
        return load().detailed_error
    except SandboxAgentError:
        return True


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    from . import ask, check, image, model, notebooks, packages

    parser = argparse.ArgumentParser(
        prog="sandbox-agent",
        description="Let a model write Python and run it in a sandbox.",
        epilog="Exit codes: 0 completed, 1 not completed, 2 bad usage or settings, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"sandbox-agent {version('sandbox-agent-magic')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (ask, notebooks, check, model, packages, image):
        module.add_commands(commands)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that `%%agent` has too."""
    parser.add_argument("-p", "--provider", help="openai, litellm, azure, anthropic, local, or a plug-in")
    parser.add_argument("-m", "--model", help="model name, as the provider knows it")
    parser.add_argument(
        "-e",
        "--executor",
        help="where the code runs: sandbox (default), container, remote, scalebox, e2b; local with --yes",
    )
    parser.add_argument("--session", metavar="ID", help="of scalebox and e2b: use the sandbox of this id, which runs")
    parser.add_argument("--keep-sandbox", action="store_true", help="of scalebox and e2b: it goes on after the end")
    parser.add_argument("--temperature", help="sampling temperature, 0 to 2")
    parser.add_argument("--max-iterations", help="model turns")
    parser.add_argument("--max-retry", help="retries of one failed request")
    parser.add_argument("--budget", help="US dollars that each request of yours may cost")
    parser.add_argument("--timeout", help="seconds that one piece of code may run")
