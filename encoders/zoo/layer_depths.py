"""The depth of each parameter of a timm network, by which the learning rate falls from the head down to the stem.

Depth is that of timm (`group_matcher`): blocks of a ViT, Swin or ConvNeXt, residual blocks of a ResNet, inverted residuals of a MobileNet.
"""

from typing import Any, Protocol, runtime_checkable

from timm.models._manipulate import group_with_matcher
from torch import nn

from encoders.runtime.errors import InputError


@runtime_checkable
class HasLayerGroups(Protocol):
    """A timm network that can be divided into layers."""

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]: ...


def layer_depths(model: nn.Module, setting: str = "finetune.layer_decay") -> dict[str, int]:
    """Depth of every parameter, 0 at the stem. Raises InputError for a network that timm cannot divide into layers.

    setting: the one that needs depths, for the message."""
    if not isinstance(model, HasLayerGroups):
        raise InputError(f"{type(model).__name__} has no layer grouping, which layer decay needs; set {setting}=1")
    matcher = model.group_matcher(coarse=False)
    return {name: int(depth) for name, depth in group_with_matcher(model.named_parameters(), matcher, reverse=True).items()}
