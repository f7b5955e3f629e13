"""`pretrain submit`: a recipe as a SLURM job."""

from typing import Annotated

import typer


def submit(
    recipe: Annotated[str, typer.Argument(help="recipe: a name (see `pretrain recipes`) or the path of a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value settings, e.g. data.store=cxr.h5 steps=20000")] = None,
    name: Annotated[str | None, typer.Option(help="name of the run; the recipe's when left out")] = None,
    partition: Annotated[str | None, typer.Option(help="queue to submit to")] = None,
    account: Annotated[str | None, typer.Option(help="account that is charged")] = None,
    qos: Annotated[str | None, typer.Option(help="quality of service")] = None,
    constraint: Annotated[str | None, typer.Option(help="features the node must have")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs; 0 asks for none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="memory, e.g. 64G  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="time limit of one start; the job requeues itself  [template: 24:00:00]")] = None,
    signal_s: Annotated[int | None, typer.Option(help="seconds before the limit at which the run saves  [template: 180]")] = None,
    mail: Annotated[str | None, typer.Option(help="address told when the job ends, fails or is requeued")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="shell line run first, e.g. 'module load cuda'; repeatable")] = None,
    max_restarts: Annotated[int | None, typer.Option(help="how often the job may requeue itself  [template: 20]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the job script and submit nothing")] = False,
) -> None:
    """Submit a recipe as a SLURM job that saves and requeues itself before its time limit, and goes on in the same run.

    Defaults of your cluster go into `slurm.yaml` in the working folder (or ~/.config/isograft/slurm.yaml), for example

    \b
        partition: gpu
        setup: [module load cuda, source ~/isograft/.venv/bin/activate]

    The script is kept as runs/NAME/job.sbatch; `pretrain status` follows the run.
    """
    from pathlib import Path

    from encoders.runtime import slurm
    from encoders.runtime.config import validated
    from encoders.store import Store
    from pretrain import config
    from pretrain import submit as job

    given = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "signal_s": signal_s, "mail": mail, "setup": setup or None, "max_restarts": max_restarts,
    }  # fmt: skip
    site = slurm.site().model_dump()
    wants = validated(slurm.Site, site | {key: value for key, value in given.items() if value is not None}, "the command line")
    resolved = config.load(recipe, overrides or [])  # a typo is found here, not after a night in the queue
    if resolved.data.store is None:
        raise config.InputError("data.store is not set: add data.store=FILE.h5")
    Store.open(resolved.data.store).close()
    run = name or Path(recipe).stem
    if dry_run:
        print(job.job_script(run, recipe, overrides or [], wants), end="")
        return
    number, script = job.submit(run, recipe, overrides or [], wants)
    print(f"submitted job {number} ({script}); follow it with `pretrain status {run}`")
