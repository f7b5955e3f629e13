"""What a submitted benchmark waits for: SLURM jobs, a run, or all runs of a sweep."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.errors import unknown_name_error
from encoders.runtime.sweep_folder import find_sweep, list_sweeps

JOB_ID = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class Dependencies:
    """The jobs before a benchmark. succeeded: with status 0, otherwise SLURM cancels the benchmark.  ended: with any status.

    The runs of a sweep need only end: array tasks of an encoder that does not exist then fail with the reason, and the others do not."""

    succeeded: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()

    def __add__(self, other: "Dependencies") -> "Dependencies":
        return Dependencies(tuple(dict.fromkeys(self.succeeded + other.succeeded)), tuple(dict.fromkeys(self.ended + other.ended)))

    def options(self) -> list[str]:
        """The options of `sbatch`."""
        parts = [f"afterok:{':'.join(self.succeeded)}"] * bool(self.succeeded) + [f"afterany:{':'.join(self.ended)}"] * bool(self.ended)
        return [f"--dependency={','.join(parts)}", "--kill-on-invalid-dep=yes"] if parts else []


def depend_on_job(job: str) -> Dependencies:
    """The dependency on the job of a pretraining run: an element of an array is a run of a sweep."""
    return Dependencies(ended=(job,)) if "_" in job else Dependencies(succeeded=(job,))


def parse_after(names: Sequence[str]) -> tuple[Dependencies, list[str]]:
    """The dependencies that `--after` names, and the sweeps and runs among them, which name encoders.

    names: ids of jobs, names of runs and of sweeps. Raises InputError for another name. A run or sweep without a job in the queue has
    ended, and is not waited for."""
    found, encoders = Dependencies(), []
    for name in names:
        if JOB_ID.fullmatch(name):
            found += Dependencies(succeeded=(name,))
            continue
        sweep = find_sweep(name)
        runs = sweep.run_names() if sweep else [name]
        jobs = [job for run in runs if (job := slurm_jobs.find_active_job(paths.runs_dir() / run))]
        if sweep is None and not (paths.runs_dir() / name / "jobs.txt").is_file() and not (paths.runs_dir() / name / "run.json").is_file():
            folder = paths.runs_dir()
            known = [path.name for path in sorted(folder.iterdir())] if folder.is_dir() else []
            raise unknown_name_error("job, run or sweep", name, [*known, *(each.name for each in list_sweeps())])
        found += Dependencies(ended=tuple(jobs)) if sweep else Dependencies(succeeded=tuple(jobs))
        encoders.append(name)
    return found, encoders
