"""Export: a run's encoder becomes an entry of the zoo, with a card that states its origin and a manifest of its training images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast, get_args

from torch import nn

from encoders.runtime.arrays import Array
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.npz_file import load_npz
from encoders.zoo import backbone, zoo
from encoders.zoo.card import Card
from pretrain.run.restore import load_run_checkpoint
from pretrain.run.rundir import RunDir, package_versions

WeightsKind = Literal["last", "ema"]


def export_run(
    run: RunDir, step: int | None = None, name: str | None = None, weights: WeightsKind = "last", lineage: Mapping[str, Json] | None = None
) -> Path:
    """Publishes the encoder of a run's checkpoint, and returns its folder in the zoo.

    step: of the checkpoint; None: the one that `watch.stop_at_best` chose, otherwise the newest good one.
    weights: those of the step, or their average (setting `ema`).  lineage: entries to add to that of the card.
    Raises InputError when there is no such checkpoint or average, or when `name` belongs to other weights."""
    card, network = load_run_encoder(run, step, name, weights)
    card = card.replace(lineage=card.lineage | dict(lineage or {}))
    return zoo.publish_encoder(card.name, network.eval(), card, read_manifest(run))


def load_run_encoder(run: RunDir, step: int | None, name: str | None, weights: WeightsKind) -> tuple[Card, nn.Module]:
    """Card and network of a checkpoint, as `export_run` publishes them."""
    saved = load_run_checkpoint(run, run.read().get("best") if step is None else step)
    card = validate_config(Card, saved["card"], f"the card in run {run.name}").replace(name=name or run.name, versions=package_versions())
    state = saved["encoder"]
    if weights == "ema":
        state = saved.get("average", {})
        if not state:
            raise InputError(f"run {run.name!r} has no averaged weights; they are kept by runs with ema=0.999 or another decay above 0")
        decay = card.config["ema"] if card.config else None
        card = card.replace(lineage=card.lineage | {"weights": "ema", "ema": decay})
    network = backbone.build_backbone(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size)
    network.load_state_dict(state, strict=True)
    return card, network


def read_manifest(run: RunDir) -> dict[str, Array]:
    """The hashes of the images and patients that the run trains on."""
    return load_npz(run.manifest, "restore the file from a backup, or start the run again under another --name")


def parse_weights(text: str) -> WeightsKind:
    """The value of `--weights`. Raises InputError for another word than last and ema."""
    for kind in get_args(WeightsKind):
        if text == kind:
            return cast(WeightsKind, text)
    raise InputError(f"--weights {text} is unknown; choose {' or '.join(get_args(WeightsKind))}")


def ema_name(name: str) -> str:
    """The name under which the averaged weights of a run are published."""
    return f"{name}_ema"
