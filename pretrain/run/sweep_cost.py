"""What a sweep costs: runs whose steps cost the same are measured once."""

from collections.abc import Callable, Sequence

import torch

from encoders.runtime.config import json_digest
from pretrain.display.dashboard import format_duration
from pretrain.recipe.config import Recipe
from pretrain.run.plan import plan_run
from pretrain.run.sweep import PlannedRun

# Settings that change neither the time nor the memory of a step, nor what `pretrain plan` checks of a run on this store.
FREE_SETTINGS = {
    "seed", "licence", "pictures", "save_every", "keep_every", "log_every", "max_skipped", "clip", "watch", "steps", "epochs",
    "warmup_steps", "warmup_epochs",
}  # fmt: skip
COSTLY_OPTIM = {"kind"}  # of the settings of the optimizer


def group_by_cost(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """The runs in groups whose steps take the same time and memory, in their order."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        settings = run.recipe.model_dump(mode="json", exclude=FREE_SETTINGS)
        settings["optim"] = {key: settings["optim"][key] for key in COSTLY_OPTIM}
        groups.setdefault(json_digest(settings), []).append(run)
    return list(groups.values())


def count_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Steps of a run."""
    return recipe.steps or max(1, round((recipe.epochs or 1) * steps_per_epoch))


def plan_sweep_cost(runs: Sequence[PlannedRun], device: str, say: Callable[[str], None]) -> None:
    """Says the plan of every group of runs, and what all runs take together.

    Raises InputError for what `pretrain run` would refuse, and if a step does not fit into memory."""
    seconds: list[float] = []
    groups = group_by_cost(runs)
    for number, same in enumerate(groups, 1):
        plan = plan_run(same[0].recipe, device)
        say(f"plan {number} of {len(groups)}: {', '.join(run.name for run in same)}")
        for label, value in plan.rows:
            say(f"{label:14} {value}")
        for note in plan.notes:
            say(f"note: {note}")
        seconds += [plan.cost.median * count_steps(run.recipe, plan.steps_per_epoch) for run in same]
    done = sum(run.is_finished() for run in runs)
    finished = f", of which {done} are finished" * bool(done)
    say(
        f"{'total':14} {format_duration(sum(seconds))} for {len(runs)} runs{finished}, one after the other on this "
        f"{torch.device(device).type}; the longest takes {format_duration(max(seconds))}"
    )
