"""The table of `pretrain status`: one row per run."""

import time

from encoders.runtime import slurm
from encoders.runtime.metrics_log import read_metrics
from pretrain.display.dashboard import format_duration
from pretrain.run.lock import is_run_alive
from pretrain.run.run_info import RunInfo
from pretrain.run.rundir import RunDir

STATUS_HEADER = ("run", "state", "step", "loss", "images/s", "left", "last line", "SLURM job")


def status_row(run: RunDir) -> tuple[str, ...]:
    """The row of a run, in the order of STATUS_HEADER."""
    info, lines = run.read(), read_metrics(run.path)
    last = lines[-1] if lines else {}
    steps = int(info["steps"])
    step = max(int(last.get("step", 0)), int(info.get("step", 0)))  # a checkpoint may be newer than the last logged line
    state = info["status"]
    if state == "running" and not is_run_alive(run):
        state = "died"  # `pretrain resume` continues it
    if run.requeue_marker.exists():
        state = "to be resumed"
    rate = float(last.get("time/images_per_s", 0.0))
    seconds_per_step = rate and float(last.get("time/s_per_step", 0.0))
    left = format_duration((steps - step) * seconds_per_step) if state == "running" and seconds_per_step else ""
    age = f"{format_duration(time.time() - float(last['time']))} ago" if last else ""
    loss = f"{last['loss']:.4f}" if last else ""
    return run.name, state, f"{step}/{steps}", loss, f"{rate:.0f}" if rate else "", left, age, describe_job(info)


def describe_job(info: RunInfo) -> str:
    """The run's last SLURM job and its state, e.g. `123 RUNNING`; "" without one."""
    job = next((job for session in reversed(info["sessions"]) if (job := session.get("slurm_job"))), None)
    return f"{job} {slurm.job_state(job)}".strip() if job else ""
