"""Parameter groups of a backbone apart from those of its heads: layer decay, and no weight decay towards zero.

Layer decay: Clark et al. 2020 (arXiv:2003.10555), section 3.2; Bao et al. 2021 (arXiv:2106.08254) for images. The heads have scale 1, a
layer of the backbone decay ** (layers above it, the heads counted as one). Layers are timm's (`encoders/zoo/layer_depths.py`), for CNNs and
ViTs.
"""

from collections.abc import Sequence

from torch import nn

from encoders.zoo.layer_depths import layer_depths
from pretrain.methods.param_groups import ParamGroup


def split_backbone(
    groups: Sequence[ParamGroup], backbone: nn.Module, layer_decay: float = 1.0, weight_decay: float | None = None
) -> list[ParamGroup]:
    """The groups with the parameters of `backbone` in groups of their own, marked `backbone`; each keeps its other settings.

    layer_decay: factor of the learning rate per layer.  weight_decay: of the backbone; None: that of each group.
    Raises InputError for a layer decay below 1 and a network that timm cannot divide into layers."""
    names = [name for name, _ in backbone.named_parameters()]
    depth = layer_depths(backbone, "layer_decay") if layer_decay != 1 else dict.fromkeys(names, 0)
    depth_of = {id(p): depth[name] for name, p in backbone.named_parameters()}
    head_depth = max(depth.values(), default=0) + 1
    split: list[ParamGroup] = []
    for group in groups:
        parts: dict[int, list[nn.Parameter]] = {}
        for p in group["params"]:
            parts.setdefault(depth_of.get(id(p), head_depth), []).append(p)
        for at in sorted(parts, reverse=True):
            part = group.copy()
            part["params"] = parts[at]
            if at < head_depth:
                part["name"] = f"{group['name']}_layer{at}" if layer_decay != 1 else f"{group['name']}_backbone"
                part["backbone"] = True
                if layer_decay != 1:
                    part["lr_scale"] = group.get("lr_scale", 1.0) * layer_decay ** (head_depth - at)
                if weight_decay is not None:
                    part["weight_decay"] = weight_decay
            split.append(part)
    return split
