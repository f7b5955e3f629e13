"""`transfer jobs`: the state of submitted benchmarks."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console

if TYPE_CHECKING:
    from transfer.bench.bench_folder import BenchFolder

SHOWN_FAILURES = 10  # cells whose reason is printed; an array of a wrong set-up line fails as a whole


def print_jobs(
    name: Annotated[str | None, typer.Argument(help="name of a benchmark, as given to `transfer submit --name`  [default: all]")] = None,
) -> None:
    """Show the state of submitted benchmarks, and why cells failed. Exit status 1 when a cell failed.

    For example

    \b
        transfer jobs               # one line per benchmark
        transfer jobs cxr           # each cell of the benchmark cxr

    A cell is one encoder on one task under one protocol; an array task computes several. `transfer submit --rerun --name NAME` resubmits
    the cells that did not succeed.
    """
    from transfer.bench.bench_folder import find_bench_folder, list_bench_folders

    folders = [find_bench_folder(name)] if name else list_bench_folders()
    if not folders:
        make_console().print("no benchmark was submitted yet; submit one with `transfer submit --encoder NAME --task TASK`", markup=False)
    elif len(folders) == 1:
        _print_cells(folders[0])
    else:
        _print_overview(folders)


def _print_overview(folders: "list[BenchFolder]") -> None:
    from rich.table import Table

    from transfer.bench.bench_folder import describe_last_job, list_submitted_cells

    table, failed = Table("benchmark", "cells", "states", "last job", box=None), 0
    for folder in folders:
        rows = list_submitted_cells(folder)
        failed += sum(row.failed for row in rows)
        states = ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).most_common())
        table.add_row(folder.path.name, str(len(rows)), states, describe_last_job(folder))
    make_console().print(table)
    if failed:
        make_console(stderr=True).print("`transfer jobs NAME` shows why cells failed", markup=False)
        raise typer.Exit(1)


def _print_cells(folder: "BenchFolder") -> None:
    from rich.table import Table

    from transfer.bench.bench_folder import describe_last_job, list_submitted_cells

    rows = list_submitted_cells(folder)
    table = Table("cell", "transfer bench", "array task", "state", "log")
    for row in rows:
        table.add_row(str(row.number), row.command, str(row.task), row.state, row.log.name if row.log else "")
    make_console().print(table)
    if last := describe_last_job(folder):
        make_console().print(f"last job, which compares the results: {last}", markup=False)
    failed = [row for row in rows if row.failed]
    if not failed:
        return
    console = make_console(stderr=True)
    for row in failed[:SHOWN_FAILURES]:
        if row.reason:
            console.print(f"cell {row.number}: {row.reason}", markup=False, soft_wrap=True)
    more = f" ({len(failed) - SHOWN_FAILURES} more are not listed)" if len(failed) > SHOWN_FAILURES else ""
    console.print(
        f"{len(failed)} of {len(rows)} cells failed{more}; their logs are in {folder.path}; "
        f"resubmit them with: transfer submit --rerun --name {folder.path.name}",
        markup=False,
    )
    raise typer.Exit(1)
