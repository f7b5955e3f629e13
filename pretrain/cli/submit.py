"""`pretrain submit`: a recipe as a SLURM job."""

import sys
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
    nodes: Annotated[int, typer.Option(min=1, help="nodes that train together")] = 1,
    procs: Annotated[int | None, typer.Option(min=1, help="processes a node; one for each GPU when left out, one on CPU")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs a node; 0 asks for none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores a process  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="memory a node, e.g. 64G  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="time limit of one start; the job requeues itself  [template: 24:00:00]")] = None,
    signal_s: Annotated[int | None, typer.Option(help="seconds before the limit at which the run saves  [template: 180]")] = None,
    mail: Annotated[str | None, typer.Option(help="address told when the job ends, fails or is requeued")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="shell line run first, e.g. 'module load cuda'; repeatable")] = None,
    max_restarts: Annotated[int | None, typer.Option(help="how often the job may requeue itself  [template: 20]")] = None,
    stage: Annotated[str | None, typer.Option(help="copy the stores to this folder on each node's own disk first")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the job script and submit nothing")] = False,
) -> None:
    """Submit a recipe as a SLURM job that saves and requeues itself before its time limit, and goes on in the same run.

    Defaults of your cluster go into `slurm.yaml` in the working folder (or ~/.config/isograft/slurm.yaml), for example

    \b
        partition: gpu
        setup: [module load cuda, source ~/isograft/.venv/bin/activate]

    With `--nodes 2 --gpus 4` eight processes train together; batch is over all of them. What `pretrain plan` would refuse, a batch that
    cannot be dealt out, files that the nodes cannot see, and a time limit shorter than a checkpoint interval are refused here.

    The script is kept as runs/NAME/job.sbatch; `pretrain status` follows the run.
    """
    from pathlib import Path

    from encoders.runtime import slurm
    from pretrain.recipe import config
    from pretrain.run import slurm_job as job
    from pretrain.run.job_checks import check_job

    given = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "signal_s": signal_s, "mail": mail, "setup": setup or None, "max_restarts": max_restarts,
        "stage": stage,
    }  # fmt: skip
    wants = slurm.site_with_options(given)
    resolved = config.load_recipe(recipe, overrides or [])  # a typo is found here, not after a night in the queue
    if resolved.data.store is None:
        raise config.InputError("data.store is not set: add data.store=FILE.h5")
    run, shape = name or Path(recipe).stem, job.JobShape(nodes, procs)
    script = job.build_job_script(run, recipe, overrides or [], wants, shape)
    ranks = nodes * shape.a_node(script)
    for line in check_job(resolved, script, ranks, slurm.read_directive(script, "gpus-per-node") is not None, wants):
        print(line, file=sys.stderr if dry_run else sys.stdout)
    if dry_run:
        print(script, end="")
        return
    number, path = job.submit_job(run, script)
    print(f"submitted job {number} ({path}), {ranks} process(es); follow it with `pretrain status {run}`")


def stage(
    recipe: Annotated[str, typer.Argument(help="recipe: a name (see `pretrain recipes`) or the path of a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value settings, e.g. data.store=cxr.h5")] = None,
) -> None:
    """Copy a recipe's stores to this node's own disk, the folder ISOGRAFT_STAGE; jobs submitted with --stage do it on every node."""
    import socket

    from encoders.store import staging as stages
    from pretrain.recipe import config

    where, wanted = stages.staging_dir(), config.load_recipe(recipe, overrides or []).data.store
    if where is None or wanted is None:
        raise config.InputError("set ISOGRAFT_STAGE to a folder on this node's own disk, and data.store to what is to be copied")
    for path in stages.stage_stores(wanted, where):
        print(f"{socket.gethostname()}: {path} ({path.stat().st_size:,} bytes)")
