"""`%%agent`, `%agent` and `%%sandbox`. Kept thin: it parses lines, and shows what the session gives."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core.error import UsageError as IPythonUsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from .errors import SandboxAgentError, UsageError

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from .session import Session, Watcher
    from .types import JSON, ExecutionResult, Output, RunResult

_SUBCOMMANDS = ("status", "config", "reset", "restart")


class AgentInterrupted(KeyboardInterrupt):
    """The reader stopped the agent: Run All stops too, and one line is shown instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted. The steps that had finished are kept."]


@magics_class
class AgentMagics(Magics):
    """One kernel's conversation with the agent."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The kernel's session, made at the first use."""
        if self._session is None:
            from .folders import notebook_path
            from .session import Session

            self._session = Session(notebook=notebook_path(self.shell.user_ns))
            self._session.on_copy = _show_copy
        return self._session

    @no_var_expand  # braces and dollars in a line or a prompt are data
    @magic_arguments(name="%agent")  # IPython puts one more % before it
    @argument("-p", "--provider", help="openai, litellm, local, or an installed plug-in; default: the first with a key")
    @argument("-m", "--model", help="model name, as the provider knows it")
    @argument("-e", "--executor", help="where the code runs: sandbox (default), or local with --yes")
    @argument("-f", "--file", action="append", default=[], metavar="FILE", help="send a copy of FILE; may be repeated")
    @argument("--send", action="append", default=[], metavar="NAMES", help="send variables of yours: df,params")
    @argument("--temperature", help="sampling temperature, 0 to 2")
    @argument("--max-iterations", help="model turns of this cell")
    @argument("--max-retry", help="retries of one failed request")
    @argument("--timeout", help="seconds that one piece of code may run")
    @argument(
        "--keep",
        choices=("ok", "all", "final"),
        default="ok",
        help="cells to insert: steps that worked (ok), all, final",
    )
    @argument("-o", "--output", metavar="NAME", help="keep the result in this variable")
    @argument("--yes", action="store_true", help="consent to run code in your own kernel (--executor local)")
    @cell_magic("agent")
    def agent_cell(self, line: str, cell: str) -> None:
        """Let a model write and run code for this cell's text; what worked becomes cells below."""
        with self._plain_errors():
            options = _parse(self.agent_cell.parser, line)
            if options.output is not None and not options.output.isidentifier():
                raise UsageError(
                    f"{options.output!r} cannot be a variable's name.", hint="Use letters, digits and _ only."
                )
            result = self._run(options, cell)
            if options.output is not None:
                self.shell.user_ns[options.output] = result
        if result.status == "interrupted":
            raise AgentInterrupted

    @no_var_expand
    @line_magic("agent")
    def agent_line(self, line: str) -> None:
        """`%agent`: the agent's state; `config`: the settings; `reset`: a new conversation; `restart [--replay]`.

        `%agent send NAME...` and `%agent take NAME [AS]` copy variables into and out of the sandbox, `%agent get FILE
        [DEST] [--force]` copies a file out, `%agent files` lists them, `%agent install NAME...` adds packages.
        """
        from .commands import COMMANDS

        with self._plain_errors():
            name, *words = _words(line.strip() or "status")
            if name in COMMANDS:
                print(COMMANDS[name](self.session, words, self.shell.user_ns))
                return
            if name not in _SUBCOMMANDS:
                known = " or %agent ".join([*_SUBCOMMANDS, *COMMANDS])
                raise UsageError(
                    f"There is no %agent {name}.", hint=f"Write %agent {known}; a request goes into a %%agent cell."
                )
            if words and (name, *words) != ("restart", "--replay"):
                raise UsageError(f"%agent {name} does not understand {' '.join(words)!r}.", hint="%agent? says more.")
            if name == "restart":
                print(self.session.restart(replay=bool(words), on_output=self._show_output))
            elif name == "reset":
                folder = self.session.folder
                self.session.reset()
                files = f"its files stay in {folder}." if folder and folder.exists() else "and its files."
                print(f"New conversation. The sandbox's variables are gone, {files}")
            else:
                from .doctor import config_text, status_text

                print(config_text(self.session.settings()) if name == "config" else status_text(self.session))

    @no_var_expand
    @cell_magic("sandbox")
    def sandbox_cell(self, line: str, cell: str) -> None:
        """Run this cell in the sandbox, beside the agent's own variables; `-o NAME` brings a variable back."""
        from .commands import new_files_text

        with self._plain_errors():
            wanted = _outputs(line)
            result = self.session.execute(cell, on_output=self._show_output, cell_id=_cell_id(self.shell))
            if result.state_lost:
                from .agent import REPLAY_HINT

                print(f"The sandbox was restarted: its variables are gone. {REPLAY_HINT}", file=sys.stderr)
            if result.new_files:
                print(new_files_text(result.new_files, self.session.folder))
            if result.status == "ok":
                for name in wanted:
                    self.shell.user_ns[name] = self.session.take(name)
        if result.error is not None or result.status != "ok":
            raise _as_exception(result)

    def close(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # ---- parts --------------------------------------------------------------------------------------------------

    def _run(self, options: argparse.Namespace, cell: str) -> RunResult:
        from .bridge import values_of
        from .commands import new_files_text
        from .context import hints
        from .types import RunRequest

        sent = values_of(options.send, self.shell.user_ns)
        files = tuple(Path(name) for name in options.file)
        overrides = {
            "agent_provider": options.provider,
            "model": options.model,
            "agent_executor": options.executor,
            "temperature": options.temperature,
            "max_iterations": options.max_iterations,
            "max_retry": options.max_retry,
            "agent_cell_timeout": options.timeout,
        }
        anchor = _cell_id(self.shell)
        isolated = (options.executor or "sandbox") != "local"
        hidden = self.shell.user_ns_hidden
        variables = {name: value for name, value in self.shell.user_ns.items() if name not in hidden}
        for hint in hints(
            cell, folder=Path.cwd(), sent=files, variables=variables, isolated=isolated, sent_variables=sent
        ):
            print(hint)
        result = self.session.run(
            RunRequest(cell, files=files, keep=options.keep, cell_id=anchor, variables=sent),
            overrides=overrides,
            yes=options.yes,
            watcher=self._watcher(),
            writer=self._writer(anchor),
        )
        if isolated and result.files:
            print(new_files_text(result.files, self.session.folder))
        return result

    def _publish(self, bundle: dict[str, JSON], metadata: dict[str, JSON]) -> None:
        self.shell.display_pub.publish(data=bundle, metadata=metadata)

    def _watcher(self) -> Watcher:
        from .display import NotebookDisplay, TextDisplay

        if not hasattr(self.shell, "kernel"):  # a terminal shows text only, and cannot update it in place
            return TextDisplay(sys.stdout)
        import secrets

        transient = {"display_id": secrets.token_hex(8)}
        shown = False
        # The local executor swaps the shell's publisher while the model's code runs; progress must not be caught there.
        publish = self.shell.display_pub.publish

        def update(bundle: dict[str, JSON]) -> None:
            nonlocal shown
            publish(data=bundle, metadata={}, transient=transient, update=shown)
            shown = True

        return NotebookDisplay(update)

    def _writer(self, anchor: str | None):  # type: ignore[no-untyped-def]
        if not hasattr(self.shell, "kernel"):
            return None
        from .notebook.publish import CellPublisher

        return lambda run_id: CellPublisher(self._publish, run_id=run_id, anchor=anchor)

    def _show_output(self, output: Output) -> None:
        if output["output_type"] == "stream":
            print(output["text"], end="", file=sys.stderr if output["name"] == "stderr" else sys.stdout, flush=True)
        elif output["output_type"] != "error":
            self._publish(dict(output["data"]), dict(output["metadata"]))

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Our errors are shown as at most three lines; with DEBUG=true, their traceback comes first."""
        try:
            yield
        except SandboxAgentError as exc:
            try:
                settings = self.session.settings()
            except SandboxAgentError:
                raise exc from None  # the settings themselves are what is wrong
            exc.detailed = settings.detailed_error
            if settings.debug:
                import traceback

                traceback.print_exc()
            raise exc from None
        except KeyboardInterrupt:
            raise AgentInterrupted from None


def _parse(parser: argparse.ArgumentParser, line: str) -> argparse.Namespace:
    """The line's options; a mistake in it is one clear line."""
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"The %%agent line cannot be read: {exc}.", hint="Close the quotation marks.") from None
    try:
        options, rest = parser.parse_known_args(words)
    except IPythonUsageError as exc:
        raise UsageError(f"%%agent: {exc}", hint="%%agent? shows the options.") from None
    if rest:
        import difflib

        known = [text for action in parser._actions for text in action.option_strings]
        near = difflib.get_close_matches(rest[0], known, n=1)
        if rest[0].startswith("-"):
            hint = f"Did you mean {near[0]}?" if near else "%%agent? shows the options."
            raise UsageError(f"%%agent has no option {rest[0]}.", hint=hint)
        raise UsageError(f"%%agent does not understand {rest[0]!r}.", hint="The request goes below the %%agent line.")
    return options


