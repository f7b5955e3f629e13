"""`transfer submit`: a benchmark as a SLURM job array."""

import inspect
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from encoders.runtime.cli import make_console, split_commas
from encoders.runtime.paths import runs_dir
from encoders.runtime.slurm_jobs import find_active_job
from encoders.runtime.sweep_folder import expand_sweeps
from encoders.zoo.names import split_names
from transfer.bench.bench_arguments import list_bench_options, parse_bench_arguments
from transfer.bench.dependencies import Dependencies, parse_after
from transfer.bench.option_types import BaselineNames, EncoderNames, Floor, ProtocolNames, TaskNames
from transfer.search.settings import SearchSpace, SearchTrials, expand_search
from transfer.strategies.names import StrategyNames, check_settings_used, expand_strategies

if TYPE_CHECKING:
    from transfer.bench.bench_folder import BenchFolder
    from transfer.bench.slurm_array import BenchCell


def submit(
    bench_options: Annotated[
        list[str] | None,
        typer.Argument(metavar="BENCH_OPTIONS", help="further options and settings of `transfer bench`, e.g. --draws 5 linear.steps=9"),
    ] = None,
    encoder: EncoderNames = None,
    task: TaskNames = None,
    protocol: ProtocolNames = "knn,linear",
    strategies: StrategyNames = None,
    search: SearchSpace = None,
    trials: SearchTrials = None,
    baseline: BaselineNames = None,
    floor: Floor = True,
    name: Annotated[str, typer.Option(help="name of the benchmark; its folder is benches/NAME")] = "bench",
    after: Annotated[
        list[str] | None, typer.Option(help="SLURM job that must succeed first, a run, or a sweep whose runs must end; repeatable")
    ] = None,
    per: Annotated[
        Literal["encoder", "task", "cell"],
        typer.Option(
            help="what an array task computes: an encoder, on all tasks under all protocols that do not train it; a task of it; or one cell"
        ),
    ] = "encoder",
    at_once: Annotated[int | None, typer.Option(min=1, help="array tasks that may run at the same time  [default: all]")] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="resubmit the cells of NAME that did not succeed, and compare again")] = False,
    wandb: Annotated[bool, typer.Option(help="publish the comparison in W&B from the last job (`transfer compare --wandb`)")] = False,
    partition: Annotated[str | None, typer.Option(help="SLURM partition to submit to")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM account to charge")] = None,
    qos: Annotated[str | None, typer.Option(help="SLURM quality of service")] = None,
    constraint: Annotated[str | None, typer.Option(help="features that the node must have")] = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs per array task, e.g. 1 or a100:1; 0 requests none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores per array task  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="memory per array task, e.g. 64G  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="time limit per array task, e.g. 12:00:00  [template: 04:00:00]")] = None,
    sbatch: Annotated[list[str] | None, typer.Option(help="further option of sbatch, e.g. --sbatch=--exclude=n1; repeatable")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="shell line to run first, e.g. 'module load cuda'; repeatable")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print cells and scripts without submitting them")] = False,
) -> None:
    """Submit a benchmark as a SLURM job array.

    A cell is one (encoder, task, protocol). An array task computes the cells of one encoder, which embeds each store once; protocols that
    train it (finetune) get array tasks of their own. A last job compares the results.

    For example

    \b
        transfer submit --encoder cxr_moco --encoder cxr_mae --task pneumonia,view --protocol knn,linear
        transfer submit --encoder cxr_moco --name curves --fractions 1%,10%,100% --draws 5
        transfer submit --after cxr_seeds --task pneumonia --name seeds     # the encoders of a sweep, once its runs have ended
        transfer jobs curves                         # the state of each cell
        transfer submit --rerun --name curves        # resubmit only the failed cells, and the comparison

    Baselines have cells of their own. An encoder that a job is still pretraining is waited for. --after a sweep waits until all of its
    runs have ended, and benchmarks their encoders unless --encoder names others; the cells of a run that failed then fail with the
    reason, and the others do not. The last job always runs and writes benches/NAME/table.md, table.csv and report.html from the records
    that exist. Defaults for your cluster come from `slurm.yaml`, as for `pretrain submit`.
    """
    refuse_unknown_options(bench_options or [])
    dependencies, followed = parse_after(after or [])  # names are checked before torch is imported
    if rerun:
        resubmit(name, dependencies)
        return
    expected: list[str] = []
    names = expand_sweeps(split_names(encoder or []) or followed, expected)
    from encoders.runtime.exclusive import exclusive_work
    from encoders.runtime.slurm_site import site_with_options
    from transfer.bench import bench_folder, slurm_array
    from transfer.bench.baselines import parse_baselines

    protocols, words = expand_strategies(split_commas(protocol), split_commas(strategies), bench_options or [])
    words = expand_search(search, trials, protocols, words)
    check_settings_used(protocols, words)
    cells, jobs, left_out = slurm_array.list_bench_cells(
        names, split_commas(task), protocols, parse_baselines(baseline), words, floor, expected
    )
    table_options = check_cells(cells)
    options = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "sbatch": sbatch or None, "setup": setup or None, "at_once": at_once,
    }  # fmt: skip
    site = site_with_options(options)
    folder, compare_options = bench_folder.bench_folder(name), [*table_options, *(["--wandb"] if wandb else [])]
    console = make_console(stderr=True)
    for run in expected:
        if find_active_job(runs_dir() / run) is not None:
            continue
        message = f"run {run} has no encoder and no job in the queue (`pretrain status {run}`): its cells fail until it is finished"
        console.print(message, markup=False, soft_wrap=True, style="yellow")
    for left, reason in left_out.items():
        console.print(f"skipped: {left}: {reason}", markup=False, style="yellow")
    if dry_run:
        for i, group in enumerate(slurm_array.group_cells(cells, per)):
            print(f"# array task {i}:")
            for number in group:
                print(f"#   cell {number}: transfer bench {shlex.join(cells[number].arguments)}")
        tasks = list(dict.fromkeys(cell.task for cell in cells))
        print(*slurm_array.render_scripts(folder, tasks, site, compare_options), sep="\n", end="")
        return
    with exclusive_work(folder.path, f"submitting bench {folder.path.name!r}"):
        numbers = slurm_array.write_bench_folder(folder, cells, site, compare_options, per)
        print_submission(folder, slurm_array.submit_array(folder, numbers, dependencies + jobs), numbers)


