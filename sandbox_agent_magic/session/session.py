"""The composition root: settings, provider, executor, loop and notebook come together here, and live between cells."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from .. import bridge, context
from ..agent import Agent
from ..errors import UsageError
from ..ledger import Entry, Ledger
from ..notebook.cells import CellPlan
from ..outputs import cap_text
from ..prompts import result_text
from ..providers import cost_of
from ..settings import Settings, trusts_output
from ..types import (
    CellWriter,
    ExecutionResult,
    Executor,
    Message,
    OutputHook,
    Provider,
    RunRequest,
    RunResult,
    Usage,
)
from .budget import BudgetGate
from .engines import EngineVerbs, Turn
from .resources import Resources
from .run import Emitter, Watcher, limits_of

_SHORT_NAMES = {"provider": "agent_provider", "executor": "agent_executor", "timeout": "agent_cell_timeout"}
_NOTE_BYTES = 800
"""Of a cell that the reader ran in the sandbox: enough for the model to know what exists."""


class Session(EngineVerbs):
    """One conversation with its sandbox. A context manager; close it when done.

    Args:
        workspace: folder that the sandbox works in; unless given, AGENT_WORKSPACE, else one beside the notebook, else a
            temporary one.
        notebook: the notebook that this session belongs to.
        **settings: any setting by its name in lower case, such as `agent_provider="local"` or `temperature=0`;
            `provider`, `executor` and `timeout` are short for `agent_provider`, `agent_executor`, `agent_cell_timeout`.
            They win over the environment and `.env`.

    Raises:
        SettingsError: a setting is unknown or has a bad value.
    """

    def __init__(
        self, *, workspace: Path | str | None = None, notebook: Path | None = None, **settings: object
    ) -> None:
        self._arguments = {_SHORT_NAMES.get(name, name): value for name, value in settings.items()}
        folder = Path(workspace) if workspace is not None else None
        self._resources = Resources(workspace=folder, notebook=notebook)
        self._turns: list[Turn] = []
        self.ledger = Ledger.of_user()
        """What requests cost, in all notebooks."""
        self.notebook_name = str(notebook) if notebook is not None else f"session {secrets.token_hex(4)}"
        """Under which this session's costs are entered."""
        self.headless = False
        """Nobody is watching: uncleaned output is refused."""
        self.usage = Usage()
        """Of all runs of this session."""
        self.settings()

    # ---- the main job -------------------------------------------------------------------------------------------

    def ask(
        self,
        prompt: str,
        *,
        files: Sequence[Path | str] = (),
        variables: Mapping[str, object] | None = None,
        overrides: Mapping[str, object] | None = None,
        yes: bool = False,
        watcher: Watcher | None = None,
    ) -> RunResult:
        """Work on `prompt` until there is an answer or a limit is reached.

        Args:
            prompt: the request.
            files: copied into the workspace and announced to the model.
            variables: become variables of the code; the model is told their names, types and shapes.
            overrides: settings for this run, by name in lower case; they win over the session's.
            yes: consent to run code in this process, with `executor="local"`.
            watcher: shows the run as it goes.

        Raises:
            UsageError: the prompt is empty, a file is missing, or consent is.
            SettingsError: a setting is bad or missing.
            ProviderError: a request failed for good.
            ExecutorError: code cannot be run.
        """
        request = RunRequest(prompt, files=tuple(Path(file) for file in files), variables=variables or {})
        return self.run(request, overrides=overrides, yes=yes, watcher=watcher)

    def run(
        self,
        request: RunRequest,
        *,
        overrides: Mapping[str, object] | None = None,
        yes: bool = False,
        watcher: Watcher | None = None,
        writer: Callable[[str], CellWriter] | None = None,
    ) -> RunResult:
        """Like `ask`, with the cells going to `writer` (called once with the run's id)."""
        settings = self.settings(overrides)
        if not request.prompt.strip():
            raise UsageError("There is no request.", hint="Write what you want below the %%agent line.")
        files = context.existing_files(request.files)
        executor = self._resources.executor(settings, yes=yes)
        self._resources.trust(executor, trusts_output(settings, headless=self.headless))
        provider = self._resources.provider(settings)
        self._check_variables(request, executor)
        run_id = secrets.token_hex(6)
        plan = CellPlan(
            run_id,
            keep=request.keep,
            cell_magic=executor.capabilities.cell_magic,
            provenance={"provider": provider.name, "model": provider.model, "executor": executor.name},
        )
        agent = Agent(
            provider,
            executor,
            limits=limits_of(settings),
            temperature=settings.temperature,
            system_message=settings.system_message,
        )
        gate = self._gate(settings, provider, request.cell_id or run_id)
        emit = Emitter(watcher, writer(run_id) if writer else None, plan, gate)
        conversation = self._conversation_before(request.cell_id)
        known = len(conversation)
        try:
            prompt = self._announce(request, files, executor, settings)
            result = agent.run(prompt, conversation, emit=emit, gate=gate, run_id=run_id)
        finally:
            turn = Turn(request.cell_id, conversation[known:], emit.codes, tuple(request.variables), executor.name)
            self._turns.append(turn)
            if watcher is not None:
                watcher.close()
        self.usage += result.usage
        return result

    def execute(
        self, code: str, *, on_output: OutputHook, cell_id: str | None = None, executor: str = "sandbox"
    ) -> ExecutionResult:
        """Run the reader's own code in the sandbox, or in another executor, and let the model know of it.

        Raises:
            ExecutorError: code cannot be run.
        """
        settings = self.settings()
        engine = self._resources.engine(settings, executor)
        self._resources.trust(engine, trusts_output(settings, headless=self.headless))
        result = engine.execute(code, timeout_s=settings.agent_cell_timeout, on_output=on_output)
        note = f"I ran this cell:\n```python\n{cap_text(code, _NOTE_BYTES)}\n```\n"
        note += f"Output:\n{result_text(result, max_bytes=_NOTE_BYTES)}"
        self._forget(cell_id)
        codes = [code] if result.status == "ok" else []
        self._turns.append(Turn(cell_id, [Message("user", note)], codes, executor=engine.name))
        return result

    def _gate(self, settings: Settings, provider: Provider, cell: str) -> BudgetGate:
        """Keeps the budgets, and the book of what was spent."""

        def entry(usage: Usage) -> Entry:
            return Entry(self.notebook_name, cell, provider.name, provider.model, usage)

        price = partial(cost_of, provider)
        return BudgetGate(settings, self.ledger, price=price, entry=entry, notebook=self.notebook_name)

    # ---- the model ----------------------------------------------------------------------------------------------

    def models(self, name: str | None = None) -> tuple[Provider, Sequence[str]]:
        """The provider of this name, else the one that would be asked now, and the models that its server offers.

        Raises:
            UsageError: there is no such provider.
            SettingsError: it is not set up.
            ProviderError: the server could not be asked.
        """
        provider = self._resources.provider(self.settings({"agent_provider": name}))
        return provider, provider.models()

    # ---- life ---------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the conversation and the sandbox's variables; its files stay if it has a folder of its own."""
        self._turns.clear()
        self._resources.end_executors()

    def close(self) -> None:
        """End what this session started. A shared model server goes on until it is idle."""
        self._turns.clear()
        self._resources.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def turns(self) -> int:
        """Cells that the conversation remembers."""
        return len(self._turns)

    # ---- parts --------------------------------------------------------------------------------------------------

    def _conversation_before(self, cell_id: str | None) -> list[Message]:
        """All earlier messages, without those of the same cell's earlier run."""
        self._forget(cell_id)
        return [message for turn in self._turns for message in turn.messages]

    def _forget(self, cell_id: str | None) -> None:
        """A cell that runs again takes its earlier turns back."""
        if cell_id is not None:
            self._turns = [turn for turn in self._turns if turn.cell_id != cell_id]

    def _check_variables(self, request: RunRequest, executor: Executor) -> None:
        if request.variables and not executor.capabilities.isolated:
            raise UsageError(
                "The code sees your variables already.",
                why=f"The {executor.name} executor runs it in your own kernel.",
                hint="Leave --send out.",
            )

    def _announce(self, request: RunRequest, files: Sequence[Path], executor: Executor, settings: Settings) -> str:
        """Bring files, packages and variables in; the prompt, with what the model is to know of them."""
        notes = [context.describe_file(file, self._resources.put(file, executor)) for file in files]
        executor.start()  # it comes up while pip works and the first request is in flight
        packages = self._resources.custom_packages(settings, executor)
        sent = [bridge.send(executor, name, value) for name, value in request.variables.items()]
        parts = (context.files_text(notes), bridge.variables_text(sent), packages, request.prompt.strip())
        return "\n\n".join(part for part in parts if part)
