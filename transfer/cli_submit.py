"""`transfer submit` and `transfer jobs`: a benchmark as SLURM jobs."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from encoders.runtime.cli import console, listed


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
    from transfer import submit as job
    from transfer.lineup import named_baselines

    if rerun:
        again(name, after or [])
        return
    wanted = named_baselines(baseline)
    elements, jobs, missing = job.cells(encoder or [], listed(task), listed(protocol), wanted, more or [])
    understood(elements)
    given = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "setup": setup or None,
    }  # fmt: skip
    wants = slurm.wanted(given)
    where, publish = job.place(name), ["--wandb"] if wandb else []
    err = console(stderr=True)
    for other, why in missing.items():
        err.print(f"left out: {other}: {why}", markup=False, style="yellow")
    if dry_run:
        for i, cell in enumerate(elements):
            print(f"# element {i}: transfer bench {' '.join(cell.words)}")
        print(*job.scripts(where, list(dict.fromkeys(c.task for c in elements)), wants, publish), sep="\n", end="")
        return
    job.prepare(where, elements, wants, publish)
    told(where, job.send(where, range(len(elements)), [*(after or []), *jobs]), len(elements))


def jobs(name: Annotated[str, typer.Argument(help="the bench, as named at `transfer submit`")] = "bench") -> None:
    """What became of each element of a submitted benchmark. Exit status 1 when one failed."""
    from rich.table import Table

    from transfer import submit as job

    where = job.existing(name)
    rows = job.table(where)
    table = Table("element", "transfer bench", "state", "log")
    for row in rows:
        table.add_row(*row)
    console().print(table)
    failed = [row for row in rows if row[2].startswith("failed")]
    if failed:
        err = console(stderr=True)
        for element, _, _, log in failed:
            if why := job.last_words(where.path / log) if log else "":
                err.print(f"element {element}: {why}", markup=False, soft_wrap=True)
        err.print(
            f"{len(failed)} of {len(rows)} elements failed; logs are in {where.path}; "
            f"submit them again with: transfer submit --rerun --name {name}",
            markup=False,
        )
        raise typer.Exit(1)


def again(name: str, after: Sequence[str]) -> None:
    """Submits what did not end well. Raises InputError when the bench is still in the queue, or everything is done."""
    from encoders.runtime.errors import InputError
    from transfer import submit as job

    where = job.existing(name)
    job.refuse_busy(where)
    elements = job.unfinished(where)
    if not elements:
        raise InputError(f"every element of bench {name!r} is done; `transfer compare` shows the table")
    told(where, job.send(where, elements, after), len(elements))


def told(where: Any, ids: tuple[str, str], count: int) -> None:
    print(f"submitted array {ids[0]} ({count} elements) and job {ids[1]}, which compares; follow with `transfer jobs {where.path.name}`")


def understood(elements: Sequence[Any]) -> None:
    """Raises InputError when `transfer bench` would not understand an element: better now than after a night in the queue."""
    from typer.main import get_command

    from encoders.runtime.errors import InputError
    from transfer.bench import protocols
    from transfer.cli import app

    bench = get_command(app).commands["bench"]  # type: ignore[attr-defined]
    usage_error: Any = typer.BadParameter.__base__  # click's, or typer's own copy of it in newer versions
    for cell in elements:
        try:
            context = bench.make_context("transfer bench", list(cell.words))
        except usage_error as wrong:
            raise InputError(f"`transfer bench {' '.join(cell.words)}`: {wrong.format_message()}") from wrong
        protocols([cell.protocol], 0, context.params["overrides"] or [])