def refuse_unknown_options(words: Sequence[str]) -> None:
    """Raises InputError for an option that neither this command nor `transfer bench` has, naming the nearest one."""
    from encoders.runtime.errors import unknown_name_error

    known = list_bench_options()
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            own = [f"--{name.replace('_', '-')}" for name in inspect.signature(submit).parameters if name != "bench_options"]
            raise unknown_name_error("option", option, [*own, *known], "`transfer submit --help` and `transfer bench --help` list them")


def resubmit(name: str, after: Dependencies) -> None:
    """Submits the array tasks with a cell that did not succeed; their other cells are not computed again.

    Raises InputError when the benchmark is still in the queue, or all cells are done."""
    from encoders.runtime.errors import InputError
    from encoders.runtime.exclusive import exclusive_work
    from transfer.bench import bench_folder, slurm_array

    folder = bench_folder.find_bench_folder(name)
    with exclusive_work(folder.path, f"submitting bench {name!r}"):
        slurm_array.refuse_busy(folder)
        numbers = bench_folder.list_unfinished(folder)
        if not numbers:
            raise InputError(f"every cell of bench {name!r} is done; `transfer compare` shows the table")
        print_submission(folder, slurm_array.submit_array(folder, numbers, after), numbers)


def print_submission(folder: "BenchFolder", jobs: tuple[str, str], numbers: Sequence[int]) -> None:
    """Prints the ids of the array and of the last job.  numbers: the array tasks."""
    groups = folder.array_tasks()
    cells = sum(folder.exit_status(cell) != 0 for number in numbers for cell in groups[number])
    print(
        f"submitted array {jobs[0]} ({len(numbers)} array tasks, {cells} cells) and job {jobs[1]}, which compares; follow with "
        f"`transfer jobs {folder.path.name}`"
    )


def check_cells(cells: Sequence["BenchCell"]) -> list[str]:
    """The options of tables that the last job needs.

    Raises InputError when `transfer bench` would refuse a cell, so that a mistake fails now and not after a night in the queue."""
    from transfer.bench.bench import load_protocols
    from transfer.bench.slurm_array import list_table_options

    words: list[str] = []
    for cell in cells:
        options = parse_bench_arguments(cell.arguments)
        load_protocols([cell.protocol], 0, options.overrides)
        words = list_table_options(options)
    return words
