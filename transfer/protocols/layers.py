"""Parameter groups whose learning rate falls from the head down to the stem.

Depth is that of timm: blocks of a ViT, Swin or ConvNeXt, residual blocks of a ResNet, inverted residuals of a MobileNet. The scale of the
head is 1, that of a layer is decay ** (layers above it), as in BEiT and MAE (`util/lr_decay.py`). Departure: the last norm of a ViT belongs
to its last block. `encoders.runtime.optim.set_lr` multiplies by the scale; timm's own factory leaves that to a scheduler that reads
`lr_scale`.
"""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from timm.models._manipulate import group_with_matcher
from torch import nn

from encoders.runtime.errors import InputError


@runtime_checkable
class HasLayerGroups(Protocol):
    """A timm network that can be divided into layers."""

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]: ...


@runtime_checkable
class HasNoWeightDecay(Protocol):
    """A timm network that names parameters without weight decay."""

    def no_weight_decay(self) -> Iterable[str]: ...


def is_transformer(model: nn.Module) -> bool:
    """Whether the network has attention blocks, which need stronger layer decay and drop path than a CNN."""
    return any(".attn" in name for name, _ in model.named_modules())


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Depth of every parameter, 0 at the stem. Raises InputError for a network that timm cannot divide into layers."""
    if not isinstance(model, HasLayerGroups):
        raise InputError(f"{type(model).__name__} has no layer grouping, which layer decay needs; set finetune.layer_decay=1")
    matcher = model.group_matcher(coarse=False)
    return {name: int(depth) for name, depth in group_with_matcher(model.named_parameters(), matcher, reverse=True).items()}


def parameter_groups(model: nn.Module, head: nn.Module, decay: float, weight_decay: float, head_lr: float) -> list[dict[str, Any]]:
    """Groups for `build_optimizer`: by depth and by weight decay, which excludes vectors and parameters that the network names.

    head: trained with scale `head_lr`; weight decay applies to its weight."""
    depth_of = layer_depths(model) if decay != 1 else {name: 0 for name, _ in model.named_parameters()}
    head_depth = max(depth_of.values(), default=0) + 1 if decay != 1 else 0
    without_decay = set(model.no_weight_decay()) if isinstance(model, HasNoWeightDecay) else set()
    by_group: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        by_group.setdefault((depth_of[name], parameter.ndim <= 1 or name in without_decay), []).append(parameter)
    groups = [
        _parameter_group(f"layer{depth}{'_plain' if plain else ''}", params, decay ** (head_depth - depth), 0.0 if plain else weight_decay)
        for (depth, plain), params in sorted(by_group.items(), key=lambda item: item[0])
    ]
    weights = [p for p in head.parameters() if p.ndim > 1]
    biases = [p for p in head.parameters() if p.ndim <= 1]
    return [*groups, _parameter_group("head", weights, head_lr, weight_decay), _parameter_group("head_plain", biases, head_lr, 0.0)]


def _parameter_group(name: str, params: Iterable[nn.Parameter], scale: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": list(params), "lr_scale": scale, "weight_decay": weight_decay}
