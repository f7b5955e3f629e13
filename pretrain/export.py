"""From a run to an encoder in the zoo: weights under timm's names, a card that says where they come from, a manifest of what they saw."""

from pathlib import Path
from typing import Any

import numpy as np

from encoders import backbone, zoo
from encoders.card import Card
from encoders.runtime import checkpoint
from encoders.runtime.config import validated
from encoders.runtime.errors import InputError
from pretrain import rundir
from pretrain.rundir import RunDir


def export(run: RunDir, step: int | None = None, name: str | None = None) -> Path:
    """Publishes the encoder of a run's checkpoint (the newest good one, or that of `step`) and returns its folder in the zoo.

    Raises InputError when there is no such checkpoint, or the name is taken by other weights."""
    saved = at(run, step)
    card = validated(Card, saved["card"], f"the card in run {run.name}").changed(name=name or run.name, versions=rundir.versions())
    network = backbone.build(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size)
    network.load_state_dict(saved["encoder"], strict=True)
    with np.load(run.manifest, allow_pickle=False) as arrays:
        manifest = dict(arrays)
    return zoo.publish(card.name, network.eval(), card, manifest)


def at(run: RunDir, step: int | None) -> dict[str, Any]:
    """The checkpoint of `step`, or the newest good one."""
    if step is None:
        saved, _ = checkpoint.newest(run.checkpoints)
    else:
        known = checkpoint.steps_in(run.checkpoints)
        if step not in known:
            raise InputError(f"run {run.name!r} has no checkpoint of step {step}; it has {', '.join(map(str, known)) or 'none'}")
        saved = checkpoint.load(checkpoint.path_of(run.checkpoints, step))
    if saved is None:
        raise InputError(f"run {run.name!r} has no checkpoint yet; go on with `pretrain resume {run.name}`")
    return saved
