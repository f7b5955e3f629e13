"""Export of encoders between the start and the end of a run: w = (1 - alpha) w_start + alpha w_end.

Source: Wortsman et al. 2022 (arXiv:2109.01903), WiSE-FT. The start is `init` once more, verified by its sha256.

Running statistics of BatchNorm are interpolated as the weights are, mean and variance alike, as the authors' code does with the whole
state. They are not those of the interpolated network's own activations; after batchnorm=frozen both ends have the same statistics.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from encoders.runtime.errors import InputError
from encoders.zoo import backbone, zoo
from pretrain.loop.continuation import reload_start
from pretrain.loop.initial_weights import load_initial_weights
from pretrain.recipe.config import read_recipe
from pretrain.run.export import WeightsKind, load_run_encoder, read_manifest
from pretrain.run.rundir import RunDir


def parse_alphas(text: str) -> list[float]:
    """The numbers of `--interpolate`. Raises InputError unless they are different numbers from 0 (the start) to 1 (the end)."""
    try:
        alphas = [float(part) for part in text.split(",")]
    except ValueError:
        alphas = []
    if not alphas or not all(math.isfinite(a) and 0 <= a <= 1 for a in alphas) or len(set(alphas)) < len(alphas):
        raise InputError(
            f"--interpolate {text} should be different numbers from 0 (the start) to 1 (the end), separated by commas, e.g. 0.25,0.5,0.75,1"
        )
    return alphas


def export_interpolated(
    run: RunDir, alphas: list[float], step: int | None = None, name: str | None = None, weights: WeightsKind = "last"
) -> list[Path]:
    """Publishes an encoder NAME_alphaA for each alpha, and returns their folders in the zoo.

    Raises InputError for a run from random weights, and if its start is no longer available or was changed."""
    recipe = read_recipe(run.config)
    if recipe.init is None:
        raise InputError(f"run {run.name!r} starts from random weights: there is nothing to interpolate with; use runs with init=ENCODER")
    card, network = load_run_encoder(run, step, name, weights)
    end = {key: value.clone() for key, value in network.state_dict().items()}
    p = card.preprocess
    first = backbone.build_backbone(card.arch, card.model_args, p.channels, p.size)
    load_initial_weights(first, reload_start(recipe, card.model_dump()))
    start = first.state_dict()
    folders = []
    for alpha in alphas:
        network.load_state_dict(interpolate_states(start, end, alpha))
        origin = {"start": recipe.init, "end": card.name, "alpha": alpha, "batchnorm_statistics": "interpolated"}
        own = card.replace(name=f"{card.name}_alpha{alpha:g}", lineage=card.lineage | {"interpolated": origin})
        folders.append(zoo.publish_encoder(own.name, network.eval(), own, read_manifest(run)))
    return folders


def interpolate_states(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) start + alpha end for every tensor of floats, exact at 0 and 1; counters are those of `end`."""
    return {key: torch.lerp(start[key], value, alpha) if value.is_floating_point() else value for key, value in end.items()}
