"""Export: a run's encoder becomes an entry of the zoo, with a card that states its origin and a manifest of its training images."""

from pathlib import Path

import numpy as np

from encoders.runtime.config import validate_config
from encoders.zoo import backbone, zoo
from encoders.zoo.card import Card
from pretrain.run.restore import load_run_checkpoint
from pretrain.run.rundir import RunDir, package_versions


def export_run(run: RunDir, step: int | None = None, name: str | None = None) -> Path:
    """Publishes the encoder of the run's newest good checkpoint, or of that of `step`, and returns its folder in the zoo.

    Raises InputError when there is no such checkpoint, or when `name` belongs to other weights."""
    saved = load_run_checkpoint(run, step)
    card = validate_config(Card, saved["card"], f"the card in run {run.name}").replace(name=name or run.name, versions=package_versions())
    network = backbone.build_backbone(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size)
    network.load_state_dict(saved["encoder"], strict=True)
    with np.load(run.manifest, allow_pickle=False) as arrays:
        manifest = dict(arrays)
    return zoo.publish_encoder(card.name, network.eval(), card, manifest)
