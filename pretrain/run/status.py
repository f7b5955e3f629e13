"""How far each run is."""

import time
from typing import Any

from encoders.runtime import slurm
from encoders.runtime.metrics_log import read_metrics
from pretrain.display.dashboard import format_duration
from pretrain.run import rundir
from pretrain.run.rundir import RunDir

STATUS_HEADER = ("run", "state", "step", "loss", "images/s", "left", "last line", "SLURM job")


def status_row(run: RunDir) -> tuple[str, ...]:
    """One line of the table, in the order of HEADER."""
    told, lines = run.read(), read_metrics(run.path)
    last: dict[str, Any] = lines[-1] if lines else {}
    step, steps = max(int(last.get("step", 0)), int(told.get("step", 0))), int(told["steps"])  # saved between two lines, or told after
    state = told["status"]
    if state == "running" and not rundir.is_run_alive(run):
        state = "died"  # `pretrain resume` goes on
    if run.requeue.exists():
        state = "to be resumed"
    rate = float(last.get("time/images_per_s", 0.0))
    batch = rate and float(last.get("time/s_per_step", 0.0))
    left = format_duration((steps - step) * batch) if state == "running" and batch else ""
    age = f"{format_duration(time.time() - float(last['time']))} ago" if last else ""
    loss = f"{last['loss']:.4f}" if last else ""
    return run.name, state, f"{step}/{steps}", loss, f"{rate:.0f}" if rate else "", left, age, describe_job(told)


def describe_job(told: dict[str, Any]) -> str:
    """The run's last SLURM job and what SLURM says of it."""
    job = next((s["slurm_job"] for s in reversed(told["sessions"]) if s.get("slurm_job")), None)
    return f"{job} {slurm.job_state(job)}".strip() if job else ""
