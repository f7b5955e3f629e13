"""The last map of features of a CNN, and the gradient of a logit on it: what the CAM methods are made of.

The map is what timm's `forward_features` returns, and the rest of the network is `forward_head` and the trained head: no layer is named.

Shapes: B images, K channels, S side of the input, D width, h x w cells of the map.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo.timm_protocols import HasNumFeatures, HasOutputFormat
from transfer.explain.contract import chosen_logits
from transfer.protocols.finetune_network import FinetuneNetwork


@runtime_checkable
class HasFeatureMap(Protocol):
    """A timm network in two steps: features before pooling, then pooling and what follows."""

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, x: Tensor) -> Tensor: ...


class FeatureMap(NamedTuple):
    """activation, gradient: (B, D, h, w), of the logit of each image's label."""

    activation: Tensor
    gradient: Tensor


def differentiate_map(network: FinetuneNetwork, x: Tensor, label: Tensor) -> FeatureMap:
    """The last map of features and the gradient of the logits on it.  x: (B, K, S, S).  label: (B,).

    Raises InputError for a network whose last features are no map."""
    backbone = network.backbone
    if not isinstance(backbone, HasFeatureMap):
        raise InputError(f"{type(backbone).__name__} has no single map of features before its pooling; use occlusion")
    with torch.no_grad():
        features = backbone.forward_features(x)
    nhwc = stores_channels_last(backbone, features)
    with torch.enable_grad():
        features = features.detach().requires_grad_()
        logits = network.head(backbone.forward_head(features) * network.scale)
        (gradient,) = torch.autograd.grad(chosen_logits(logits, label).sum(), features)
    order = "b h w d -> b d h w" if nhwc else "b d h w -> b d h w"
    return FeatureMap(rearrange(features.detach(), order), rearrange(gradient, order))


def stores_channels_last(backbone: nn.Module, features: Tensor) -> bool:
    """Whether a map is (B, h, w, D) and not (B, D, h, w). Raises InputError for features that are no map."""
    if not isinstance(features, Tensor) or features.ndim != 4:
        shape = "x".join(map(str, features.shape[1:])) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"{type(backbone).__name__} ends with features of {shape}, not with a map; the CAM methods are for CNNs: use gradient_rollout, "
            "rollout or occlusion"
        )
    if isinstance(backbone, HasOutputFormat):
        return str(backbone.output_fmt).upper().endswith("NHWC")
    width = int(backbone.num_features) if isinstance(backbone, HasNumFeatures) else 0
    return features.shape[1] != width and features.shape[3] == width
