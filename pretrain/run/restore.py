"""What a checkpoint of a run holds, and how a run continues from one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
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

FORMAT, VERSION = "isograft-checkpoint", 1
# Entries that every checkpoint has, and their types; `average` and `auxiliary` are missing in those of earlier versions.
CONTENT_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("step", "skipped", "skipped_total"), (int,)),
    **dict.fromkeys(("method", "optimizer", "scaler", "environment", "versions", "encoder", "card"), (dict,)),
    "run": (str, type(None)),
    "lr_factor": (float, int),
    "rollbacks": (list,),
    "rng": (Tensor,),
    "config": (str,),
}
STATE_DICTS = ("method", "encoder", "average", "auxiliary")


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
        "format": FORMAT,
        "version": VERSION,
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
    """The checkpoint of `step`. Raises DamagedCheckpoint if it cannot be used."""
    path = checkpoint.checkpoint_path(run.checkpoints, step)
    state = checkpoint.load_checkpoint(path)
    check_contents(state, path, step)
    return cast(CheckpointContents, state)


def iter_resume_checkpoints(run: RunDir, skipped: list[checkpoint.DamagedCheckpoint]) -> Iterator[CheckpointContents]:
    """The good checkpoints of this run, newest first; none if it has no checkpoint yet.

    skipped: receives those that cannot be used.  Raises InputError after the last one if some were skipped."""
    run_id = run.read()["id"]

    def check(state: dict[str, Any], path: Path, step: int) -> None:
        check_contents(state, path, step)
        if state["run"] != run_id:
            raise checkpoint.ForeignCheckpoint(f"{path} is of another run ({state['run']}, this one is {run_id})")

    for state in checkpoint.iter_usable(run.checkpoints, skipped, check):
        yield cast(CheckpointContents, state)


def check_contents(state: Mapping[str, Any], path: Path, step: int) -> None:
    """Raises DamagedCheckpoint unless `state` has the entries of a checkpoint, each of its type, and is of `step`."""
    if state.get("format") != FORMAT:
        raise checkpoint.DamagedCheckpoint(f"{path} is not a checkpoint of a run: its format is {state.get('format')!r:.40}")
    if state.get("version") != VERSION:
        raise checkpoint.DamagedCheckpoint(
            f"{path} is a checkpoint of version {state.get('version')!r:.20}, and this isograft reads version {VERSION}"
        )
    if wrong := [name for name, kinds in CONTENT_TYPES.items() if type(state.get(name)) not in kinds]:
        raise checkpoint.DamagedCheckpoint(f"{path} is incomplete: {', '.join(wrong)} is missing or of another type")
    for name in STATE_DICTS:
        if wrong := [key for key, value in state.get(name, {}).items() if not isinstance(value, Tensor)]:
            raise checkpoint.DamagedCheckpoint(f"{path} is incomplete: {wrong[0]!r:.80} in {name} is no tensor")
    if state["step"] != step:
        raise checkpoint.ForeignCheckpoint(f"{path} is the checkpoint of step {state['step']}, not of the step in its name")


def load_run_checkpoint(run: RunDir, step: int | None) -> CheckpointContents:
    """The checkpoint of `step`, or the newest one.

    Raises InputError if there is none, and if it cannot be used: an older one is used only if its step is named."""
    steps = checkpoint.list_steps(run.checkpoints)
    if step is None and not steps:
        raise InputError(f"run {run.name!r} has no checkpoint yet; train it further with `pretrain resume {run.name}`")
    if step is not None and step not in steps:
        raise InputError(f"run {run.name!r} has no checkpoint of step {step}; it has {', '.join(map(str, steps)) or 'none'}")
    try:
        return read_checkpoint(run, steps[-1] if step is None else step)
    except checkpoint.DamagedCheckpoint as error:
        others = [other for other in steps if other != (steps[-1] if step is None else step)]
        advice = f"the run also has checkpoints of the steps {', '.join(map(str, others))}" if others else "the run has no other checkpoint"
        raise InputError(f"{error}; {advice}") from error


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
