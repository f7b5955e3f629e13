"""A run continues from its newest checkpoint that can be used, whatever is wrong with newer ones; these are kept under another name."""

import torch

from encoders.runtime import checkpoint, dist
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.storage_errors import StorageError
from encoders.zoo.card import Card
from pretrain.loop.setup import Setup, build_setup
from pretrain.loop.train import TrainState
from pretrain.recipe.config import Recipe
from pretrain.run.process import PrintLine, prepare_process
from pretrain.run.restore import CheckpointContents, iter_resume_checkpoints, require_same_images, restore_checkpoint
from pretrain.run.rundir import RunDir


def restore_newest(run: RunDir, recipe: Recipe, device: str, say: PrintLine) -> tuple[Setup, TrainState]:
    """The objects of the run with the state of its newest good checkpoint; those of its start if it has no checkpoint yet.

    A checkpoint that cannot be used is reported with the step that is lost, and renamed (`checkpoint.set_aside`), so that it is not
    overwritten. Raises InputError if there are checkpoints and none can be used: then nothing is renamed."""
    skipped: list[checkpoint.DamagedCheckpoint] = []
    for saved in iter_resume_checkpoints(run, skipped):
        path = checkpoint.checkpoint_path(run.checkpoints, saved["step"])
        try:
            setup, state = _restore_from(run, recipe, device, saved, say)
        except checkpoint.DamagedCheckpoint as error:
            error.path, error.step = path, saved["step"]
            skipped.append(error)
            continue
        require_same_step(state.step, device)
        if dist.is_main():
            _report_skipped(run, skipped, state.step, say)
        return setup, state
    setup = build_setup(recipe, prepare_process(device, recipe.threads))
    require_same_images(run, setup)
    return setup, TrainState()


def _restore_from(run: RunDir, recipe: Recipe, device: str, saved: CheckpointContents, say: PrintLine) -> tuple[Setup, TrainState]:
    """The objects of the run with the state of a checkpoint. Raises DamagedCheckpoint if they do not take its content."""
    path = checkpoint.checkpoint_path(run.checkpoints, saved["step"])
    threads = saved["environment"].get("threads")
    if type(threads) is not int or threads < 1:
        raise checkpoint.DamagedCheckpoint(f"{path} is incomplete: its environment has no number of threads")
    try:
        validate_config(Card, saved["card"], f"the card in {path}")
    except InputError as error:
        raise checkpoint.DamagedCheckpoint(str(error)) from error
    setup = build_setup(recipe, prepare_process(device, threads), card=saved["card"])
    require_same_images(run, setup)
    try:
        return setup, restore_checkpoint(setup, saved, say)
    except (InputError, StorageError, torch.OutOfMemoryError):
        raise
    except READ_ERRORS as error:
        setup.batches.close()
        raise checkpoint.DamagedCheckpoint(f"{path} does not fit the network of its run: {describe_reason(error)}") from error


def require_same_step(step: int, device: str) -> None:
    """Raises InputError if the processes of a run read different checkpoints, as after a fault of one node's file system."""
    newest = int(dist.max_over_ranks(torch.tensor([step], device=device)).item())
    if dist.any_rank(newest != step, device):
        raise InputError(f"the processes of the run read different checkpoints (here step {step}, elsewhere {newest}); try again")


def _report_skipped(run: RunDir, skipped: list[checkpoint.DamagedCheckpoint], step: int, say: PrintLine) -> None:
    """Says which steps are lost, and keeps the files under another name."""
    for error in skipped:
        kept = checkpoint.set_aside(error.path, error.word)
        say(
            f"warning: {error}; step {error.step} is lost, and run {run.name} continues from its last good checkpoint, of step {step}; "
            f"the file is kept as {kept.name}"
        )
