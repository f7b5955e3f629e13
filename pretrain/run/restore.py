"""What a checkpoint of a run holds, and how a run continues from one."""

from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from encoders.runtime import checkpoint, dist
from encoders.runtime.errors import InputError
from pretrain.loop.setup import Setup
from pretrain.loop.train import TrainState
from pretrain.recipe.config import recipe_identity
from pretrain.run.process import PrintLine
from pretrain.run.rundir import RunDir, package_versions


class CheckpointContents(TypedDict):
    """The complete state of a run at a step (`method` to `environment`), and its encoder as the zoo reads it (`encoder`, `card`)."""

    format: str
    version: int
    run: str | None  # id of the run
    step: int
    skipped: int
    skipped_total: int
    lr_factor: float
    rollbacks: list[dict[str, Any]]
    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: Tensor
    environment: dict[str, str | int]
    config: str  # `recipe_identity`
    versions: dict[str, str]
    encoder: dict[str, Tensor]
    average: dict[str, Tensor]  # the EMA of `encoder`; {} without one
    auxiliary: dict[str, Tensor]  # the heads of auxiliary losses; {} without them
    card: dict[str, Any]


def checkpoint_contents(setup: Setup, state: TrainState) -> CheckpointContents:
    """The checkpoint of a run that is at `state`."""
    return {
        "format": "isograft-checkpoint",
        "version": 1,
        "run": setup.card.lineage.get("run_id"),
        "step": state.step,
        "skipped": state.skipped,
        "skipped_total": state.skipped_total,
        "lr_factor": state.lr_factor,
        "rollbacks": state.rollbacks,
        "method": setup.method.state_dict(),
        "optimizer": setup.optimizer.state_dict(),
        "scaler": setup.scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "environment": describe_environment(setup),
        "config": recipe_identity(setup.recipe),
        "versions": package_versions(),
        "encoder": setup.method.encoder().state_dict(),
        "average": setup.continuation.average.tensors if setup.continuation.average else {},
        "auxiliary": setup.continuation.auxiliary.heads.state_dict() if setup.continuation.auxiliary else {},
        "card": setup.card.replace(steps=state.step, lineage=setup.card.lineage | {"steps": state.step}).model_dump(mode="json"),
    }


def read_checkpoint(run: RunDir, step: int) -> CheckpointContents:
    """The checkpoint of `step`. Raises DamagedCheckpoint if it cannot be read."""
    return cast(CheckpointContents, checkpoint.load_checkpoint(checkpoint.checkpoint_path(run.checkpoints, step)))


def load_resume_checkpoint(run: RunDir, say: PrintLine) -> CheckpointContents | None:
    """The newest good checkpoint of this run; None if it has none yet. Prints a warning for each newer one that cannot be used.

    Raises InputError if there are checkpoints and none can be used."""
    newest, refused = checkpoint.load_newest(run.checkpoints, run_id=run.read()["id"])
    for reason in refused:
        say(f"warning: {reason}; using the last good checkpoint, of step {newest['step'] if newest else 0}")
    return cast(CheckpointContents | None, newest)


def load_run_checkpoint(run: RunDir, step: int | None) -> CheckpointContents:
    """The checkpoint of `step`, or the newest good one. Raises InputError if there is none."""
    if step is None:
        newest, _ = checkpoint.load_newest(run.checkpoints)
        if newest is None:
            raise InputError(f"run {run.name!r} has no checkpoint yet; train it further with `pretrain resume {run.name}`")
        return cast(CheckpointContents, newest)
    steps = checkpoint.list_steps(run.checkpoints)
    if step not in steps:
        raise InputError(f"run {run.name!r} has no checkpoint of step {step}; it has {', '.join(map(str, steps)) or 'none'}")
    return read_checkpoint(run, step)


def describe_environment(setup: Setup) -> dict[str, str | int]:
    """What must be equal for a resumed run to be bit-identical."""
    return {
        "torch": str(torch.__version__),
        "device": setup.device.type,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "ranks": dist.world_size(),
    }


def require_same_images(run: RunDir, setup: Setup) -> None:
    """Raises InputError if the store is not the one that the run started with."""
    info, store, images = run.read(), setup.corpus.store, len(setup.corpus.index)
    if (info["fingerprint"], info["images"]) != (store.fingerprint, images):
        raise InputError(
            f"run {run.name!r} started with other images (store {info['fingerprint'][:12]}, {info['images']} used) than "
            f"{setup.recipe.data.store} holds now ({store.fingerprint[:12]}, {images} used); restore the store or start a new run"
        )


def restore_checkpoint(setup: Setup, saved: CheckpointContents, say: PrintLine) -> TrainState:
    """Loads a checkpoint into the objects of `setup` and returns its state. Prints a note if the run will not be bit-identical."""
    setup.method.load_state_dict(saved["method"], strict=True)
    current = [{k: v for k, v in group.items() if k != "params"} for group in setup.optimizer.param_groups]
    setup.optimizer.load_state_dict(saved["optimizer"])
    for group, settings in zip(setup.optimizer.param_groups, current, strict=True):
        group.update(settings)  # of the current recipe, which may have changed since the checkpoint
    setup.scaler.load_state_dict(saved["scaler"])
    if setup.continuation.average:
        setup.continuation.average.load(saved["average"])
    if setup.continuation.auxiliary:
        setup.continuation.auxiliary.heads.load_state_dict(saved["auxiliary"], strict=True)
    torch.set_rng_state(saved["rng"])
    now, then = describe_environment(setup), saved["environment"]
    differences = [f"{key} was {then.get(key)}, is {now[key]}" for key in now if now[key] != then.get(key)]
    if setup.device.type != "cpu":
        differences.append("GPU kernels sum in varying order")
    if differences:
        say(f"note: the resumed run is not bit-identical to an uninterrupted one, but statistically equivalent ({'; '.join(differences)})")
    return TrainState(saved["step"], saved["skipped"], saved["skipped_total"], saved["lr_factor"], saved["rollbacks"])
