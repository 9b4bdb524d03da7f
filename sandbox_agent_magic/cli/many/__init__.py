"""Many notebooks in one command: `plan` finds them, `pool` runs them in workers, `progress` and `table` show them."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ... import scratch
from ...ledger import Ledger
from ...session.budget import day_objection
from .. import COMPLETED, INTERRUPTED, NOT_COMPLETED
from ..execution import environment_with
from ..words import shown
from .plan import Job, plan
from .pool import Pool, Run
from .progress import Progress, how
from .table import table


def run_many(
    notebooks: Sequence[Path],
    *,
    output: Path | None,
    overrides: Mapping[str, object],
    jobs: int,
    force: bool,
    time_limit_s: float | None,
) -> int:
    """Execute notebooks, some at a time, and return the exit code. Those that are finished are skipped.

    Args:
        notebooks: notebooks, patterns and folders.
        output: folder for the results; beside the notebooks unless given.
        overrides: settings of the command line, by name in lower case.
        jobs: how many at a time.
        force: run the finished ones too, and replace files that no run has written.
        time_limit_s: of each notebook; None is for ever.

    Raises:
        UsageError: before anything was started: there is no such notebook, or a result cannot go where it would.
        SettingsError: one of `overrides` has a bad value.
    """
    planned = plan(notebooks, output=output, overrides=overrides, force=force, jobs=jobs)
    runs = [_run(job, force=force) for job in planned.jobs]
    progress = Progress(runs, sys.stderr)
    if planned.results:
        progress.say(f"Left out, as results of earlier runs: {_few(planned.results)}.")
    for run in runs:
        if run.status == "skipped":
            progress.say(f"{shown(run.job.source)}: {how(run)}")
    with scratch.temporary("sandbox-run") as logs:
        pool = Pool(
            runs,
            progress,
            jobs=jobs,
            environment=environment_with(overrides),
            time_limit_s=time_limit_s,
            may_start=_budget_of_the_day(progress.say),
            logs=logs,
        )
        try:
            interrupted = pool.work()
        finally:
            progress.close()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that this terminal cannot show must not cost the table
        sys.stdout.reconfigure(errors="backslashreplace")
    print(table(runs, duration_s=progress.duration_s, width=width))
    if interrupted:
        return INTERRUPTED
    return COMPLETED if all(run.status in ("completed", "skipped") for run in runs) else NOT_COMPLETED


def _run(job: Job, *, force: bool) -> Run:
    if not force and job.finished:
        return Run(job, "skipped", written=job.target)
    return Run(job)


def _few(paths: Sequence[Path]) -> str:
    """Some of the paths, and how many more there are."""
    named = ", ".join(map(shown, paths[:3]))
    return named if len(paths) <= 3 else f"{named} and {len(paths) - 3} more"


def _budget_of_the_day(say: Callable[[str], None]) -> Callable[[Job], str]:
    """Says why no further notebook should be started: the budget that all of them share is used up."""
    ledger = Ledger(Ledger.of_user().path, warn=say)

    def objection(job: Job) -> str:
        return day_objection(job.settings, ledger) if job.settings is not None else ""

    return objection
