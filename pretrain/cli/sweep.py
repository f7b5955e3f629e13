"""`--sweep` of `pretrain run`, `plan` and `submit`: the runs of a grid of settings."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console
from encoders.runtime.errors import InputError
from encoders.runtime.wandb_agent import find_agent_run
from pretrain.recipe.sweep_grid import parse_axes

if TYPE_CHECKING:
    from encoders.runtime.slurm_site import Site
    from pretrain.run.slurm_job import JobShape


def check_sweep(texts: list[str] | None) -> list[str] | None:
    """The values of `--sweep`, if they can be read: a mistake is answered before torch is imported."""
    parse_axes(texts or [])
    if texts and find_agent_run() is not None:
        raise InputError("--sweep under `wandb agent`, which chooses the settings of one run: use one of them")
    return texts


SweepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="KEY=A,B,...",
        callback=check_sweep,
        help="one run for each value of a setting, e.g. seed=0,1,2; repeatable: one run for each combination",
    ),
]


def run_sweep(recipe: str, overrides: Sequence[str], sweep: Sequence[str], name: str | None, out: str | None, device: str) -> int:
    """Runs a sweep one run after the other and prints a table of their results; returns the exit status."""
    parse_axes(sweep, overrides)

    from pretrain.run.sweep import plan_sweep

    planned = plan_sweep(recipe, overrides, sweep, name, out)  # a mistake is answered before what follows imports torch

    from rich.table import Table

    from pretrain.run.status import describe_run
    from pretrain.run.sweep_sequence import FINISHED, FINISHED_BEFORE, run_in_sequence

    results, status = run_in_sequence(planned, device)
    table = Table("run", "result", "step", "loss", box=None)
    for run in planned.runs:
        _, _, step, loss, *_ = describe_run(run.folder).row if run.folder.exists() else ("", "", "", "")
        table.add_row(run.name, results[run.name], step, loss)
    console = make_console()
    console.print(table)
    left = [name for name, result in results.items() if result not in (FINISHED, FINISHED_BEFORE)]
    text = f"sweep {planned.folder.name}: {len(results) - len(left)} of {len(results)} runs are finished"
    if left:
        text += f"; the same command resumes or repeats the other {len(left)}: {', '.join(left)}"
    console.print(text, markup=False, soft_wrap=True)
    return status


def print_sweep_plan(recipe: str, overrides: Sequence[str], sweep: Sequence[str], name: str | None, device: str) -> None:
    """Prints the size, time and memory of the runs of a sweep, and the time of all together."""
    parse_axes(sweep, overrides)

    from pretrain.run.sweep import plan_sweep

    planned = plan_sweep(recipe, overrides, sweep, name)

    from pretrain.run.process import prepare_process
    from pretrain.run.sweep_cost import plan_sweep_cost

    console = make_console()
    device = prepare_process(device, planned.runs[0].recipe.threads)
    plan_sweep_cost(planned.runs, device, lambda line: console.print(line, markup=False, soft_wrap=True))


def submit_as_array(
    recipe: str, overrides: Sequence[str], sweep: Sequence[str], name: str | None, site: "Site", shape: "JobShape", dry_run: bool
) -> None:
    """Submits the runs of a sweep that are neither finished nor in the queue, as one SLURM array.

    Raises InputError for what cannot work in one of the runs."""
    parse_axes(sweep, overrides)

    from pretrain.run.sweep import plan_sweep

    planned = plan_sweep(recipe, overrides, sweep, name)

    from encoders.runtime import slurm
    from pretrain.run.job_checks import check_job, require_even_batch
    from pretrain.run.sweep_cost import group_by_cost
    from pretrain.run.sweep_job import build_sweep_script, sort_runs, submit_sweep

    script = build_sweep_script(planned, site, shape)
    ranks = shape.nodes * shape.count_processes_per_node(script)
    queue, out = sort_runs(planned), sys.stderr if dry_run else sys.stdout
    for run in queue.todo:
        if run.recipe.data.store is None:
            raise InputError("data.store is not set: add data.store=FILE.h5")
        require_even_batch(run.recipe, ranks)
    groups = group_by_cost(queue.todo)
    for same in groups:
        if len(groups) > 1:
            print(f"{', '.join(run.name for run in same)}:", file=out)
        for line in check_job(same[0].recipe, script, ranks, slurm.gpus_per_node(script) > 0, site):
            print(line, file=out)
    if dry_run:
        for run in queue.todo:
            print(f"# element {run.number}: {run.name}: {' '.join(run.overrides)}")
        print(script, end="")
        return
    print(f"sweep {planned.folder.name}: {queue.describe()}")
    if queue.todo:
        array, path = submit_sweep(planned, queue.todo, script, site.at_once)
        follow = f"follow it with `pretrain status {planned.folder.name}`"
        print(f"submitted array {array} ({path}), {len(queue.todo)} runs with {ranks} process(es) each; {follow}")
