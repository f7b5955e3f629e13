"""A recipe as a SLURM job: `slurm/pretrain.sbatch` filled in, kept in the run's folder, handed to `sbatch`.

The script is what a person would have written: it can be read, edited and submitted again by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime import paths, slurm
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write

JOB_TEMPLATE = "pretrain.sbatch"


@dataclass(frozen=True)
class JobShape:
    """How many processes train together."""

    nodes: int = 1
    procs: int | None = None  # a node; None: one for each GPU, one on CPU

    def a_node(self, script: str) -> int:
        """Processes on each node of a job whose GPUs stand in `script`."""
        return self.procs or int(slurm.read_directive(script, "gpus-per-node") or 1)


def build_job_script(run: str, recipe: str, overrides: Sequence[str], wants: slurm.Site, shape: JobShape = JobShape()) -> str:
    """The text of the job: the template with this run's arguments, the site's options and its set-up lines.

    Raises InputError when there are more processes on a node than GPUs."""
    options = slurm.sbatch_directives(wants) | {"job-name": run, "chdir": str(Path.cwd()), "nodes": str(shape.nodes)}
    options["output"] = str(paths.runs_dir() / run / "slurm-%j.out")
    lines = [f"export ISOGRAFT_HOME={slurm.quote_path(paths.home_dir())}", *wants.setup]
    if wants.max_restarts is not None:
        lines.append(f"MAX_RESTARTS={wants.max_restarts}")
    if wants.stage:
        lines.append(f'export ISOGRAFT_STAGE="{validate_stage_folder(wants.stage)}"')
    template = slurm.read_template(JOB_TEMPLATE)
    asked = slurm.fill_template(template, options, [], [])
    procs, gpus = shape.a_node(asked), slurm.read_directive(asked, "gpus-per-node")
    if gpus and procs > int(gpus):
        raise InputError(
            f"--procs {procs} with {gpus} GPU(s) a node: each process needs a GPU of its own; raise --gpus, or --gpus 0 for CPU"
        )
    return slurm.fill_template(template, options | {"ntasks-per-node": str(procs)}, [run, recipe, *overrides], lines)


def validate_stage_folder(folder: str) -> str:
    """The folder as it may stand in the script between double quotes: variables such as $SLURM_TMPDIR are for the node to fill in."""
    if any(c in folder for c in '"`\\\n') or "$(" in folder or not folder.startswith(("/", "$")):
        raise InputError(f"--stage {folder!r}: give an absolute folder on the nodes' own disks, or a variable such as $SLURM_TMPDIR")
    return folder


def submit_job(run: str, script_text: str) -> tuple[str, Path]:
    """Writes `runs/<run>/job.sbatch`, submits it, and notes the job in `runs/<run>/jobs.txt`; returns the job's id and the script.

    Raises InputError when this run already has a job in the queue, or SLURM refuses."""
    folder = paths.runs_dir() / run
    busy = slurm.find_active_job(folder)
    if busy is not None:
        raise InputError(f"run {run!r} already has job {busy} in the queue; `scancel {busy}` first, or choose another --name")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "job.sbatch"
    with atomic_write(script) as part:
        part.write_text(script_text)
    job = slurm.submit_script(script)
    slurm.record_job(folder, job)
    return job, script
