"""Parameter groups whose learning rate falls from the head down to the stem.

Depth is timm's: blocks of a ViT, Swin or ConvNeXt, residual blocks of a ResNet, inverted residuals of a MobileNet. The head's scale is 1
and a layer's is decay ** (layers above it), as in BEiT and MAE (`util/lr_decay.py`). Departure: a ViT's last norm goes with its last block.
`encoders.runtime.optim.set_lr` multiplies by it; timm's own factory leaves that to a scheduler that honours `lr_scale`.
"""

from collections.abc import Iterable
from typing import Any

from timm.models._manipulate import group_with_matcher
from torch import nn

from encoders.runtime.errors import InputError


def is_transformer(model: nn.Module) -> bool:
    """Whether the network has attention blocks, which want stronger layer decay and drop path than a CNN."""
    return any(".attn" in name for name, _ in model.named_modules())


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Every parameter's depth, 0 at the stem. Raises InputError for a network that timm cannot cut into layers."""
    if not hasattr(model, "group_matcher"):
        raise InputError(f"{type(model).__name__} has no layer grouping, which layer decay needs; set finetune.layer_decay=1")
    matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
    return {name: int(depth) for name, depth in group_with_matcher(model.named_parameters(), matcher, reverse=True).items()}


def parameter_groups(model: nn.Module, head: nn.Module, decay: float, weight_decay: float, head_lr: float) -> list[dict[str, Any]]:
    """Groups for `optim.build`: by depth and by whether weight decay applies (not to vectors, nor to what the network names).

    head: trained with scale `head_lr`, its weight with decay."""
    where = layer_depths(model) if decay != 1 else {name: 0 for name, _ in model.named_parameters()}
    head_depth = max(where.values(), default=0) + 1 if decay != 1 else 0
    spared = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    found: dict[tuple[int, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault((where[name], parameter.ndim <= 1 or name in spared), []).append(parameter)
    made = [
        _parameter_group(f"layer{depth}{'_plain' if plain else ''}", params, decay ** (head_depth - depth), 0.0 if plain else weight_decay)
        for (depth, plain), params in sorted(found.items(), key=lambda item: item[0])
    ]
    weights = [p for p in head.parameters() if p.ndim > 1]
    biases = [p for p in head.parameters() if p.ndim <= 1]
    return [*made, _parameter_group("head", weights, head_lr, weight_decay), _parameter_group("head_plain", biases, head_lr, 0.0)]


def _parameter_group(name: str, params: Iterable[Any], scale: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": list(params), "lr_scale": scale, "weight_decay": weight_decay}
