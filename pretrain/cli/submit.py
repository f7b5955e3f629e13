"""`pretrain submit` and `pretrain stage`: a run as a SLURM job."""

import sys
from typing import Annotated

import typer

from pretrain.cli.arguments import OverridesArgument, RecipeArgument
from pretrain.cli.sweep import SweepOption, submit_as_array


def submit(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    name: Annotated[str | None, typer.Option(help="name of the run and of its encoder  [default: name of the recipe]")] = None,
    sweep: SweepOption = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="runs of a sweep that may run at the same time  [default: all]")] = None,
    partition: Annotated[str | None, typer.Option(help="partition to submit to")] = None,
    account: Annotated[str | None, typer.Option(help="account to charge")] = None,
    qos: Annotated[str | None, typer.Option(help="quality of service")] = None,
    constraint: Annotated[str | None, typer.Option(help="features that the node must have")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="number of nodes")] = 1,
    procs: Annotated[int | None, typer.Option(min=1, help="processes per node  [default: one per GPU, or one without GPUs]")] = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs per node, e.g. 4 or a100:4; 0 requests none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores per process  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="memory per node, e.g. 64G  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="time limit of one start; the job requeues itself  [template: 24:00:00]")] = None,
    signal_s: Annotated[int | None, typer.Option(help="seconds before the time limit at which the run saves  [template: 180]")] = None,
    mail: Annotated[str | None, typer.Option(help="e-mail address to notify when the job ends, fails or is requeued")] = None,
    sbatch: Annotated[list[str] | None, typer.Option(help="further option of sbatch, e.g. --sbatch=--exclude=n1; repeatable")] = None,
    setup: Annotated[list[str] | None, typer.Option(help="shell line to run first, e.g. 'module load cuda'; repeatable")] = None,
    max_restarts: Annotated[int | None, typer.Option(help="how often the job may requeue itself  [template: 20]")] = None,
    stage: Annotated[str | None, typer.Option(help="folder on each node's own disk to which the stores are copied first")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the job script without submitting it")] = False,
) -> None:
    """Submit a run as a SLURM job that requeues itself.

    Before its time limit the job saves a checkpoint and requeues itself; the next start continues the same run. For example

    \b
        pretrain submit cxr_moco data.store=cxr.h5 --gpus 4 --dry-run
        pretrain submit cxr_moco data.store=cxr.h5 --nodes 2 --gpus 4       # 8 processes share each batch
        pretrain submit cxr_moco data.store=cxr.h5 --sweep seed=0,1,2 --sweep optim.lr=0.03,0.06 --at-once 4

    --sweep submits one array with a task for each run, called NAME_seed0_lr0.03 and so on. Runs that are finished or in the queue are left
    out, so the same command again submits what failed. `pretrain status`, `logs` and `cancel` take the name of the sweep, and so does
    `transfer submit --after NAME`, which benchmarks its encoders.

    Put the defaults of your cluster into slurm.yaml in the working folder, or into ~/.config/isograft/slurm.yaml; [template: ...] is the
    value if neither file sets the option. For example

    \b
        partition: gpu
        gpus: a100:4
        time: 12:00:00
        sbatch: [--exclude=n1, --reservation=lab]       # further options of sbatch
        setup: [module load cuda, source ~/isograft/.venv/bin/activate]

    The command first checks what would fail in the job: the recipe, a batch that does not divide among the processes, files that other
    nodes cannot see, and a signal to save that would come before the job starts. The speed of this machine only gives an estimate of the
    time. The script is kept as runs/NAME/job.sbatch, and `pretrain status` shows the progress of the run.
    """
    from encoders.runtime import slurm
    from encoders.runtime.errors import InputError
    from encoders.runtime.slurm_site import site_with_options
    from encoders.runtime.sweep_folder import refuse_sweep_name
    from encoders.runtime.wandb_agent import add_agent_settings
    from pretrain.run.slurm_job import JobShape, build_job_script, submit_job

    if at_once is not None and not sweep:
        raise InputError("--at-once limits the runs of a sweep; add --sweep KEY=A,B, or remove it")
    options = {
        "partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpus": gpus, "cpus": cpus, "memory": memory,
        "time": time, "signal_s": signal_s, "mail": mail, "sbatch": sbatch or None, "setup": setup or None, "max_restarts": max_restarts,
        "stage": stage, "at_once": at_once,
    }  # fmt: skip
    site = site_with_options(options)
    if sweep:
        return submit_as_array(recipe, overrides or [], sweep, name, site, JobShape(nodes, procs), dry_run)
    settings = add_agent_settings(overrides or [])
    from pretrain.recipe.config import load_recipe
    from pretrain.run.job_checks import check_job
    from pretrain.run.lifecycle import default_run_name

    refuse_sweep_name(name or default_run_name(recipe))
    resolved = load_recipe(recipe, settings)  # finds errors now, not after hours in the queue
    if resolved.data.store is None:
        raise InputError("data.store is not set: add data.store=FILE.h5")
    run, shape = name or default_run_name(recipe), JobShape(nodes, procs)
    script = build_job_script(run, recipe, settings, site, shape)
    ranks = nodes * shape.count_processes_per_node(script)
    for line in check_job(resolved, script, ranks, slurm.gpus_per_node(script) > 0, site):
        print(line, file=sys.stderr if dry_run else sys.stdout)
    if dry_run:
        print(script, end="")
        return
    job, path = submit_job(run, script)
    print(f"submitted job {job} ({path}), {ranks} process(es); follow it with `pretrain status {run}`")


def stage(recipe: RecipeArgument, overrides: OverridesArgument = None) -> None:
    """Copy a recipe's stores to this node's own disk.

    The environment variable ISOGRAFT_STAGE names the folder. Jobs submitted with --stage run this on every node. For example

    \b
        ISOGRAFT_STAGE=/scratch pretrain stage cxr_moco data.store=cxr.h5
    """
    import socket

    from encoders.runtime.errors import InputError
    from encoders.store import staging
    from pretrain.recipe.config import load_recipe

    folder, stores = staging.staging_dir(), load_recipe(recipe, overrides or []).data.store
    if folder is None or stores is None:
        raise InputError("set ISOGRAFT_STAGE to a folder on this node's own disk, and data.store to the stores to copy")
    for path in staging.stage_stores(stores, folder):
        print(f"{socket.gethostname()}: {path} ({path.stat().st_size:,} bytes)")
