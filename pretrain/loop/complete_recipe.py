"""Fills in what a recipe leaves open: from the encoder that it starts from, and from the images."""

from collections.abc import Mapping

import numpy as np
import torch

from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder
from encoders.zoo.pixels import has_network
from encoders.zoo.preprocess import prepare_input
from pretrain.loop.corpus import Corpus
from pretrain.methods import METHODS
from pretrain.recipe.config import PreprocessConfig, Recipe

DEFAULT_GEOMETRY = {"resize": "crop", "interpolation": "bilinear", "crop_pct": 1.0}  # from random weights
STATISTICS_IMAGES = 1024  # images that mean and std are measured on: the standard error is then below 1 % of the spread between images


def complete_recipe(recipe: Recipe, images: Corpus) -> tuple[Recipe, Encoder | None]:
    """The recipe without open settings, and the encoder `init` (None for random weights)."""
    initial_encoder = None
    if recipe.init is not None:
        from encoders.zoo import zoo

        try:
            initial_encoder = zoo.load_encoder(recipe.init)
        except zoo.WeightsUnavailable as error:
            raise InputError(f"init={recipe.init}: {error}; or start from random weights with init=null") from error
        recipe = inherit_settings(recipe, initial_encoder.card)
    if METHODS[recipe.method["name"]].pools_patches:
        recipe = pool_patches(recipe)
    channels = recipe.channels or images.store.channels
    modality = recipe.modality or images.store.modality
    recipe = fill_preprocess(recipe.model_copy(update={"channels": channels, "modality": modality}), DEFAULT_GEOMETRY)
    if recipe.preprocess.mean is None or recipe.preprocess.std is None:
        mean, std = measure_mean_std(images, build_preprocess(recipe, (0.0,) * channels, (1.0,) * channels))
        recipe = fill_preprocess(recipe, {"mean": mean, "std": std})
    return recipe, initial_encoder


def pool_patches(recipe: Recipe) -> Recipe:
    """The recipe whose ViT pools by the mean of its patches where it would pool by its class token; its tensors stay the same.

    A pooling that `model_args` names is kept."""
    if "global_pool" in recipe.model_args:
        return recipe
    with torch.device("meta"):  # the defaults of the architecture, without computing weights
        network = backbone.build_backbone(str(recipe.arch), recipe.model_args, size=recipe.size)
    if getattr(network, "global_pool", None) != "token":
        return recipe
    return recipe.model_copy(update={"model_args": {**recipe.model_args, "global_pool": "avg", "fc_norm": False}})


def fill_preprocess(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """The recipe with these values of `preprocess` where it leaves them open."""
    own = recipe.preprocess.model_dump()
    opened = {key: value for key, value in values.items() if own[key] is None}
    return recipe.model_copy(update={"preprocess": recipe.preprocess.model_copy(update=opened)})


def inherit_settings(recipe: Recipe, card: Card) -> Recipe:
    """The recipe with the network, the channels and the preprocessing of the weights that it starts from, but for the size.

    What the recipe sets itself stays: the card of the run then differs from that of its start.

    Raises InputError if the recipe contradicts the card."""
    if card.parts is not None or card.stages is not None or not has_network(card):
        kind = "is made of parts" if card.parts else "has features of several stages" if card.stages else "has no network"
        raise InputError(f"init={recipe.init} {kind}, and pretraining starts from the weights of one network; name that network alone")
    if recipe.arch not in (None, card.arch):
        raise InputError(
            f"init={recipe.init} is a {card.arch}, but arch={recipe.arch}: set arch={card.arch}, or start from another encoder"
        )
    if recipe.model_args not in ({}, card.model_args):
        raise InputError(f"init={recipe.init} was built with model_args={card.model_args}, not {recipe.model_args}: leave them out")
    if recipe.channels not in (None, card.preprocess.channels):
        raise InputError(f"init={recipe.init} takes {card.preprocess.channels} channels, not {recipe.channels}: leave channels=null")
    network = {"arch": card.arch, "model_args": card.model_args, "channels": card.preprocess.channels}
    return fill_preprocess(recipe.model_copy(update=network), {key: getattr(card.preprocess, key) for key in PreprocessConfig.model_fields})


def build_preprocess(recipe: Recipe, mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    """The preprocessing of the card."""
    own = recipe.preprocess
    geometry = {key: getattr(own, key) for key in DEFAULT_GEOMETRY}
    raw = {"size": recipe.size, "channels": recipe.channels, **geometry, "value_range": own.value_range, "mean": mean, "std": std}
    return validate_config(Preprocess, raw, "the recipe's preprocess")


def measure_mean_std(images: Corpus, raw: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of the corpus as the model sees it: the same numbers in every measurement."""
    rows = images.index[np.linspace(0, len(images.index) - 1, min(STATISTICS_IMAGES, len(images.index))).round().astype(int)]
    total = square = torch.zeros(raw.channels, dtype=torch.float64)
    count = 0
    for row in rows:  # one at a time: sizes may vary
        x = prepare_input(images.store.unit_images([row]), raw)[0].double()  # (C, H, W)
        total, square, count = total + x.sum((1, 2)), square + (x**2).sum((1, 2)), count + x[0].numel()
    mean = total / count
    std = (square / count - mean**2).clamp(min=1e-6).sqrt()  # 1e-6: a corpus of one gray value still gives finite inputs
    return tuple(round(float(v), 4) for v in mean), tuple(max(round(float(v), 4), 1e-3) for v in std)
