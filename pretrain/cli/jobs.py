"""`pretrain status`, `pretrain logs` and `pretrain cancel`: runs and their SLURM jobs. None of them imports torch."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console
from pretrain.cli.arguments import RunArgument

if TYPE_CHECKING:
    from pathlib import Path

    from pretrain.run.rundir import RunDir

POLL_S = 1.0  # between two looks at a log that is followed
POLLS_PER_QUESTION = 15  # looks at a log between two questions to SLURM


def status(runs: Annotated[list[str] | None, typer.Argument(help="names of runs  [default: all runs]")] = None) -> None:
    """List runs with their state, progress, speed and SLURM job.

    States: queued, held, starting (by SLURM); running; finished; stopped (by a signal or the watchdog); diverged; died (its process is
    gone); failed or not started (its job ended before it trained); cancelled; to be resumed (by its SLURM job). Of a run that died or
    failed the end of the log is shown, and of a run that is named, where its log is. `pretrain resume NAME` continues a run that was
    stopped or died. For example

    \b
        pretrain status
        pretrain status cxr_moco
    """
    from rich.table import Table

    from pretrain.run.run_jobs import find_started_or_submitted, list_submitted_runs
    from pretrain.run.rundir import list_runs
    from pretrain.run.status import STATUS_HEADER, describe_run

    found = [find_started_or_submitted(name) for name in runs or []]
    all_runs = found or sorted([*list_runs(), *list_submitted_runs()], key=lambda run: run.name)
    statuses = [describe_run(run, named=bool(runs)) for run in all_runs]
    if not statuses:
        make_console().print("no runs yet; start one with `pretrain run RECIPE data.store=FILE.h5`")
        return
    table = Table(*STATUS_HEADER, box=None)
    for each in statuses:
        table.add_row(*each.row)
    make_console().print(table)
    for line in (line for each in statuses for line in each.details):
        make_console().print(line, markup=False, highlight=False, soft_wrap=True)


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="print new lines as they are written, until the job ends")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="lines to print from the end of the log")] = 40,
) -> None:
    """Print the end of the log of a run's SLURM job.

    For example

    \b
        pretrain logs cxr_moco
        pretrain logs cxr_moco -f           # Ctrl-C ends the output, not the job
        pretrain logs cxr_moco -n 1000 | less
    """
    from encoders.runtime.errors import InputError
    from encoders.runtime.log_tail import read_log_tail
    from pretrain.run.run_jobs import find_log, find_started_or_submitted, newest_job

    found = find_started_or_submitted(run)
    job = newest_job(found)
    log = find_log(found, job)
    if log is None and job is None:
        raise InputError(f"run {found.name!r} has no log: it was not run by SLURM; `pretrain watch {found.name}` shows its metrics")
    if log is None and not follow:
        state = job.describe() if job else ""
        raise InputError(f"run {found.name!r} has no log yet: its job {job.job if job else ''} is {state or 'unknown to SLURM'}")
    end = log.stat().st_size if log else 0  # before it is read: what is written meanwhile is printed below
    for line in read_log_tail(log, lines, end) if log else []:
        print(line)
    sys.stdout.flush()  # a pipe would get these lines with the next ones only
    if follow:
        _follow_log(found, log, end)


def _follow_log(run: "RunDir", log: "Path | None", place: int) -> None:
    """Prints what the log holds from byte `place` on until the run's job has ended, or Ctrl-C; waits for a log that does not exist yet."""
    from pretrain.run.run_jobs import find_log, newest_job

    shown, ended = "", False
    quiet = 0  # looks since something was written
    try:
        while True:
            if log is None:
                log = find_log(run, None)
            size = log.stat().st_size if log else 0
            if log and size > place:
                with log.open("rb") as file:
                    file.seek(place)
                    sys.stdout.write(file.read().decode(errors="replace"))
                    sys.stdout.flush()
                place, quiet = size, -1
            elif ended:
                return
            elif quiet % POLLS_PER_QUESTION == 0:
                job = newest_job(run)
                text = job.describe() if job else ""
                if text != shown and job:
                    print(f"[job {job.job}: {text or 'unknown to SLURM'}]", file=sys.stderr)
                    shown = text
                if ended := job is None or not job.is_active:
                    continue  # one more look: the job may have written between the look and the question
            quiet += 1
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return


def cancel(runs: Annotated[list[str], typer.Argument(help="names of runs")]) -> None:
    """Cancel the SLURM jobs of runs.

    A run that trains saves a checkpoint first; `pretrain submit` with the same arguments, or `pretrain resume NAME`, continues it later.
    For example

    \b
        pretrain cancel cxr_moco
    """
    from pretrain.run.run_jobs import cancel_run, find_started_or_submitted

    for run in [find_started_or_submitted(name) for name in runs]:
        print(f"cancelled job {cancel_run(run)} of run {run.name}")
