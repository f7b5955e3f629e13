"""`transfer submit` and `transfer jobs`: a benchmark as SLURM jobs."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from encoders.runtime.cli import make_console, split_commas


def submit(
    more: Annotated[
        list[str] | None, typer.Argument(help="after --: options and settings of `transfer bench`, e.g. -- --draws 5 linear.steps=9")
    ] = None,
    encoder: Annotated[list[str] | None, typer.Option(help="as for `transfer bench`; one that a job still pretrains is waited for")] = None,
    task: Annotated[str | None, typer.Option(help="tasks, a,b; default: all registered ones of the encoders' modality")] = None,
    protocol: Annotated[str, typer.Option(help="of knn, linear, fewshot, finetune, mil (slides)")] = "knn,linear",
    baseline: Annotated[list[str] | None, typer.Option(help="as for `transfer bench`; `none` for none")] = None,
    name: Annotated[str, typer.Option(help="of the bench: its folder is benches/NAME")] = "bench",
    after: Annotated[list[str] | None, typer.Option(help="SLURM job that must end well first; repeatable")] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="submit those elements of NAME again that did not end well, and compare again")
    ] = False,
    wandb: Annotated[bool, typer.Option(help="the last job publishes the comparison (`transfer compare --wandb`)")] = False,
    partition: Annotated[str | None, typer.Option(help="queue to submit to")] = None,
    account: Annotated[str | None, typer.Option(help="account that is charged")] = None,
    qos: Annotated[str | None, typer.Option(help="quality of service")] = None,
    constraint: Annotated[str | None, typer.Option(help="features the node must have")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs an element; 0 asks for none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores an element  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="memory an element, e.g. 64G  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="time limit of an element  [template: 04:00:00]")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="shell line run first, e.g. 'module load cuda'; repeatable")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print elements and scripts, and submit nothing")] = False,
) -> None:
    """Submit a benchmark as one job array, an element for each encoder, task and protocol, and a last job that compares.

    For example

    \b
        transfer submit --encoder cxr_moco --encoder cxr_mae --task pneumonia,view --protocol knn,linear
        transfer submit --encoder cxr_moco --name curves -- --fractions 1%,10%,100% --draws 5
        transfer jobs curves                         # what became of each element
        transfer submit --rerun --name curves        # only what failed, and the comparison

    Baselines are elements too. The last job writes benches/NAME/table.md, table.csv and report.html from the records, also when elements
    failed. Defaults of your cluster come from `slurm.yaml`, as for `pretrain submit`.
    """
    from encoders.runtime import slurm
    from transfer.bench import slurm_array as job
    from transfer.bench.baselines import parse_baselines

    if rerun:
        resubmit(name, after or [])
        return
    wanted = parse_baselines(baseline)
    elements, jobs, missing = job.build_elements(encoder or [], split_commas(task), split_commas(protocol), wanted, more or [])
    check_elements(elements)
    given = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "setup": setup or None,
    }  # fmt: skip
    wants = slurm.site_with_options(given)
    where, publish = job.bench_folder(name), ["--wandb"] if wandb else []
    err = make_console(stderr=True)
    for other, why in missing.items():
        err.print(f"left out: {other}: {why}", markup=False, style="yellow")
    if dry_run:
        for i, cell in enumerate(elements):
            print(f"# element {i}: transfer bench {' '.join(cell.words)}")
        print(*job.render_scripts(where, list(dict.fromkeys(c.task for c in elements)), wants, publish), sep="\n", end="")
        return
    job.write_bench_folder(where, elements, wants, publish)
    print_submission(where, job.submit_array(where, range(len(elements)), [*(after or []), *jobs]), len(elements))


def print_jobs(name: Annotated[str, typer.Argument(help="the bench, as named at `transfer submit`")] = "bench") -> None:
    """What became of each element of a submitted benchmark. Exit status 1 when one failed."""
    from rich.table import Table

    from transfer.bench import slurm_array as job

    where = job.find_bench_folder(name)
    rows = job.list_elements(where)
    table = Table("element", "transfer bench", "state", "log")
    for row in rows:
        table.add_row(*row)
    make_console().print(table)
    failed = [row for row in rows if row[2].startswith("failed")]
    if failed:
        err = make_console(stderr=True)
        for element, _, _, log in failed:
            if why := job.read_failure_reason(where.path / log) if log else "":
                err.print(f"element {element}: {why}", markup=False, soft_wrap=True)
        err.print(
            f"{len(failed)} of {len(rows)} elements failed; logs are in {where.path}; "
            f"submit them again with: transfer submit --rerun --name {name}",
            markup=False,
        )
        raise typer.Exit(1)


def resubmit(name: str, after: Sequence[str]) -> None:
    """Submits what did not end well. Raises InputError when the bench is still in the queue, or everything is done."""
    from encoders.runtime.errors import InputError
    from transfer.bench import slurm_array as job

    where = job.find_bench_folder(name)
    job.refuse_busy(where)
    elements = job.list_unfinished(where)
    if not elements:
        raise InputError(f"every element of bench {name!r} is done; `transfer compare` shows the table")
    print_submission(where, job.submit_array(where, elements, after), len(elements))


def print_submission(where: Any, ids: tuple[str, str], count: int) -> None:
    print(f"submitted array {ids[0]} ({count} elements) and job {ids[1]}, which compares; follow with `transfer jobs {where.path.name}`")


def check_elements(elements: Sequence[Any]) -> None:
    """Raises InputError when `transfer bench` would not understand an element: better now than after a night in the queue."""
    from typer.main import get_command

    from encoders.runtime.errors import InputError
    from transfer.bench.bench import load_protocols
    from transfer.cli.main import app

    bench = get_command(app).commands["bench"]  # type: ignore[attr-defined]
    usage_error: Any = typer.BadParameter.__base__  # click's, or typer's own copy of it in newer versions
    for cell in elements:
        try:
            context = bench.make_context("transfer bench", list(cell.words))
        except usage_error as wrong:
            raise InputError(f"`transfer bench {' '.join(cell.words)}`: {wrong.format_message()}") from wrong
        load_protocols([cell.protocol], 0, context.params["overrides"] or [])
