"""Which statistics BatchNorm uses in a run: the setting `batchnorm`, its default, and what it does to backbone and heads."""

from torch import nn

from encoders.runtime import dist
from encoders.zoo.batchnorm import freeze_statistics, has_trained_statistics, list_statistics_layers
from pretrain.loop.batchnorm import convert_sync_batchnorm
from pretrain.methods import Method
from pretrain.recipe.config import BatchNormMode, Recipe

# Modalities whose runs from pretrained weights use batch statistics by default, and not the frozen ones of the pretrained weights.
ADAPTING_MODALITIES: frozenset[str] = frozenset()


def default_batchnorm(kind: type[Method], pretrained: bool, modality: str | None) -> BatchNormMode:
    """The mode where the recipe leaves it open.

    frozen for pretrained statistics; otherwise batch statistics, of all processes unless the method prevents the leak that they stop."""
    if pretrained and modality not in ADAPTING_MODALITIES:
        return "frozen"
    return "sync" if kind.sync_batchnorm_by_default else "train"


def resolve_batchnorm(recipe: Recipe, kind: type[Method], network: nn.Module, restored: bool) -> Recipe:
    """`recipe` with its mode decided.

    network: the backbone with the weights that it starts from.  restored: a checkpoint replaces its weights next."""
    if recipe.batchnorm is not None:
        return recipe
    known = bool(list_statistics_layers(network)) if restored else has_trained_statistics(network)
    mode = default_batchnorm(kind, recipe.init is not None and known, recipe.modality)
    return recipe.model_copy(update={"batchnorm": mode})


def freeze_backbone(recipe: Recipe, network: nn.Module) -> None:
    """Freezes the statistics of the backbone if the recipe asks for it. Before the method copies the backbone: copies stay frozen."""
    if recipe.batchnorm == "frozen":
        freeze_statistics(network)


def synchronise_batchnorm(recipe: Recipe, method: Method) -> None:
    """With several processes, replaces every BatchNorm that is not frozen by one over all processes, in backbone and heads.

    The heads of a frozen backbone do what the method requires, as those of a backbone in its default mode."""
    heads_only = recipe.batchnorm == "frozen" and method.sync_batchnorm_by_default
    if dist.world_size() > 1 and (recipe.batchnorm == "sync" or heads_only):
        convert_sync_batchnorm(method)


def describe_batchnorm(recipe: Recipe, encoder: nn.Module) -> str | None:
    """The mode of the backbone in words; None for a backbone without running statistics."""
    if not list_statistics_layers(encoder):
        return None
    return {
        "frozen": f"frozen: the running statistics of {recipe.init or 'random weights'} are used and kept; scale and shift are trained",
        "train": "train: statistics of each micro-batch, per process",
        "sync": "sync: statistics of each micro-batch, over all processes",
    }[recipe.batchnorm or "train"]
