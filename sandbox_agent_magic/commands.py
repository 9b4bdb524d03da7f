"""The `%agent` subcommands: what crosses the sandbox's border (variables, files, packages), models and costs."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from .executors.engines import EngineInfo
    from .ledger import CostReport
    from .session import Session
    from .types import FileInfo

_MAX_SHOWN = 20


def send(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:
    """`%agent send NAME...`: copy variables of this kernel into the sandbox."""
    from .bridge import values_of

    values = values_of(_some(words, "send", "NAME..."), variables)
    return "\n".join(f"sent {each.name}: {each.description}" for each in session.send(values))


def take(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:
    """`%agent take NAME [AS]`: copy a variable of the sandbox into this kernel."""
    from .bridge import check_name
    from .bridge.codec import describe

    name, target, *rest = [*_some(words, "take", "NAME [AS]"), words[0]]
    if len(rest) > 1:
        raise UsageError("%agent take takes one variable at a time.", hint="%agent take NAME [AS]")
    check_name(target)
    variables[target] = value = session.take(name)
    return f"took {target}: {describe(value)}"


def get(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:  # noqa: ARG001
    """`%agent get NAME [DEST] [--force]`: copy a file of the sandbox to here."""
    force = "--force" in words
    name, destination, *rest = [*_some([w for w in words if w != "--force"], "get", "FILE [DEST] [--force]"), ""]
    if len(rest) > 1 or name.startswith("-"):
        raise UsageError("This is not understood.", hint="%agent get FILE [DEST] [--force]")
    copied = session.get_file(name, Path(destination or "."), force=force)
    return f"copied {name} to {copied}"


def files(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:  # noqa: ARG001
    """`%agent files`: list the sandbox's files."""
    if words:
        raise UsageError("%agent files takes no arguments.")
    found = session.files()
    where = f"in {session.folder}" if session.folder else "in a temporary folder; %agent get NAME copies one here"
    rows = [f"{info.size:>14,}  {kind_of(info.name):24}  {info.name}" for info in found]
    return "\n".join([f"{len(found):,} file{'s' if len(found) != 1 else ''} {where}", *rows])


