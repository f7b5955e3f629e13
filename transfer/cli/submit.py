"""`transfer submit`: a benchmark as a SLURM job array."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console, split_commas
from encoders.zoo.names import split_names
from transfer.bench.options import BaselineNames, EncoderNames, Floor, ProtocolNames, TaskNames, parse_bench_arguments

if TYPE_CHECKING:
    from transfer.bench.bench_folder import BenchFolder
    from transfer.bench.slurm_array import ArrayElement


def submit(
    bench_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- BENCH_OPTIONS", help="further options and settings of `transfer bench`, e.g. -- --draws 5 linear.steps=9"
        ),
    ] = None,
    encoder: EncoderNames = None,
    task: TaskNames = None,
    protocol: ProtocolNames = "knn,linear",
    baseline: BaselineNames = None,
    floor: Floor = True,
    name: Annotated[str, typer.Option(help="name of the benchmark; its folder is benches/NAME")] = "bench",
    after: Annotated[list[str] | None, typer.Option(help="SLURM job id that must succeed first; repeatable")] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="resubmit the elements of NAME that did not succeed, and compare again")] = False,
    wandb: Annotated[bool, typer.Option(help="publish the comparison in W&B from the last job (`transfer compare --wandb`)")] = False,
    partition: Annotated[str | None, typer.Option(help="SLURM partition to submit to")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM account to charge")] = None,
    qos: Annotated[str | None, typer.Option(help="SLURM quality of service")] = None,
    constraint: Annotated[str | None, typer.Option(help="features that the node must have")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs per element; 0 requests none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores per element  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="memory per element, e.g. 64G  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="time limit per element  [template: 04:00:00]")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="shell line to run first, e.g. 'module load cuda'; repeatable")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print elements and scripts without submitting them")] = False,
) -> None:
    """Submit a benchmark as a SLURM job array.

    The array has one element per (encoder, task, protocol); a last job compares the results.

    For example

    \b
        transfer submit --encoder cxr_moco --encoder cxr_mae --task pneumonia,view --protocol knn,linear
        transfer submit --encoder cxr_moco --name curves -- --fractions 1%,10%,100% --draws 5
        transfer jobs curves                         # the state of each element
        transfer submit --rerun --name curves        # resubmit only the failed elements, and the comparison

    Baselines are elements of their own. An encoder that a job is still pretraining is waited for. The last job always runs and writes
    benches/NAME/table.md, table.csv and report.html from the records that exist. Defaults for your cluster come from `slurm.yaml`, as for
    `pretrain submit`.
    """
    from encoders.runtime.slurm_site import site_with_options
    from transfer.bench import bench_folder, slurm_array
    from transfer.bench.baselines import parse_baselines

    if rerun:
        resubmit(name, after or [])
        return
    elements, jobs, missing = slurm_array.build_elements(
        split_names(encoder or []), split_commas(task), split_commas(protocol), parse_baselines(baseline), bench_options or [], floor
    )
    check_elements(elements)
    options = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "setup": setup or None,
    }  # fmt: skip
    site = site_with_options(options)
    folder, compare_options = bench_folder.bench_folder(name), ["--wandb"] if wandb else []
    console = make_console(stderr=True)
    for baseline_name, reason in missing.items():
        console.print(f"skipped: {baseline_name}: {reason}", markup=False, style="yellow")
    if dry_run:
        for i, element in enumerate(elements):
            print(f"# element {i}: transfer bench {' '.join(element.arguments)}")
        tasks = list(dict.fromkeys(element.task for element in elements))
        print(*slurm_array.render_scripts(folder, tasks, site, compare_options), sep="\n", end="")
        return
    slurm_array.write_bench_folder(folder, elements, site, compare_options)
    print_submission(folder, slurm_array.submit_array(folder, range(len(elements)), [*(after or []), *jobs]), len(elements))


def resubmit(name: str, after: Sequence[str]) -> None:
    """Submits the elements that did not succeed. Raises InputError when the benchmark is still in the queue, or all elements are done."""
    from encoders.runtime.errors import InputError
    from transfer.bench import bench_folder, slurm_array

    folder = bench_folder.find_bench_folder(name)
    slurm_array.refuse_busy(folder)
    elements = bench_folder.list_unfinished(folder)
    if not elements:
        raise InputError(f"every element of bench {name!r} is done; `transfer compare` shows the table")
    print_submission(folder, slurm_array.submit_array(folder, elements, after), len(elements))


def print_submission(folder: "BenchFolder", jobs: tuple[str, str], count: int) -> None:
    """Prints the ids of the array and of the last job."""
    print(f"submitted array {jobs[0]} ({count} elements) and job {jobs[1]}, which compares; follow with `transfer jobs {folder.path.name}`")


def check_elements(elements: Sequence["ArrayElement"]) -> None:
    """Raises InputError when `transfer bench` would refuse an element, so that a mistake fails now and not after a night in the queue."""
    from transfer.bench.bench import load_protocols

    for element in elements:
        options = parse_bench_arguments(element.arguments)
        load_protocols([element.protocol], 0, options.overrides)
