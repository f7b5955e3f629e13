"""A pretraining run as trackers show it: axes, sections, effective settings, tags, and how it ended.

`metrics.jsonl` keeps the names of the loop. Trackers get them in sections, with the images seen and the epoch as axes:

train/      loss and other numbers of the method
optim/      learning rate, gradient norm, skipped steps
selection/  the online k-NN probe: the curve by which checkpoints are chosen, and its best value so far
watch/      other measurements of the watchdog
time/       speed and memory
"""

import math
from collections.abc import Mapping
from typing import cast

import torch

from encoders.runtime import dist, slurm_jobs
from encoders.runtime.devices import describe_device
from encoders.runtime.job_columns import describe_slurm_job, name_gpu
from encoders.runtime.json_types import Json
from encoders.runtime.metrics_log import MetricsLog, read_metrics
from encoders.runtime.optim import peak_lr
from encoders.runtime.tracker import Outcome, SummaryKind
from encoders.zoo.pretraining_columns import count_images_seen, describe_pretraining
from pretrain.loop.setup import Setup
from pretrain.loop.train import TrainState
from pretrain.run.rundir import RunDir, package_versions
from pretrain.watch.best import find_best
from pretrain.watch.diagnose import Finding

AXES = ("images_seen", "epoch")
OPTIM_NUMBERS = ("lr", "grad_norm", "skipped")
KNN = "watch/knn"
# The extreme that a table of runs shows beside the last value.
TRACKED_CURVES: dict[str, SummaryKind] = {
    "train/*": "last",
    "optim/*": "last",
    "selection/*": "last",
    "watch/*": "last",
    "time/*": "last",
    "train/loss": "min",
    "optim/grad_norm": "max",
    "optim/lr": "max",
    "selection/knn": "max",
    "time/images_per_s": "max",
    "time/memory_gib": "max",
}
STOPPED_BY_USER = "SIGINT"
CANCELLED_STATES = ("CANCELLED", "COMPLETING")  # of a job whose processes have just received SIGTERM from `scancel`


class TrackedMetrics:
    """Turns the numbers of a step into those that trackers show."""

    def __init__(self, run: RunDir, setup: Setup):
        self.batch, self.images = setup.recipe.batch, len(setup.corpus.index)
        self.changes = [cast("Mapping[str, Json]", change) for change in run.read().get("changes", [])]
        best = find_best(read_metrics(run.path))
        self.best = (-math.inf, 0) if best is None else (float(best[KNN]), int(best["step"]))

    def __call__(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        seen = count_images_seen(step, self.batch, self.changes)
        shown = {"images_seen": float(seen), "epoch": seen / self.images} | {name_in_section(name): v for name, v in values.items()}
        if math.isfinite(knn := values.get(KNN, math.nan)):
            if knn > self.best[0]:
                self.best = knn, step
            shown |= {"selection/best_knn": self.best[0], "selection/best_step": float(self.best[1])}
        return shown


def name_in_section(name: str) -> str:
    """The name that trackers show for one of metrics.jsonl."""
    if name.startswith(KNN):
        return f"selection/{name.removeprefix('watch/')}"
    return name if "/" in name else f"{'optim' if name in OPTIM_NUMBERS else 'train'}/{name}"


def open_metrics_log(run: RunDir, setup: Setup, state: TrainState) -> MetricsLog:
    """The run's metrics.jsonl, continued at the step of `state`, and the same runs of its trackers."""
    main, recipe = dist.is_main(), setup.recipe
    info = run.read() if main else {}
    metrics_log = MetricsLog(
        run.path,
        group=run.name,
        job_type="pretrain",
        name=run.name,
        config=describe_tracked_settings(setup) if main else None,
        tags=list_run_tags(setup),
        resume=info.get("wandb") or info.get("id"),  # the card holds the run's id, so that benchmarks name their W&B run
        step=state.step,
        rank=dist.rank(),
        track=recipe.track,
        axes=AXES,
        curves=TRACKED_CURVES,
        shown=TrackedMetrics(run, setup) if main else None,
        system_metrics=recipe.system_metrics,
    )
    if main:
        run.update(wandb=metrics_log.id)
    return metrics_log


def describe_tracked_settings(setup: Setup) -> dict[str, object]:
    """The recipe, the columns that benchmarks have too (`encoder`), what the settings became on this data (`effective`), and the job."""
    recipe, world = setup.recipe, dist.world_size()
    columns = describe_pretraining(setup.card.replace(steps=setup.steps)) | {"role": "pretraining"}
    queue = getattr(setup.method, "queue", None)
    effective: dict[str, Json] = {
        "lr": peak_lr(recipe.optim, recipe.batch),
        "steps": setup.steps,
        "warmup_steps": setup.warmup,
        "images": len(setup.corpus.index),
        "batch_per_process": recipe.batch // world // recipe.accumulate,
        "processes": world,
        "precision": recipe.precision,
        "queue": len(queue) if isinstance(queue, torch.Tensor) else None,
    }
    return recipe.model_dump(mode="json") | {
        "encoder": columns,
        "effective": effective,
        "versions": package_versions(),
        "device": describe_device(setup.device),
        "gpu": name_gpu(str(setup.device)) or None,
        "slurm": describe_slurm_job(),
    }


def list_run_tags(setup: Setup) -> tuple[str, ...]:
    """Method, architecture, data set and parent of the run."""
    columns = describe_pretraining(setup.card)
    named = [columns[key] for key in ("method", "architecture", "pretraining_dataset", "modality")]
    return tuple(str(name) for name in ["pretrain", *named] if name)


def send_finding(metrics_log: MetricsLog, finding: Finding) -> None:
    """A diagnosis of the watchdog as an alert."""
    metrics_log.alert(finding.step, finding.name, finding.text, "warning" if finding.alarm else "info")


def decide_outcome(requested: str | None) -> Outcome:
    """How a run ended that was stopped before its last step.  requested: name of the signal, or who else stopped it.

    SIGTERM comes with preemption and with `scancel`: SLURM knows which of them it was. A job whose state SLURM does not tell is not
    taken for cancelled."""
    if requested == "SIGTERM":
        if (job := slurm_jobs.own_job_id()) is None:
            return "cancelled"
        found = slurm_jobs.job_state(job)
        return "cancelled" if found.state in CANCELLED_STATES and not found.preempted else "preempted"
    if requested == "SIGUSR1" or requested is None:  # the time limit, or a signal that another process received
        return "preempted"
    return "cancelled" if requested == STOPPED_BY_USER else "stopped"
