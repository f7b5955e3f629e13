"""The table of `pretrain status`: one row per run, from its files, its process and its SLURM job."""

import time
from typing import NamedTuple

from encoders.runtime.entry_names import find_fault, show_name
from encoders.runtime.errors import InputError
from encoders.runtime.log_tail import read_log_tail
from encoders.runtime.metrics_log import read_metrics_counting_damage
from encoders.runtime.slurm_jobs import JobState
from pretrain.display.dashboard import format_duration
from pretrain.display.time_left import estimate_seconds_left
from pretrain.run.lock_holder import is_run_alive, read_lock
from pretrain.run.run_info import RunInfo
from pretrain.run.run_jobs import find_log, list_job_ids, newest_job
from pretrain.run.rundir import RunDir

STATUS_HEADER = ("run", "state", "step", "loss", "images/s", "left", "last line", "SLURM job")
LOG_LINES = 6  # shown of a run that failed
# What a job that has not started to train is doing, by its state in SLURM; in all other states it failed.
WAITING_STATES = {"PENDING": "queued", "REQUEUED": "queued", "REQUEUE_HOLD": "held", "SUSPENDED": "suspended", "CANCELLED": "cancelled"}
STARTING_STATES = ("CONFIGURING", "RUNNING", "COMPLETING")


class RunStatus(NamedTuple):
    """What `pretrain status` shows of a run."""

    row: tuple[str, ...]  # in the order of STATUS_HEADER
    details: list[str]  # lines below the table: the log, and its end if the run failed


def describe_run(run: RunDir, named: bool = False) -> RunStatus:
    """The status of a run that exists or was submitted.  named: the user asked for this run, and sees where its log is."""
    return _describe_started(run, named) if run.exists() else _describe_submitted(run, named)


def describe_listed_run(run: RunDir) -> RunStatus:
    """The status of a run that nobody asked for by its name: one with an invalid name, or that cannot be read, is flagged as such."""
    empty = [""] * (len(STATUS_HEADER) - 2)
    if wrong := find_fault("run", run.name):
        name = show_name(run.name)
        return RunStatus((name, "invalid name", *empty), [f"{name}: {wrong}; rename its folder in {run.path.parent}"])
    try:
        return describe_run(run)
    except InputError as error:
        return RunStatus((run.name, "unreadable", *empty), [f"{run.name}: {error}"])


def _describe_submitted(run: RunDir, named: bool) -> RunStatus:
    ids = list_job_ids(run)
    if not ids:  # a run of a sweep that is still to come
        return RunStatus((run.name, "not started", *[""] * (len(STATUS_HEADER) - 2)), [])
    job = newest_job(run) or JobState("")
    if not job.state:
        state = "not started"  # SLURM has forgotten the job, or is not reachable from here
    elif job.state in STARTING_STATES:
        state = "starting"
    else:
        state = WAITING_STATES.get(job.state, "failed")
    failed = state in ("failed", "not started")
    return RunStatus((run.name, state, "", "", "", "", "", _describe_job(ids[-1], job)), _describe_log(run, job, failed, named))


def _describe_started(run: RunDir, named: bool) -> RunStatus:
    info, (lines, damaged) = run.read(), read_metrics_counting_damage(run.path)
    last = lines[-1] if lines else {}
    steps = int(info["steps"])
    step = max(int(last.get("step", 0)), int(info.get("step", 0)))  # a checkpoint may be newer than the last logged line
    ids = list_job_ids(run)
    job = newest_job(run) if ids and (named or info["status"] != "finished") else None  # a finished run is not asked about
    state, fault = _read_state(run, info["status"], job), _find_fault(info)
    if "but collapsed" in fault:
        state = "collapsed"
    rate = float(last.get("time/images_per_s", 0.0))
    seconds = estimate_seconds_left(lines, steps) if state == "running" else None
    left = "" if seconds is None else format_duration(seconds)
    age = f"{format_duration(max(time.time() - float(last['time']), 0.0))} ago" if "time" in last else ""
    loss = f"{last['loss']:.4f}" if "loss" in last else ""
    described = _describe_job(ids[-1], job) if ids else ""
    row = (run.name, state, f"{step}/{steps}", loss, f"{rate:.0f}" if rate else "", left, age, described)
    notes = [f"{run.name}: {fault}"] if fault else []
    notes += [f"{run.name}: {damaged} lines of metrics.jsonl are damaged and left out"] if damaged else []
    return RunStatus(row, [*notes, *_describe_log(run, job, state == "died", named)])


def _read_state(run: RunDir, recorded: str, job: JobState | None) -> str:
    """The state in words, from what run.json records, the process that holds the lock, and the newest job."""
    alive = is_run_alive(run)
    if alive and job and job.state and not job.is_active and read_lock(run).get("job") == job.job:
        alive = False  # its node is another one, or failed; SLURM knows that the job has ended
    if recorded == "running" and alive:
        return "running"
    if job and job.is_active and recorded != "finished":
        return "starting" if job.state in STARTING_STATES else "to be resumed"
    if run.requeue_marker.exists() and not (job and job.state):
        return "to be resumed"  # SLURM cannot be asked
    if recorded != "running":
        return recorded
    return "cancelled" if job and job.state == "CANCELLED" else "died"  # `pretrain resume` continues it


def _find_fault(info: RunInfo) -> str:
    """The verdict on a finished run whose encoder is not sound; "" for any other run."""
    verdict = info.get("verdict")
    is_faulty = verdict is not None and info["status"] == verdict["status"] == "finished" and verdict["grade"] != "good"
    return verdict["sentence"] if is_faulty and verdict is not None else ""


def _describe_job(job_id: str, job: JobState | None) -> str:
    return f"{job_id} {job.describe() if job else ''}".strip()


def _describe_log(run: RunDir, job: JobState | None, failed: bool, named: bool) -> list[str]:
    """Where the log is, and its last lines if the run failed; nothing about a run that is well, unless the user asked for it."""
    log = find_log(run, job)
    if log is None or not (failed or named):
        return []
    tail = [f"  | {line}" for line in read_log_tail(log, LOG_LINES)] if failed else []
    return [f"{run.name}: log {log}", *tail]