def _words(line: str) -> list[str]:
    """The words of a `%agent` line."""
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"The %agent line cannot be read: {exc}.", hint="Close the quotation marks.") from None


def _outputs(line: str) -> list[str]:
    """The names after each `-o` of a `%%sandbox` line."""
    from .bridge import check_name

    words = line.split()
    if any(word != "-o" for word in words[::2]) or len(words) % 2:
        raise UsageError(f"%%sandbox does not understand {line.strip()!r}.", hint="Its only option is -o NAME.")
    return [check_name(name) for name in words[1::2]]


def _show_copy(name: str, done: int, total: int) -> None:
    """A line that moves on, every 16 MiB; the last one stays."""
    if done == total or done % (16 << 20) < 1 << 20:
        end = "\n" if done == total else ""
        print(f"\rcopying {name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", end=end, file=sys.stderr, flush=True)


def _cell_id(shell: InteractiveShell) -> str | None:
    """The id of the cell that runs, where the front end says it (JupyterLab and Notebook 7 do)."""
    get_parent = getattr(shell, "get_parent", None)
    parent = get_parent() if get_parent is not None else None
    metadata = parent.get("metadata") if isinstance(parent, dict) else None
    found = metadata.get("cellId") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None


def _as_exception(result: ExecutionResult) -> BaseException:
    """The sandbox's error as an exception here, so that the cell fails as any cell would."""
    error = result.error
    if result.status == "interrupted":
        return AgentInterrupted()
    name = error.ename if error is not None and error.ename.isidentifier() else "SandboxError"
    lines = list(error.traceback) if error is not None else []
    text = error.evalue if error is not None else f"the code ended with status {result.status}"

    def render(_self: BaseException) -> list[str]:
        return lines or [f"{name}: {text}"]

    made: BaseException = type(name, (Exception,), {"_render_traceback_": render})(text)
    return made


def register(shell: InteractiveShell) -> None:
    """Register the magics with `shell`, once."""
    import atexit

    magics = AgentMagics(shell)
    shell.register_magics(magics)
    atexit.register(magics.close)


def unregister(shell: InteractiveShell) -> None:
    """Close the session; the magics' names go too."""
    magics = shell.magics_manager.registry.get("AgentMagics")
    if magics is not None:
        magics.close()
    for kind, name in (("cell", "agent"), ("line", "agent"), ("cell", "sandbox")):
        shell.magics_manager.magics[kind].pop(name, None)
