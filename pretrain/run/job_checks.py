"""What cannot work as a job, told before it waits in the queue."""

from collections.abc import Sequence
from pathlib import Path

from encoders.runtime import paths as home
from encoders.runtime import slurm
from encoders.runtime.errors import InputError
from encoders.store.store import expand_paths
from pretrain.loop.setup import Setup, build_setup, describe_adjustments
from pretrain.recipe.config import Recipe
from pretrain.run.monitor import format_duration
from pretrain.run.plan import describe_sizes, list_warnings, measure_speed

NODE_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # on every Linux: the node's own


def require_shared_paths(paths: Sequence[Path], shared: Sequence[str]) -> None:
    """Raises InputError for a path that other nodes cannot see: below a folder that each machine has for itself."""
    for path in paths:
        full = path.resolve()
        if any(full.is_relative_to(Path(known).resolve()) for known in shared):
            continue
        own = next((folder for folder in NODE_LOCAL_FOLDERS if full.is_relative_to(folder)), None)
        if own:
            raise InputError(
                f"{full} is below {own}, which each node has for itself: the job would not find it. Move it to a file system that all "
                f"nodes share; if they do share it, say so in slurm.yaml: shared: [{full.parent}]"
            )


def require_even_batch(recipe: Recipe, ranks: int) -> None:
    """Raises InputError when the batch cannot be dealt out evenly."""
    if recipe.batch % (ranks * recipe.accumulate):
        unit = ranks * recipe.accumulate
        near = max(round(recipe.batch / unit), 1) * unit
        raise InputError(
            f"batch={recipe.batch} cannot be dealt out to {ranks} processes x accumulate={recipe.accumulate}: try batch={near}"
        )


def require_time_to_checkpoint(seconds_a_step: float, save_every: int, limit_s: int, notice_s: int) -> None:
    """Raises InputError when a start would end before its first checkpoint is due, at the speed given."""
    room, need = limit_s - notice_s, seconds_a_step * save_every
    if room <= 0:
        raise InputError(f"the job is told to save {notice_s} s before its limit of {limit_s} s: raise --time or lower --signal-s")
    if need > room:
        raise InputError(
            f"save_every={save_every} steps take about {format_duration(need)} at the speed of this machine divided evenly, and a start has "
            f"{format_duration(room)} ({format_duration(limit_s)} less {notice_s} s): lower save_every, or raise --time"
        )


def check_job(recipe: Recipe, script: str, ranks: int, gpus: bool, wants: slurm.Site) -> list[str]:
    """What `pretrain plan` says of the job, as lines. Raises InputError for what cannot work.

    script: the filled job script, which knows the limits. Speed is measured for a CPU job, or where this machine has a GPU."""
    import torch

    files = [*expand_paths(recipe.data.store or []), home.runs_dir(), home.home_dir()]
    require_shared_paths(files + ([Path(recipe.data.keys)] if recipe.data.keys else []), wants.shared)
    require_even_batch(recipe, ranks)
    limit = slurm.parse_time_limit(slurm.read_directive(script, "time") or "0")
    notice = int((slurm.read_directive(script, "signal") or "USR1@0").partition("@")[2])
    require_time_to_checkpoint(0.0, recipe.save_every, limit, notice)
    made = build_setup(recipe, "cuda" if gpus and torch.cuda.is_available() else "cpu")
    said = [f"{what:14} {value}" for what, value in describe_sizes(made)] + [
        f"note: {note}" for note in describe_adjustments(made) + list_warnings(made)
    ]
    if gpus and not torch.cuda.is_available():
        return [*said, "note: this machine has no GPU, so the time was not estimated"]
    return [*said, estimate_job_time(made, ranks, limit, notice)]


def estimate_job_time(made: Setup, ranks: int, limit: int, notice: int) -> str:
    """How long the run takes at best. Raises InputError as `in_time`."""
    step = measure_speed(made, str(made.device))[0] * made.recipe.batch / ranks  # as if nothing were lost to communication
    require_time_to_checkpoint(step, min(made.recipe.save_every, made.steps), limit, notice)
    starts = -(-step * made.steps // (limit - notice))
    return (
        f"{'time':14} {format_duration(step * made.steps)} at best with {ranks} process(es) like this one, in about {starts:.0f} start(s)"
    )
