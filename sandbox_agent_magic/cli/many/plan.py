"""What the arguments of a command mean: which notebooks, and where each result goes. Nothing is started or changed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ...errors import UsageError
from ...folders import SUFFIX
from ...notebook.record import RunRecord, content_digest, read_record, source_of
from ..execution import settings_of
from ..words import shown

if TYPE_CHECKING:
    from ...settings import Settings

_NOTEBOOK = ".ipynb"


@dataclass(frozen=True, slots=True)
class Job:
    """One notebook to execute."""

    source: Path
    target: Path
    """Where its result goes."""
    settings: Settings | None
    """Those that hold for it; None where they cannot be read, which its agent cells will say."""
    settings_sha256: str
    earlier: RunRecord | None
    """What the result of an earlier run says of itself."""

    @property
    def finished(self) -> bool:
        """Whether there is a result that completed, of this notebook as it is now, under these settings."""
        before = self.earlier
        return (
            before is not None
            and before.status == "completed"
            and source_of(self.target, before) == Path(os.path.normpath(self.source.absolute()))
            and before.settings_sha256 == self.settings_sha256 != ""
            and before.source_sha256 == content_digest(self.source)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    jobs: Sequence[Job]
    results: Sequence[Path]
    """Notebooks that were found and left out: results of earlier runs, and of none of these jobs."""


def plan(
    arguments: Sequence[Path], *, output: Path | None, overrides: Mapping[str, object], force: bool, jobs: int
) -> Plan:
    """The notebooks of a command line, in order, each once.

    Args:
        arguments: notebooks, patterns, and folders, which stand for all notebooks in them and below.
        output: folder for the results; beside the notebooks unless given.
        overrides: settings of the command line, by name in lower case.
        force: whether files that no run has written may be replaced.
        jobs: how many will run at a time.

    Raises:
        UsageError: there is no such notebook, or the results cannot go where they would.
        SettingsError: one of `overrides` has a bad value.
    """
    if output is not None and (output.suffix == _NOTEBOOK or (output.exists() and not output.is_dir())):
        raise UsageError(
            "-o must be a folder here.",
            why=f"{shown(output)} cannot take the results of several notebooks.",
            hint="Give a folder, which is made if need be; or one NOTEBOOK without --jobs, --force and --time-limit.",
        )
    made: dict[Path, Job] = {}
    results = []
    for source, target in _found(arguments, output):
        if _made_from(source) is not None:
            results.append(source)
        elif source.resolve() not in made:
            made[source.resolve()] = _job(source, target, overrides)
    if not made:
        _refuse_nothing(arguments, results)
    _check_targets(made, force=force)
    if jobs > 1:
        _check_shared(made.values())
    targets = {job.target.resolve() for job in made.values()}
    return Plan(tuple(made.values()), [result for result in results if result.resolve() not in targets])


def result_beside(notebook: Path) -> Path:
    """Where the result of a notebook goes unless something else is asked for."""
    return notebook.with_name(f"{notebook.stem}-run{_NOTEBOOK}")


def is_pattern(argument: Path) -> bool:
    """Whether an argument is a pattern that no shell has replaced by what it stands for."""
    return glob.has_magic(str(argument)) and not argument.exists()


def _found(arguments: Sequence[Path], output: Path | None) -> Iterator[tuple[Path, Path]]:
    """Each notebook that the arguments stand for, and the place of its result."""
    for argument in arguments:
        if argument.is_dir():
            for notebook in _below(argument, output):
                place = output / notebook.relative_to(argument) if output is not None else None
                yield notebook, place or result_beside(notebook)
            continue
        matches = sorted(map(Path, glob.glob(str(argument), recursive=True))) if is_pattern(argument) else [argument]
        for notebook in matches:
            yield notebook, output / notebook.name if output is not None else result_beside(notebook)
        if not matches or not all(notebook.is_file() for notebook in matches):
            raise UsageError(f"There is no notebook {shown(argument)}.", hint="Nothing was started. Check the path.")


def _below(folder: Path, output: Path | None) -> Iterator[Path]:
    """The notebooks in a folder and its subfolders; not those that are hidden, nor those of a sandbox."""
    left_out = output.resolve() if output is not None else None
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not name.endswith(SUFFIX) and (here / name).resolve() != left_out
        )
        for name in sorted(names):
            if name.endswith(_NOTEBOOK) and not name.startswith(".") and (here / name).is_file():
                yield here / name


def _job(source: Path, target: Path, overrides: Mapping[str, object]) -> Job:
    settings, digest = settings_of(source, overrides)
    return Job(source, target, settings, digest, read_record(target))


def _made_from(notebook: Path) -> Path | None:
    """The notebook that this one is the result of; None if it is an original, or the only one left."""
    record = read_record(notebook)
    source = source_of(notebook, record) if record is not None else None
    return source if source is not None and source.is_file() and not source.samefile(notebook) else None


def _refuse_nothing(arguments: Sequence[Path], results: Sequence[Path]) -> NoReturn:
    if results:
        raise UsageError(
            "There are only results of earlier runs here.",
            why=f"{shown(results[0])} was made from another notebook, which is there too.",
            hint="Name that one; or run this one alone, without --jobs, --force and --time-limit.",
        )
    raise UsageError("There is no notebook here.", why=f"Looked in {', '.join(map(shown, arguments))}.")


def _check_targets(jobs: Mapping[Path, Job], *, force: bool) -> None:
    """Refuse what would lose a file.

    Args:
        jobs: by their notebook's resolved path.
        force: whether files that no run has written may be replaced.
    """
    taken: dict[Path, Job] = {}
    for job in jobs.values():
        place = job.target.resolve()
        if place in jobs:
            raise UsageError(
                f"The result of {shown(job.source)} would replace {shown(job.target)}, which is to be run as well.",
                hint="Nothing was started. Move that one away, or give a folder for the results with -o.",
            )
        if place in taken:
            raise UsageError(
                f"Two results would be written to {shown(job.target)}.",
                why=f"Those of {shown(taken[place].source)} and {shown(job.source)}.",
                hint="Nothing was started. Name the folder that holds both: below -o, its subfolders are kept apart.",
            )
        taken[place] = job
        other = _made_from(job.target)
        if other is not None and not other.samefile(job.source):
            reason = f"It is the result of {shown(other)}."
        elif job.target.is_file() and job.earlier is None:
            reason = "No earlier run has written it."
        else:
            continue
        if not force:
            raise UsageError(
                f"{shown(job.target)} is there already, and would be lost.",
                why=reason,
                hint="Nothing was started. Give another folder with -o; or --force, which replaces it.",
            )


def _check_shared(jobs: Iterable[Job]) -> None:
    """Refuse to let notebooks work in one folder or one kernel at the same time."""
    users: dict[tuple[str, str, str], Job] = {}
    for job in jobs:
        settings = job.settings
        if settings is None:
            continue
        for name in ("AGENT_WORKSPACE", "AGENT_REMOTE_KERNEL_ID", "AGENT_SESSION"):
            value = getattr(settings, name.lower())
            if value is None:
                continue
            other = users.setdefault((name, value, settings.source(name)), job)
            if other is not job:
                raise UsageError(
                    f"{shown(other.source)} and {shown(job.source)} cannot run at the same time.",
                    why=f"{name}, from {settings.source(name)}, gives both the same place to work in.",
                    hint="Unset it, or leave --jobs out.",
                )
