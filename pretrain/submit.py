"""A recipe as a SLURM job: `slurm/pretrain.sbatch` filled in, kept in the run's folder, handed to `sbatch`.

The script is what a person would have written: it can be read, edited and submitted again by hand.
"""

from collections.abc import Sequence
from pathlib import Path

from encoders.runtime import home, slurm
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic

TEMPLATE = "pretrain.sbatch"


def job_script(run: str, recipe: str, overrides: Sequence[str], wants: slurm.Site) -> str:
    """The text of the job: the template with this run's arguments, the site's options and its set-up lines."""
    options = slurm.directives(wants) | {"job-name": run, "chdir": str(Path.cwd())}
    options["output"] = str(home.runs_dir() / run / "slurm-%j.out")
    lines = [f"export ISOGRAFT_HOME={slurm.quoted(home.home())}", *wants.setup]
    if wants.max_restarts is not None:
        lines.append(f"MAX_RESTARTS={wants.max_restarts}")
    return slurm.filled(slurm.template(TEMPLATE), options, [run, recipe, *overrides], lines)


def submit(run: str, recipe: str, overrides: Sequence[str], wants: slurm.Site) -> tuple[str, Path]:
    """Writes `runs/<run>/job.sbatch`, submits it, and notes the job in `runs/<run>/jobs.txt`; returns the job's id and the script.

    Raises InputError when this run already has a job in the queue, or SLURM refuses."""
    folder = home.runs_dir() / run
    busy = [job for job in slurm.jobs(folder) if slurm.state(job) in slurm.ALIVE]
    if busy:
        raise InputError(f"run {run!r} already has job {busy[-1]} in the queue; `scancel {busy[-1]}` first, or choose another --name")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "job.sbatch"
    with atomic(script) as part:
        part.write_text(job_script(run, recipe, overrides, wants))
    job = slurm.sbatch(script)
    slurm.noted(folder, job)
    return job, script
