"""The magics themselves. Kept thin: they parse lines, and show what the session gives."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from ..errors import SandboxAgentError, UsageError
from .front_end import front_end
from .inserting import inserting
from .lines import parse, sandbox_options, words_of
from .shown import (
    AgentInterrupted,
    as_exception,
    request_of,
    show_copy,
    show_output,
    show_result,
    watcher_for,
    writer_for,
)

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from ..agent import Replay
    from ..notebook.offers import Offers
    from ..notebook.page import Page
    from ..session import Session
    from ..types import Output, RunResult

_SUBCOMMANDS = ("status", "config", "reset", "restart", "insert", "undo")


@magics_class
class AgentMagics(Magics):
    """One kernel's conversation with the agent."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._session: Session | None = None
        self._page: tuple[Offers, Page] | None = None

    @property
    def page(self) -> tuple[Offers, Page]:
        """What the kernel keeps for the notebook's page, and the channel to it; made at the first use."""
        if self._page is None:
            from ..notebook.offers import Offers
            from ..notebook.page import Page

            offers = Offers()
            self._page = offers, Page(offers)
        return self._page

    @property
    def session(self) -> Session:
        """The kernel's session, made at the first use."""
        if self._session is None:
            from ..folders import notebook_path
            from ..session import Session

            self._session = Session(notebook=notebook_path(self.shell.user_ns))
            self._session.show_copying(show_copy)
        return self._session

    @no_var_expand  # braces and dollars in a line or a prompt are data
    @magic_arguments(name="%agent")  # IPython puts one more % before it
    @argument("-p", "--provider", help="openai, litellm, azure, anthropic, local, a plug-in; default: the first set up")
    @argument("-m", "--model", help="model name, as the provider knows it")
    @argument(
        "-e",
        "--executor",
        help="where the code runs: sandbox (default), container, remote, scalebox, e2b; local with --yes",
    )
    @argument("--session", metavar="ID", help="of scalebox and e2b: use the sandbox of this id, which runs")
    @argument("--keep-sandbox", action="store_true", help="of scalebox and e2b: it goes on after this kernel's end")
    @argument("-f", "--file", action="append", default=[], metavar="FILE", help="send a copy of FILE; may be repeated")
    @argument("--send", action="append", default=[], metavar="NAMES", help="send variables of yours: df,params")
    @argument("--temperature", help="sampling temperature, 0 to 2")
    @argument("--max-iterations", help="model turns of this cell")
    @argument("--max-retry", help="retries of one failed request")
    @argument("--budget", help="US dollars that this cell may cost")
    @argument("--timeout", help="seconds that one piece of code may run")
    @argument(
        "--keep",
        choices=("ok", "all", "final"),
        default="ok",
        help="cells to insert: steps that worked (ok), all, final",
    )
    @argument("--insert", metavar="WHERE", help="where they go: auto, cells, next-input, inline, none (AGENT_INSERT)")
    @argument("-o", "--output", metavar="NAME", help="keep the result in this variable")
    @argument("--trust-output", action="store_true", help="show rich output uncleaned; its scripts run in your page")
    @argument("--yes", action="store_true", help="consent to run code in your own kernel (--executor local)")
    @cell_magic("agent")
    def agent_cell(self, line: str, cell: str) -> None:
        """Let a model write and run code for this cell's text; what worked becomes cells below."""
        from ..bridge import check_name

        with self._plain_errors():
            options = parse(self.agent_cell.parser, line)
            if options.output is not None:
                check_name(options.output)
            result = self._run(options, cell)
            if options.output is not None:
                self.shell.user_ns[options.output] = result
        if result.status == "interrupted":
            raise AgentInterrupted

    @no_var_expand
    @line_magic("agent")
    def agent_line(self, line: str) -> None:
        """`%agent`: the agent's state; `config`: the settings; `reset`: a new conversation; `restart [--replay]`.

        `%agent undo` removes the cells of the last run, `%agent insert` brings back cells that the page has missed.

        `%agent send NAME...` and `%agent take NAME [AS]` copy variables into and out of the sandbox, `%agent get FILE
        [DEST] [--force]` copies a file out, `%agent files` lists them, `%agent install NAME...` adds packages.
        `%agent sandboxes` lists what runs code now, `%agent sandbox id`, `use ID`, `keep`, `end [ID]` are for one;
        `%agent models [-p NAME]` lists a server's models; `%agent cost [--by cell|model|notebook|day]` sums costs.
        """
        from ..commands import COMMANDS

        with self._plain_errors():
            name, *words = words_of(line.strip() or "status")
            if name in COMMANDS:
                show_result(COMMANDS[name](self.session, words, self.shell.user_ns))
                return
            if name not in _SUBCOMMANDS:
                known = " or %agent ".join([*_SUBCOMMANDS, *COMMANDS])
                raise UsageError(
                    f"There is no %agent {name}.", hint=f"Write %agent {known}; a request goes into a %%agent cell."
                )
            if words and (name, *words) != ("restart", "--replay"):
                raise UsageError(f"%agent {name} does not understand {' '.join(words)!r}.", hint="%agent? says more.")
            if name == "restart":
                print(self._restart(replay=bool(words)))
            elif name in ("insert", "undo"):
                from .pages import insert, undo

                (insert if name == "insert" else undo)(self.shell, self.page[0])
            elif name == "reset":
                from ..commands import reset

                print(reset(self.session))
            else:
                from ..doctor import config_text, status_text

                print(config_text(self.session.settings()) if name == "config" else status_text(self.session))

    @no_var_expand
    @cell_magic("sandbox")
    def sandbox_cell(self, line: str, cell: str) -> None:
        """Run this cell in the sandbox, beside the agent's own variables; `-o NAME` brings a variable back.

        `-e NAME` runs it in another executor.
        """
        from ..commands import new_files_text

        with self._plain_errors():
            executor, wanted = sandbox_options(line)
            request = request_of(self.shell)
            if self.page[0].is_replaced(request):
                print("Nothing was run: the agent cell that made this cell has run again and replaced it.")
                return
            self._warn_of_trust({})
            result = self.session.execute(cell, on_output=self._show, cell_id=request.cell_id, executor=executor)
            if result.state_lost:
                from ..agent import REPLAY_HINT

                print(f"The sandbox was restarted: its variables are gone. {REPLAY_HINT}", file=sys.stderr)
            if result.new_files:
                print(new_files_text(result.new_files, self._folder(executor)))
            if result.status == "ok":
                for name in wanted:
                    self.shell.user_ns[name] = self.session.take(name, executor=executor)
        if result.error is not None or result.status != "ok":
            raise as_exception(result)

    def close(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._page is not None:
            self._page[1].close()
            self._page = None

    # ---- parts --------------------------------------------------------------------------------------------------

    def _run(self, options: argparse.Namespace, cell: str) -> RunResult:
        from ..bridge import values_of
        from ..commands import kept_text, new_files_text
        from ..context import hints
        from ..settings.options import overrides_of
        from ..types import RunRequest

        sent = values_of(options.send, self.shell.user_ns)
        files = tuple(Path(name) for name in options.file)
        overrides = {
            **overrides_of(options),
            "agent_trust_output": options.trust_output or None,
            "agent_insert": options.insert,
        }
        self._warn_of_trust(overrides)
        request = request_of(self.shell)
        mode = self.session.settings(overrides).agent_insert
        isolated = (options.executor or "sandbox") != "local"
        hidden = self.shell.user_ns_hidden
        variables = {name: value for name, value in self.shell.user_ns.items() if name not in hidden}
        for hint in hints(
            cell, folder=Path.cwd(), sent=files, variables=variables, isolated=isolated, sent_variables=sent
        ):
            print(hint)
        result = self.session.run(
            RunRequest(cell, files=files, keep=options.keep, cell_id=request.cell_id, variables=sent),
            overrides=overrides,
            yes=options.yes,
            watcher=watcher_for(self.shell, mode),
            writer=inserting(self.shell, mode, writer_for(self.shell, request, *self.page)),
        )
        if isolated and result.files:
            print(new_files_text(result.files, self._folder(result.executor)))
        if options.keep_sandbox:
            print(kept_text(self.session.kept()))
        return result

    def _folder(self, executor: str) -> Path | None:
        """Where the reader finds an executor's files; None if they are not on this machine."""
        return self.session.folder if executor.partition(" ")[0] == "sandbox" else None

    def _warn_of_trust(self, overrides: dict[str, object]) -> None:
        """Say so if the sandbox's output is shown uncleaned; headless, where nobody could read that, it is not."""
        from ..settings import trusts_output

        self.session.headless = front_end(self.shell) == "headless"
        if trusts_output(self.session.settings(overrides), headless=self.session.headless):
            print("The sandbox's output is shown uncleaned: scripts in it run in this page, as you.", file=sys.stderr)

    def _restart(self, *, replay: bool) -> Replay:
        return self.session.restart(replay=replay, variables=self.shell.user_ns, on_output=self._show)

    def _show(self, output: Output) -> None:
        show_output(self.shell, output)

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
