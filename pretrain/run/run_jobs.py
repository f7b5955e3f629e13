"""The SLURM jobs of a run, and its log."""

from pathlib import Path

from encoders.runtime import paths, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.log_tail import find_newest_log
from encoders.runtime.slurm_jobs import JobState
from encoders.runtime.sweep_folder import SweepFolder
from pretrain.run.rundir import RunDir, find_run, run_dir_for


def is_submitted(run: RunDir) -> bool:
    """Whether a job of the run was submitted that has not started to train yet."""
    return not run.exists() and bool(slurm_jobs.list_jobs(run.path))


def list_submitted_runs() -> list[RunDir]:
    """The runs in runs/ whose job was submitted and has not started to train, by name."""
    folder = paths.runs_dir()
    return [run for path in sorted(folder.iterdir()) if is_submitted(run := RunDir(path))] if folder.is_dir() else []


def find_started_or_submitted(name: str) -> RunDir:
    """The folder of a run that exists or was submitted. Raises InputError that names the closest existing runs."""
    waiting = run_dir_for(Path(name).name)
    return waiting if is_submitted(waiting) else find_run(name)


def list_sweep_runs(sweep: SweepFolder) -> list[RunDir]:
    """The folders of the runs of a sweep, in its order; some may not exist yet."""
    info = sweep.read()
    return [run_dir_for(run.name, Path(info.folder) if info.folder else None) for run in info.runs]


def list_job_ids(run: RunDir) -> list[str]:
    """The ids of the run's jobs, oldest first: those that were submitted, and those that worked on it."""
    worked = [job for session in run.read()["sessions"] if (job := session.get("slurm_job"))] if run.exists() else []
    ids = dict.fromkeys([*slurm_jobs.list_jobs(run.path), *worked])
    return sorted(ids, key=slurm_jobs.job_order)


def newest_job(run: RunDir) -> JobState | None:
    """The run's newest job; None without one."""
    ids = list_job_ids(run)
    return slurm_jobs.job_state(ids[-1]) if ids else None


def find_log(run: RunDir, job: JobState | None) -> Path | None:
    """The log of the run's newest job: the file that SLURM names, that of its array task, or else the newest one in the run's folder."""
    if job and job.log and job.log.is_file():
        return job.log
    newest = list_job_ids(run)[-1:]
    of_a_sweep = [log for each in newest if "_" in each for log in paths.sweeps_dir().glob(f"*/slurm-{each}.out")]
    return of_a_sweep[0] if of_a_sweep else find_newest_log(run.path)


def cancel_sweep(sweep: SweepFolder) -> list[str]:
    """Cancels the active jobs of all runs of a sweep; returns their ids. Raises InputError when there is none, or SLURM refuses one."""
    jobs = [job for run in list_sweep_runs(sweep) if (job := slurm_jobs.find_active_job(run.path))]
    if not jobs:
        raise InputError(f"sweep {sweep.name!r} has no job in the queue; `pretrain status {sweep.name}` shows the states of its runs")
    refused = [f"{job}: {message}" for job in jobs if (message := slurm_jobs.cancel_job(job))]
    if refused:
        raise InputError(f"SLURM did not cancel {len(refused)} of {len(jobs)} jobs of sweep {sweep.name!r}: {'; '.join(refused)}")
    return jobs


def cancel_run(run: RunDir) -> str:
    """Cancels the active job of a run; returns its id. Raises InputError when there is none, or SLURM refuses."""
    job = slurm_jobs.find_active_job(run.path) or next((j for j in reversed(list_job_ids(run)) if slurm_jobs.job_state(j).is_active), None)
    if job is None:
        raise InputError(f"run {run.name!r} has no job in the queue; `pretrain status {run.name}` shows its state")
    if message := slurm_jobs.cancel_job(job):
        raise InputError(f"SLURM did not cancel job {job} of run {run.name!r}: {message}")
    return job
