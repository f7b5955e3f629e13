"""`pretrain status`, `pretrain logs` and `pretrain cancel`: runs and their SLURM jobs. None of them imports torch."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console
from pretrain.cli.arguments import RunArgument
from pretrain.run.rundir import RunDir

if TYPE_CHECKING:
    from encoders.runtime.sweep_folder import SweepFolder

LINES_OF_A_RUN, LINES_OF_A_SWEEP = 40, 10  # that `pretrain logs` prints of each log


def status(runs: Annotated[list[str] | None, typer.Argument(help="names of runs and sweeps  [default: all runs]")] = None) -> None:
    """List runs with their state, progress, speed and SLURM job. The name of a sweep stands for its runs.

    States: queued, held, starting (by SLURM); running; finished; stopped (by a signal or the watchdog); diverged; died (its process is
    gone); failed or not started (its job ended before it trained); cancelled; to be resumed (by its SLURM job). Of a run that died or
    failed the end of the log is shown, and of a run that is named, where its log is. `pretrain resume NAME` continues a run that was
    stopped or died. For example

    \b
        pretrain status
        pretrain status cxr_moco
    """
    from rich.table import Table

    from encoders.runtime.sweep_folder import find_sweep, list_sweeps
    from pretrain.run.run_jobs import find_started_or_submitted, list_submitted_runs, list_sweep_runs
    from pretrain.run.rundir import list_runs
    from pretrain.run.status import STATUS_HEADER, describe_listed_run, describe_run

    sweeps = [sweep for name in runs or [] if (sweep := find_sweep(name))] if runs else list_sweeps()
    named = [find_started_or_submitted(name) for name in runs or [] if not find_sweep(name)]
    members = {sweep.name: list_sweep_runs(sweep) for sweep in sweeps}
    others = [] if runs else [*list_runs(), *list_submitted_runs()]
    alone = {run.path for run in named}
    everything = {run.path: run for run in (*named, *(run for own in members.values() for run in own), *others)}
    found = {path: describe_run(run, named=True) if path in alone else describe_listed_run(run) for path, run in everything.items()}
    shown = list(found) if runs else sorted((run.path for run in others), key=lambda path: path.name)
    statuses = [found[path] for path in shown]
    if not statuses and not sweeps:
        make_console().print("no runs yet; start one with `pretrain run RECIPE data.store=FILE.h5`")
        return
    table = Table(*STATUS_HEADER, box=None)
    for each in statuses:
        table.add_row(*each.row)
    make_console().print(table)
    lines = [line for each in statuses for line in each.details]
    for name, own in members.items():
        states = Counter(found[run.path].row[1] for run in own)
        lines.append(f"sweep {name}: {len(own)} runs: {', '.join(f'{count} {state}' for state, count in states.most_common())}")
    for line in lines:
        make_console().print(line, markup=False, highlight=False, soft_wrap=True)


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="print new lines as they are written, until the job ends")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="lines from the end of the log  [default: 40, of a sweep 10]")
    ] = None,
) -> None:
    """Print the end of the log of a run's SLURM job, or of each run of a sweep.

    For example

    \b
        pretrain logs cxr_moco
        pretrain logs cxr_moco -f           # Ctrl-C ends the output, not the job
        pretrain logs cxr_moco -n 1000 | less
    """
    from encoders.runtime.errors import InputError
    from encoders.runtime.log_tail import read_log_tail
    from encoders.runtime.sweep_folder import find_sweep
    from pretrain.cli.log_follow import FollowedLog, follow_logs
    from pretrain.run.run_jobs import find_log, find_started_or_submitted, newest_job

    if (sweep := find_sweep(run)) is not None:
        return print_sweep_logs(sweep, follow, LINES_OF_A_SWEEP if lines is None else lines)
    found = find_started_or_submitted(run)
    job = newest_job(found)
    log = find_log(found, job)
    if log is None and job is None:
        raise InputError(f"run {found.name!r} has no log: it was not run by SLURM; `pretrain watch {found.name}` shows its metrics")
    if log is None and not follow:
        state = job.describe() if job else ""
        raise InputError(f"run {found.name!r} has no log yet: its job {job.job if job else ''} is {state or 'unknown to SLURM'}")
    end = log.stat().st_size if log else 0  # before it is read: what is written meanwhile is printed below
    for line in read_log_tail(log, LINES_OF_A_RUN if lines is None else lines, end) if log else []:
        print(line)
    sys.stdout.flush()  # a pipe would get these lines with the next ones only
    if follow:
        follow_logs([FollowedLog(found, log, end)])


def print_sweep_logs(sweep: "SweepFolder", follow: bool, lines: int) -> None:
    """Prints the end of the log of each run of a sweep, below a line with its name. A run without a log is named."""
    from encoders.runtime.errors import InputError
    from encoders.runtime.log_tail import read_log_tail
    from pretrain.cli.log_follow import FollowedLog, follow_logs
    from pretrain.run.run_jobs import find_log, list_job_ids, list_sweep_runs, newest_job

    runs = list_sweep_runs(sweep)
    followed = []
    for found in runs:
        if not list_job_ids(found):
            print(f"==> {found.name}: no log, it was not run by SLURM <==")
            continue
        job = newest_job(found)
        log = find_log(found, job)
        end = log.stat().st_size if log else 0
        print(f"==> {found.name}{'' if log else ': no log yet'}{f' (job {job.job}: {job.describe()})' if job and not log else ''} <==")
        for line in read_log_tail(log, lines, end) if log else []:
            print(line)
        followed.append(FollowedLog(found, log, end))
    sys.stdout.flush()
    if not followed:
        raise InputError(f"sweep {sweep.name!r} has no logs: it was not run by SLURM; `pretrain status {sweep.name}` shows its runs")
    if follow:
        follow_logs(followed, followed[-1].run.name)


def cancel(runs: Annotated[list[str], typer.Argument(help="names of runs and sweeps")]) -> None:
    """Cancel the SLURM jobs of runs, and of all runs of a sweep.

    A run that trains saves a checkpoint first; `pretrain submit` with the same arguments, or `pretrain resume NAME`, continues it later.
    For example

    \b
        pretrain cancel cxr_moco
    """
    from encoders.runtime.sweep_folder import find_sweep
    from pretrain.run.run_jobs import cancel_run, cancel_sweep, find_started_or_submitted

    found = [find_sweep(name) or find_started_or_submitted(name) for name in runs]  # a wrong name cancels nothing
    for each in found:
        if isinstance(each, RunDir):
            print(f"cancelled job {cancel_run(each)} of run {each.name}")
        else:
            jobs = cancel_sweep(each)
            print(f"cancelled {len(jobs)} of {len(each.run_names())} runs of sweep {each.name}: jobs {', '.join(jobs)}")
