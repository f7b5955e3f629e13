"""Rollback: back to the last good checkpoint with a lower learning rate, a limited number of times, and recorded.

The checkpoint is rewritten first, with the new learning rate and its list of rollbacks; later checkpoints are deleted after that. If
the process is killed in between, resuming arrives at the same state.
"""

from collections.abc import Iterator

import torch

from encoders.runtime import checkpoint, dist
from pretrain.loop.setup import Setup, build_setup
from pretrain.loop.train import Diverged, TrainState
from pretrain.run.restore import CheckpointContents, checkpoint_contents, read_checkpoint
from pretrain.run.rundir import RunDir
from pretrain.watch.diagnose import PATIENCE
from pretrain.watch.watchdog import RollbackRequested


def detection_delay(setup: Setup, probe_interval: int) -> int:
    """Steps that may pass before a fault is detected: a good checkpoint is older than that."""
    return max(PATIENCE * probe_interval, setup.recipe.max_skipped)


def is_good_checkpoint(saved: CheckpointContents) -> bool:
    """Whether a checkpoint can be rolled back to: its last step was accepted, and all numbers of the method are finite."""
    floats = (v for v in saved["method"].values() if v.is_floating_point())
    return saved["skipped"] == 0 and all(bool(torch.isfinite(v).all()) for v in floats)


def roll_back(run: RunDir, setup: Setup, state: TrainState, error: Diverged | RollbackRequested, probe_interval: int) -> int:
    """Prepares the checkpoint to continue from, and returns its step; without a good one, step 0 is built again.

    Raises Diverged when the run was rolled back `watch.max_rollbacks` times already."""
    cfg = setup.recipe.watch
    if len(state.rollbacks) >= cfg.max_rollbacks:
        raise Diverged(f"{error} (rolled back {len(state.rollbacks)} times; watch.max_rollbacks={cfg.max_rollbacks})") from error
    newest = state.step - detection_delay(setup, probe_interval)
    saved = next((s for s in iter_readable_checkpoints(run, newest) if is_good_checkpoint(s)), None)
    if saved is None:
        fresh = build_setup(setup.recipe, str(setup.device))
        fresh.batches.close()
        fresh.card = setup.card
        saved = checkpoint_contents(fresh, TrainState())
    factor = state.lr_factor * cfg.lr_factor
    rollback = {"at_step": state.step, "to_step": saved["step"], "lr_factor": factor, "why": short_reason(error)}
    saved["lr_factor"], saved["rollbacks"] = factor, [*state.rollbacks, rollback]
    if dist.is_main():
        checkpoint.save_checkpoint(checkpoint.checkpoint_path(run.checkpoints, saved["step"]), saved)
        for step in reversed(checkpoint.list_steps(run.checkpoints)):
            if step > saved["step"]:
                discard_checkpoint(run, step)
        run.update(rollbacks=saved["rollbacks"], step=saved["step"])
    dist.barrier()
    return int(saved["step"])


def discard_checkpoint(run: RunDir, step: int) -> None:
    """Deletes the checkpoint of a step that is undone; one that cannot be read is kept under another name, as its content is unknown."""
    try:
        read_checkpoint(run, step)
    except checkpoint.DamagedCheckpoint as error:
        checkpoint.set_aside(checkpoint.checkpoint_path(run.checkpoints, step), error.word)
    else:
        checkpoint.checkpoint_path(run.checkpoints, step).unlink(missing_ok=True)


def short_reason(error: Exception) -> str:
    """What happened, without the advice, which is for a run that ends with the error."""
    return str(error).partition("; ")[0]


def iter_readable_checkpoints(run: RunDir, newest: int) -> Iterator[CheckpointContents]:
    """The readable checkpoints of the steps up to `newest`, newest first."""
    for step in reversed([s for s in checkpoint.list_steps(run.checkpoints) if s <= newest]):
        try:
            yield read_checkpoint(run, step)
        except checkpoint.DamagedCheckpoint:
            continue  # an older one serves as well here; `pretrain resume` reports damaged ones
