"""Run all measures and print one table: `make bench`, or `make bench BENCH_ARGS=--quick`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module

import pytest

from .report import Failure, Row, table

Measure = Callable[[], list[Row]]


def measures(rounds: int) -> dict[str, Measure]:
    """Name to measure. Each module is imported when it is needed, so that one that cannot be does not stop the rest."""

    def late(module: str, name: str, *arguments: int) -> Measure:
        return lambda: getattr(import_module(f"tests.benchmarks.{module}"), name)(*arguments)

    return {
        "load": late("load", "load_extension", rounds),
        "turns": late("turns", "cpu_per_turn", rounds),
        "unreachable": late("providers", "unreachable", rounds),
        "first token": late("providers", "first_token", rounds),
        "switching": late("providers", "switching"),
        "cold": late("sandbox_times", "cold_start", rounds),
        "warm": late("sandbox_times", "warm_execute", 40 * rounds),
        "remote": late("remote", "overhead", rounds),
        "class": late("remote", "school_class"),
        "small": late("traffic", "small_job"),
        "long": late("traffic", "long_job"),
        "loud": late("stress", "loud_code"),
        "endless": late("stress", "endless_code"),
        "ctrl-c": late("stress", "ctrl_c"),
    }


def main() -> int:
    """Measure, print, and return 1 if a bar was missed."""
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--report-only", action="store_true", help="exit 0 even if a bar was missed")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(measures(1)), help="some of the measures")
    arguments = parser.parse_args()
    # What the measures cost is not entered into the developer's own book.
    folder = tempfile.TemporaryDirectory(prefix="bench-data-")
    os.environ["XDG_DATA_HOME"] = folder.name
    say = partial(print, file=sys.stderr, flush=True)
    rows: list[Row | Failure] = []
    for name, measure in measures(3 if arguments.quick else 9).items():
        if arguments.only and name not in arguments.only:
            continue
        say(f"    measuring: {name}")
        try:
            rows += measure()
        except pytest.skip.Exception as missing:  # of a server that it needs
            say(f"    left out: {name}. {missing}")
        except Exception as exc:
            traceback.print_exc()
            rows.append(Failure(name, f"{type(exc).__name__}: {exc}".splitlines()[0][:60]))
    folder.cleanup()
    print(table(rows), flush=True)
    missed = sum(not row.passed for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} within their bars", flush=True)
    return 1 if missed and not arguments.report_only else 0


if __name__ == "__main__":
    sys.exit(main())
