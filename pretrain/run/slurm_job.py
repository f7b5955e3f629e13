"""A pretraining run as a SLURM job: `slurm/pretrain.sbatch` filled in, kept in the run's folder, and submitted with `sbatch`.

The filled script is readable: it can be edited and submitted again by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime import paths, slurm, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.exclusive import exclusive_work
from encoders.runtime.files import atomic_write
from encoders.runtime.slurm_site import Site
from encoders.runtime.wandb_agent import export_lines

JOB_TEMPLATE = "pretrain.sbatch"


@dataclass(frozen=True)
class JobShape:
    """Nodes and processes that train together."""

    nodes: int = 1
    processes_per_node: int | None = None  # None: one per GPU, or one without GPUs

    def count_processes_per_node(self, script: str) -> int:
        """Processes on each node.  script: job script that states the GPUs per node."""
        return self.processes_per_node or slurm.gpus_per_node(script) or 1


def build_job_script(run: str, recipe: str, overrides: Sequence[str], site: Site, shape: JobShape = JobShape()) -> str:
    """The text of the job script: the template with this run's arguments, the site's options and its set-up lines.

    Raises InputError when a node has more processes than GPUs."""
    return fill_job_template(run, paths.runs_dir() / run / "slurm-%j.out", [run, recipe, *overrides], site, shape)


def fill_job_template(name: str, output: Path, arguments: Sequence[str], site: Site, shape: JobShape) -> str:
    """The template for a job called `name`, with the arguments of the script itself and the place of its log.

    Raises InputError when a node has more processes than GPUs."""
    options = slurm.sbatch_directives(site) | {"job-name": name, "chdir": str(Path.cwd()), "nodes": str(shape.nodes)}
    options["output"] = slurm.log_pattern(output.parent, output.name)
    template = slurm.read_template(JOB_TEMPLATE)
    script = slurm.fill_template(template, options, [], [])
    processes, gpus = shape.count_processes_per_node(script), slurm.gpus_per_node(script)
    lines = slurm.setup_lines(site, gpus > 0)
    lines += export_lines()
    if site.max_restarts is not None:
        lines.append(f"MAX_RESTARTS={site.max_restarts}")
    if site.stage:
        lines.append(f'export ISOGRAFT_STAGE="{validate_stage_folder(site.stage)}"')
    if gpus and processes > gpus:
        raise InputError(
            f"--procs {processes} with {gpus} GPU(s) per node: each process needs its own GPU; raise --gpus, or --gpus 0 for CPU"
        )
    return slurm.fill_template(template, options | {"ntasks-per-node": str(processes)}, arguments, lines)


def validate_stage_folder(folder: str) -> str:
    """`folder`, if it is safe between double quotes in the script. Variables such as $SLURM_TMPDIR are expanded on the node."""
    if any(c in folder for c in '"`\\\n') or "$(" in folder or not folder.startswith(("/", "$")):
        raise InputError(f"--stage {folder!r}: give an absolute folder on the nodes' own disks, or a variable such as $SLURM_TMPDIR")
    return folder


def submit_job(run: str, script_text: str) -> tuple[str, Path]:
    """Writes `runs/<run>/job.sbatch`, submits it, and adds the job to `runs/<run>/jobs.txt`; returns the job's id and the script.

    Raises InputError when the run already has an active job, or SLURM rejects the script."""
    folder = paths.runs_dir() / run
    with exclusive_work(folder, f"submitting run {run!r}"):
        return _submit_to(folder, run, script_text)


def _submit_to(folder: Path, run: str, script_text: str) -> tuple[str, Path]:
    active = slurm_jobs.find_active_job(folder)
    if active is not None:
        raise InputError(
            f"run {run!r} already has job {active} in the queue; cancel it with `pretrain cancel {run}`, or choose another --name"
        )
    script = folder / "job.sbatch"
    new = [path for path in (script, folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(script) as part:
        part.write_text(script_text)
    try:
        job = slurm.submit_script(script)
    except InputError:
        for path in new:  # a refused job leaves nothing behind
            path.unlink() if path == script else path.rmdir()
        raise
    slurm_jobs.record_job(folder, job)
    return job, script