def install(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:  # noqa: ARG001
    """`%agent install NAME...`: install packages in the sandbox; this environment stays as it is."""
    added = session.install(_some(words, "install", "NAME..."))
    return f"installed in the sandbox: {', '.join(added)}" if added else "all of it is there already"


def reset(session: Session) -> str:
    """`%agent reset`: a new conversation."""
    folder, kept = session.folder, session.kept()
    session.reset()
    if kept:
        return f"New conversation. {kept_text(kept)}"
    files = f"its files stay in {folder}." if folder and folder.exists() else "and its files."
    return f"New conversation. The sandbox's variables are gone, {files}"


def kept_text(kept: Sequence[EngineInfo]) -> str:
    """What goes on after the end, and how to use it again."""
    names = ", ".join(f"-e {info.executor} --session {info.id}" for info in kept)
    return f"Kept, with its variables and files: {names}"


def sandbox(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:  # noqa: ARG001
    """`%agent sandbox id`, `keep` or `end [ID]`, each with `-e NAME`: of the sandbox where code ran last."""
    words, executor = _executor_of(words)
    match list(words):
        case ["id"]:
            return session.sandbox_id(executor)
        case ["keep"]:
            found = session.keep_sandbox(executor)
            return f"{found} goes on after this kernel's end, until nobody has used it for AGENT_SANDBOX_LIFE seconds."
        case ["end"]:
            return f"ended {session.end_sandbox(executor=executor)}"
        case ["end", name]:
            return f"ended {session.end_sandbox(name, executor=executor)}"
    raise UsageError("This is not understood.", hint="%agent sandbox id | keep | end [ID], each with -e EXECUTOR")


def sandboxes(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:  # noqa: ARG001
    """`%agent sandboxes [-e NAME]`: what runs code for this notebook now, and what else an account in a cloud has."""
    from .outputs import clean_text

    words, executor = _executor_of(words)
    if words:
        raise UsageError("This is not understood.", hint="%agent sandboxes [-e EXECUTOR]")
    rows = [
        (info.executor, info.id, info.place, _since(info.started), info.note or "ends with this kernel")
        for info in session.sandboxes(executor)
    ]
    if not rows:
        return "Nothing is running: the first code starts what it needs."
    table = [("executor", "id", "where", "running for", ""), *rows]
    cells = [[clean_text(cell).replace("\n", " ") for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def models(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> str:  # noqa: ARG001
    """`%agent models [-p PROVIDER]`: the names of the models that the server offers; the current one is marked."""
    if words and (len(words) != 2 or words[0] not in ("-p", "--provider")):
        raise UsageError("This is not understood.", hint="%agent models [-p PROVIDER]")
    provider, names = session.models(words[1] if words else None)
    rows = [f"{'*' if name == provider.model else ' '} {name}" for name in sorted(names)]
    plural = "" if len(rows) == 1 else "s"
    rows.append(
        f"{len(rows):,} model{plural} of {provider.name}; the one in use: {provider.model}. Another one: -m NAME"
    )
    return "\n".join(rows)


def cost(session: Session, words: Sequence[str], variables: MutableMapping[str, object]) -> CostReport:  # noqa: ARG001
    """`%agent cost [--by cell|model|notebook|day]`: what requests used and cost; by cell, those of this notebook."""
    from .ledger import BY, CostReport
    from .session.budget import budget_notes

    wanted = words[1] if len(words) == 2 and words[0] == "--by" else "" if words else "cell"
    by = next((name for name in BY if name == wanted), None)
    if by is None:
        raise UsageError("This is not understood.", hint=f"%agent cost [--by {'|'.join(BY)}]")
    notebook = session.notebook_name if by == "cell" else None
    title = "Costs of this notebook by cell" if notebook else f"Costs of all notebooks by {by}"
    notes = budget_notes(session.settings(), session.ledger, session.notebook_name)
    return CostReport(session.ledger.totals(by, notebook=notebook), by=by, title=title, notes=notes)


COMMANDS: dict[str, Callable[[Session, Sequence[str], MutableMapping[str, object]], str | CostReport]] = {
    "send": send,
    "take": take,
    "get": get,
    "files": files,
    "install": install,
    "sandbox": sandbox,
    "sandboxes": sandboxes,
    "models": models,
    "cost": cost,
}


def _executor_of(words: Sequence[str]) -> tuple[Sequence[str], str]:
    """The words without `-e NAME`, and that name; empty if there is none."""
    for place, word in enumerate(words):
        if word in ("-e", "--executor") and place + 1 < len(words):
            return [*words[:place], *words[place + 2 :]], words[place + 1]
    return words, ""


def new_files_text(found: Iterable[FileInfo], folder: Path | None) -> str:
    """One line on files that are new or changed, for the reader to open; empty where there are none."""
    infos = list(found)
    if not infos:
        return ""
    names = [f"{info.name} ({info.size:,} bytes)" for info in infos[:_MAX_SHOWN]]
    more = f" and {len(infos) - _MAX_SHOWN} more" if len(infos) > _MAX_SHOWN else ""
    where = f" in {_relative(folder)}" if folder else "; %agent get NAME copies one here"
    return f"Files: {', '.join(names)}{more}{where}"


def kind_of(name: str) -> str:
    """What a file seems to be by its name; nothing is opened."""
    return mimetypes.guess_type(name)[0] or Path(name).suffix.lstrip(".") or "-"


def _since(started: datetime | None) -> str:
    """How long ago that was, in minutes and seconds."""
    if started is None:
        return "-"
    minutes, seconds = divmod(max(0, round((datetime.now(UTC) - started).total_seconds())), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _relative(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _some(words: Sequence[str], command: str, usage: str) -> Sequence[str]:
    if not words:
        raise UsageError(f"%agent {command} needs a name.", hint=f"%agent {command} {usage}")
    return words
