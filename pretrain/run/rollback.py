"""Back to the last good checkpoint with a lower learning rate: a bounded number of times, and written down.

The checkpoint itself is changed first (its learning rate and its list of rollbacks), then everything after it goes: whenever this is
killed, resuming comes to the same place.
"""

from typing import Any

import torch

from encoders.runtime import checkpoint, dist
from pretrain.loop.setup import Setup, build_setup
from pretrain.loop.train import Diverged, TrainState
from pretrain.run.rundir import RunDir
from pretrain.watch import RollbackRequested
from pretrain.watch.diagnose import PATIENCE


def detection_delay(made: Setup, every: int) -> int:
    """Steps that a fault may be at work before it is noticed: a checkpoint must be older to be good."""
    return max(PATIENCE * every, made.recipe.max_skipped)


def is_good_checkpoint(saved: dict[str, Any]) -> bool:
    """Whether a checkpoint can be gone back to: no bad step just before it, and every number of it is one."""
    numbers = (v for v in saved["method"].values() if v.is_floating_point())
    return saved["skipped"] == 0 and all(bool(torch.isfinite(v).all()) for v in numbers)


def roll_back(run: RunDir, made: Setup, state: TrainState, why: Diverged | RollbackRequested, every: int, contents: Any) -> int:
    """Prepares the checkpoint to go on from, and returns its step; with none good, step 0 is made anew.

    contents: (Setup, State) -> what a checkpoint holds.  Raises Diverged when it was done `watch.max_rollbacks` times already."""
    cfg = made.recipe.watch
    if len(state.rollbacks) >= cfg.max_rollbacks:
        raise Diverged(f"{why} (rolled back {len(state.rollbacks)} times; watch.max_rollbacks={cfg.max_rollbacks})") from why
    found = next((s for s in iter_readable_checkpoints(run, state.step - detection_delay(made, every)) if is_good_checkpoint(s)), None)
    if found is None:
        fresh = build_setup(made.recipe, str(made.device))
        fresh.batches.close()
        fresh.card = made.card
        found = contents(fresh, TrainState())
    factor = state.lr_factor * cfg.lr_factor
    told = {"at_step": state.step, "to_step": found["step"], "lr_factor": factor, "why": short_reason(why)}
    found |= {"lr_factor": factor, "rollbacks": [*state.rollbacks, told]}
    if dist.is_main():
        checkpoint.save_checkpoint(checkpoint.checkpoint_path(run.checkpoints, found["step"]), found)
        for step in reversed(checkpoint.list_steps(run.checkpoints)):
            if step > found["step"]:
                checkpoint.checkpoint_path(run.checkpoints, step).unlink(missing_ok=True)
        run.update(rollbacks=found["rollbacks"], step=found["step"])
    dist.barrier()
    return int(found["step"])


def short_reason(why: Exception) -> str:
    """What happened, without the advice: that is for a run that gives up."""
    return str(why).partition("; ")[0]


def iter_readable_checkpoints(run: RunDir, newest: int) -> Any:
    """The readable checkpoints of the steps up to `newest`, the newest first."""
    for step in reversed([s for s in checkpoint.list_steps(run.checkpoints) if s <= newest]):
        try:
            yield checkpoint.load_checkpoint(checkpoint.checkpoint_path(run.checkpoints, step))
        except checkpoint.DamagedCheckpoint:
            continue  # resuming tells of it; here an older one is as good
