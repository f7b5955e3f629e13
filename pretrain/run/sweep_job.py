"""A sweep as one SLURM array: an element per run that is neither finished nor in the queue.

Every element resumes and requeues itself as the job of a single run does. Its id, `<array>_<element>`, is recorded in its run's folder.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from encoders.runtime import slurm, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.slurm_site import Site
from encoders.runtime.sweep_folder import SweepFolder
from pretrain.run.slurm_job import JobShape, fill_job_template
from pretrain.run.sweep import PlannedRun, PlannedSweep, list_commands

LOG_NAME = "slurm-%A_%a.out"


class SweepQueue(NamedTuple):
    """The runs of a command by what is to be done with them; together they are all of its runs."""

    todo: list[PlannedRun]
    finished: list[PlannedRun]
    queued: dict[str, str]  # name of the run -> its job

    def describe(self) -> str:
        """The number of runs of each kind, e.g. `6 runs: 3 to submit, 2 finished, 1 in the queue (12_4)`."""
        parts = [f"{len(self.todo)} to submit"]
        parts += [f"{len(self.finished)} finished"] * bool(self.finished)
        parts += [f"{len(self.queued)} in the queue ({', '.join(self.queued.values())})"] * bool(self.queued)
        return f"{len(self.todo) + len(self.finished) + len(self.queued)} runs: {', '.join(parts)}"


def sort_runs(sweep: PlannedSweep) -> SweepQueue:
    """Which runs are to be submitted."""
    todo, finished, queued = [], [], {}
    for run in sweep.runs:
        if run.is_finished():
            finished.append(run)
        elif job := run.active_job():
            queued[run.name] = job
        else:
            todo.append(run)
    return SweepQueue(todo, finished, queued)


def build_sweep_script(sweep: PlannedSweep, site: Site, shape: JobShape) -> str:
    """The text of the job script of the array. Raises InputError when a node has more processes than GPUs."""
    folder = sweep.folder
    return fill_job_template(folder.name, folder.path / LOG_NAME, [str(folder.commands_file)], site, shape)


def submit_sweep(sweep: PlannedSweep, todo: Sequence[PlannedRun], script_text: str, at_once: int | None) -> tuple[str, Path]:
    """Writes the sweep's folder and submits the runs `todo` as one array; returns the array's id and the script.

    at_once: elements that may run at a time. Raises InputError, and leaves the folders as they were, when SLURM rejects the script, and
    when the runs are not in runs/, where jobs write."""
    if sweep.info.folder is not None:
        raise InputError(f"the runs of sweep {sweep.folder.name!r} are in {sweep.info.folder}: jobs write to runs/; choose another --name")
    folder, script = sweep.folder, sweep.folder.path / "job.sbatch"
    commands = "".join(f"{shlex.join(words)}\n" for words in list_commands(sweep.info))
    new = not folder.path.exists()
    earlier = {path: path.read_text() for path in (script, folder.commands_file) if path.is_file()}
    for path, text in ((folder.commands_file, commands), (script, script_text)):
        _write_text(path, text)
    try:
        array = slurm.submit_script(script, f"--array={slurm.format_array([run.number for run in todo], at_once)}")
    except InputError:
        _restore(folder, (script, folder.commands_file), earlier, new)
        raise
    folder.write(sweep.info)
    slurm_jobs.record_job(folder.path, array)
    for run in todo:
        run.folder.path.mkdir(parents=True, exist_ok=True)
        slurm_jobs.record_job(run.folder.path, f"{array}_{run.number}")
    return array, script


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(text)


def _restore(folder: SweepFolder, files: Sequence[Path], earlier: dict[Path, str], new: bool) -> None:
    """The files as they were before a submission that was refused."""
    for path in files:
        if path in earlier:
            _write_text(path, earlier[path])
        else:
            path.unlink(missing_ok=True)
    if new:
        folder.path.rmdir()
        if not any(folder.path.parent.iterdir()):
            folder.path.parent.rmdir()
