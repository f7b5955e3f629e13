"""What `pretrain submit` checks before a job waits in the queue: files, batch and time limit."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from encoders.runtime import paths, slurm
from encoders.runtime.devices import resolve_device
from encoders.runtime.errors import InputError
from encoders.runtime.slurm_site import Site
from encoders.runtime.slurm_values import parse_time_limit
from encoders.store.store import expand_paths
from pretrain.display.dashboard import format_duration
from pretrain.loop.setup import Setup, build_setup, describe_adjustments
from pretrain.recipe.config import Recipe
from pretrain.run.plan import describe_sizes, list_warnings
from pretrain.run.step_cost import measure_step_cost

NODE_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # on a Linux node these are its own


def require_shared_paths(files: Sequence[Path], shared: Sequence[str]) -> None:
    """Raises InputError for a path that other nodes cannot see: below a node-local folder, and not below a folder in `shared`."""
    for path in files:
        full = path.resolve()
        if any(full.is_relative_to(Path(folder).resolve()) for folder in shared):
            continue
        local = next((folder for folder in NODE_LOCAL_FOLDERS if full.is_relative_to(folder)), None)
        if local:
            raise InputError(
                f"{full} is below {local}, which is local to each node: the job would not find it. Move it to a file system that all nodes "
                f"share; if {local} is shared, declare it in slurm.yaml: shared: [{_quote_for_yaml(full.parent)}]"
            )


def _quote_for_yaml(path: Path) -> str:
    """The path as an element of a list in YAML."""
    return str(path) if re.fullmatch(r"[\w./ -]+", str(path)) else json.dumps(str(path), ensure_ascii=False)


def require_even_batch(recipe: Recipe, ranks: int) -> None:
    """Raises InputError when the batch cannot be divided evenly among the processes and micro-batches."""
    if recipe.batch % (ranks * recipe.accumulate):
        unit = ranks * recipe.accumulate
        nearest = max(round(recipe.batch / unit), 1) * unit
        raise InputError(
            f"batch={recipe.batch} cannot be divided among {ranks} processes x accumulate={recipe.accumulate}: use batch={nearest}"
        )


def require_time_to_save(limit_s: int | None, notice_s: int) -> None:
    """Raises InputError when the signal to save would come before the job starts.

    limit_s: time limit of one start, None without one.  notice_s: seconds before it at which the signal comes."""
    if limit_s is not None and notice_s >= limit_s:
        raise InputError(f"the signal to save comes {notice_s} s before the time limit of {limit_s} s: raise --time or lower --signal-s")


def describe_time_to_checkpoint(seconds_per_step: float, save_every: int, limit_s: int, notice_s: int) -> str:
    """A note when a start would end before its first regular checkpoint at the given speed; "" otherwise.

    It is no error: the speed of a login node is not that of the job, and the signal before the time limit saves a checkpoint as well."""
    available, needed = limit_s - notice_s, seconds_per_step * save_every
    if needed <= available:
        return ""
    return (
        f"note: at the speed of this machine save_every={save_every} steps take about {format_duration(needed)}, and a start has "
        f"{format_duration(available)} ({format_duration(limit_s)} minus {notice_s} s); if the job is not faster, a killed process loses "
        f"up to a whole start: lower save_every, or raise --time"
    )


def check_job(recipe: Recipe, script: str, ranks: int, gpus: bool, site: Site) -> list[str]:
    """The lines of `pretrain plan` for the job. Raises InputError for what cannot work.

    script: the filled job script, which holds the limits. Speed is measured for a CPU job, or if this machine has a GPU."""
    files = [*expand_paths(recipe.data.store or []), paths.runs_dir(), paths.home_dir()]
    require_shared_paths([*files, *(Path(keys) for keys in (recipe.data.keys, recipe.data.label_keys) if keys)], site.shared)
    require_even_batch(recipe, ranks)
    limit = parse_time_limit(slurm.read_directive(script, "time") or "0")
    notice = int((slurm.read_directive(script, "signal") or "USR1@0").partition("@")[2])
    require_time_to_save(limit, notice)
    setup = build_setup(recipe, resolve_device(fall_back=True) if gpus else "cpu")
    lines = [f"{name:14} {value}" for name, value in describe_sizes(setup)]
    lines += [f"note: {note}" for note in describe_adjustments(setup) + list_warnings(setup)]
    if gpus and setup.device.type == "cpu":
        return [*lines, "note: this machine has no GPU, so the training time was not estimated"]
    return [*lines, *estimate_job_time(setup, ranks, limit, notice)]


def estimate_job_time(setup: Setup, ranks: int, limit: int | None, notice: int) -> list[str]:
    """The least time that the run takes at the speed of this machine, and a note when that is long for the time limit.

    limit, notice: seconds of one start, and seconds before its end at which it saves."""
    share = setup.recipe.model_copy(update={"batch": setup.recipe.batch // ranks})  # of one process; communication is not counted
    try:
        step = measure_step_cost(share, str(setup.device)).median
    except (InputError, subprocess.CalledProcessError) as error:  # a login node has less memory, and limits of its own
        return [f"note: the time was not estimated: {error}"]
    line = f"{'time':14} at least {format_duration(step * setup.steps)} with {ranks} processes like this one"
    if limit is None:
        return [line]
    starts = -(-step * setup.steps // (limit - notice))
    note = describe_time_to_checkpoint(step, min(setup.recipe.save_every, setup.steps), limit, notice)
    return [f"{line}, in about {starts:.0f} start(s)", *([note] if note else [])]
