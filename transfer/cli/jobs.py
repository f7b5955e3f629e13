"""`transfer jobs`: the state of submitted benchmarks."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console

if TYPE_CHECKING:
    from transfer.bench.bench_folder import BenchFolder

SHOWN_FAILURES = 10  # elements whose reason is printed; an array of a wrong set-up line fails as a whole


def print_jobs(
    name: Annotated[str | None, typer.Argument(help="name of a benchmark, as given to `transfer submit --name`  [default: all]")] = None,
) -> None:
    """Show the state of submitted benchmarks, and why elements failed. Exit status 1 when an element failed.

    For example

    \b
        transfer jobs               # one line per benchmark
        transfer jobs cxr           # each element of the benchmark cxr

    `transfer submit --rerun --name NAME` resubmits the elements that did not succeed.
    """
    from transfer.bench.bench_folder import find_bench_folder, list_bench_folders

    folders = [find_bench_folder(name)] if name else list_bench_folders()
    if not folders:
        make_console().print("no benchmark was submitted yet; submit one with `transfer submit --encoder NAME --task TASK`", markup=False)
    elif len(folders) == 1:
        _print_elements(folders[0])
    else:
        _print_overview(folders)


def _print_overview(folders: "list[BenchFolder]") -> None:
    from rich.table import Table

    from transfer.bench.bench_folder import describe_last_job, list_elements

    table, failed = Table("benchmark", "elements", "states", "last job", box=None), 0
    for folder in folders:
        rows = list_elements(folder)
        failed += sum(row.failed for row in rows)
        states = ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).most_common())
        table.add_row(folder.path.name, str(len(rows)), states, describe_last_job(folder))
    make_console().print(table)
    if failed:
        make_console(stderr=True).print("`transfer jobs NAME` shows why elements failed", markup=False)
        raise typer.Exit(1)


def _print_elements(folder: "BenchFolder") -> None:
    from rich.table import Table

    from encoders.runtime.log_tail import read_failure_reason
    from transfer.bench.bench_folder import describe_last_job, list_elements

    rows = list_elements(folder)
    table = Table("element", "transfer bench", "state", "log")
    for row in rows:
        table.add_row(str(row.number), row.command, row.state, row.log.name if row.log else "")
    make_console().print(table)
    if last := describe_last_job(folder):
        make_console().print(f"last job, which compares the results: {last}", markup=False)
    failed = [row for row in rows if row.failed]
    if not failed:
        return
    console = make_console(stderr=True)
    for row in failed[:SHOWN_FAILURES]:
        if reason := read_failure_reason(row.log) if row.log else "":
            console.print(f"element {row.number}: {reason}", markup=False, soft_wrap=True)
    more = f" ({len(failed) - SHOWN_FAILURES} more are not listed)" if len(failed) > SHOWN_FAILURES else ""
    console.print(
        f"{len(failed)} of {len(rows)} elements failed{more}; their logs are in {folder.path}; "
        f"resubmit them with: transfer submit --rerun --name {folder.path.name}",
        markup=False,
    )
    raise typer.Exit(1)
