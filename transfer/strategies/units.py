"""The blocks of a transformer or stages of a CNN, as lists of parameters from the stem to the top: what strategies freeze and release.

Units are timm's coarse groups (`group_matcher(coarse=True)`): the blocks of a ViT, or the stages of a ResNet, MobileNet, DenseNet or
ConvNeXt, with the stem as the first. A norm after a unit belongs to it.
"""

import torch
from timm.models._manipulate import group_with_matcher
from torch import nn

from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.card import Preprocess
from encoders.zoo.layer_depths import HasLayerGroups
from encoders.zoo.parts import list_networks
from encoders.zoo.stages import StageFeatures


def list_units(model: nn.Module, unused: frozenset[str] = frozenset()) -> list[frozenset[str]]:
    """The names of the parameters of each unit, from the top. The i-th units of all parts of a model from the top are one.

    unused: parameters that the features do not depend on; they are in no unit.  Raises InputError for a network without groups."""
    of_parts = [_network_units(prefix, network, unused)[::-1] for prefix, network in list_networks(model)]
    depth = max(map(len, of_parts))
    return [frozenset(name for units in of_parts if i < len(units) for name in units[i]) for i in range(depth)]


def _network_units(prefix: str, network: nn.Module, unused: frozenset[str]) -> list[list[str]]:
    """The units of one network, from the stem."""
    if not isinstance(network, HasLayerGroups):
        raise InputError(
            f"{type(network).__name__} is not divided into blocks or stages, which the strategies last and gradual need; "
            "use linear, lpft or full"
        )
    groups = group_with_matcher(network.named_parameters(), network.group_matcher(coarse=True), reverse=True)
    by_depth: dict[int, list[str]] = {}
    for name, depth in groups.items():
        by_depth.setdefault(int(depth), []).append(name)
    parameters = dict(network.named_parameters())
    units: list[list[str]] = []
    for _, names in sorted(by_depth.items()):
        used = [f"{prefix}{name}" for name in names if f"{prefix}{name}" not in unused]
        only_norm = all(parameters[name].ndim <= 1 for name in names)
        if units and (only_norm or len(used) < len(names)):
            units[-1] += used  # a norm after a unit, or what is left of one that the features do not use
        else:
            units.append(used)
    return units


def find_unused_parameters(model: nn.Module, preprocess: Preprocess) -> frozenset[str]:
    """The parameters that the features do not depend on: those above the last stage of an encoder made of stages."""
    if not any(isinstance(module, StageFeatures) for module in model.modules()):
        return frozenset()
    image = torch.zeros(1, preprocess.channels, preprocess.size, preprocess.size, device=next(model.parameters()).device)
    parameters = dict(model.named_parameters())
    modes = {module: module.training for module in model.modules()}
    features = backbone.pooled_features(model.eval(), image)
    gradients = torch.autograd.grad(features.float().sum(), list(parameters.values()), allow_unused=True)
    for module, mode in modes.items():
        module.training = mode
    return frozenset(name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None)
