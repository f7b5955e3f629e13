"""From a run to an encoder in the zoo: weights under timm's names, a card that says where they come from, a manifest of what they saw."""

from pathlib import Path
from typing import Any

import numpy as np

from encoders.runtime import checkpoint
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError
from encoders.zoo import backbone, zoo
from encoders.zoo.card import Card
from pretrain.run import rundir
from pretrain.run.rundir import RunDir


def export_run(run: RunDir, step: int | None = None, name: str | None = None) -> Path:
    """Publishes the encoder of a run's checkpoint (the newest good one, or that of `step`) and returns its folder in the zoo.

    Raises InputError when there is no such checkpoint, or the name is taken by other weights."""
    saved = load_run_checkpoint(run, step)
    card = validate_config(Card, saved["card"], f"the card in run {run.name}").changed(
        name=name or run.name, versions=rundir.package_versions()
    )
    network = backbone.build_backbone(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size)
    network.load_state_dict(saved["encoder"], strict=True)
    with np.load(run.manifest, allow_pickle=False) as arrays:
        manifest = dict(arrays)
    return zoo.publish_encoder(card.name, network.eval(), card, manifest)


def load_run_checkpoint(run: RunDir, step: int | None) -> dict[str, Any]:
    """The checkpoint of `step`, or the newest good one."""
    if step is None:
        saved, _ = checkpoint.load_newest(run.checkpoints)
    else:
        known = checkpoint.list_steps(run.checkpoints)
        if step not in known:
            raise InputError(f"run {run.name!r} has no checkpoint of step {step}; it has {', '.join(map(str, known)) or 'none'}")
        saved = checkpoint.load_checkpoint(checkpoint.checkpoint_path(run.checkpoints, step))
    if saved is None:
        raise InputError(f"run {run.name!r} has no checkpoint yet; go on with `pretrain resume {run.name}`")
    return saved
