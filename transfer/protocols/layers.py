"""Parameter groups whose learning rate falls from the head down to the stem.

Depth is that of timm (`encoders/zoo/layer_depths.py`). The scale of the head is 1, that of a layer is decay ** (layers above it), as in
BEiT and MAE (`util/lr_decay.py`). Departure: the last norm of a ViT belongs to its last block. `encoders.runtime.optim.set_lr` multiplies
by the scale; timm's own factory leaves that to a scheduler that reads `lr_scale`.
"""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch import nn

from encoders.zoo.layer_depths import layer_depths
from encoders.zoo.parts import list_networks


@runtime_checkable
class HasNoWeightDecay(Protocol):
    """A timm network that names parameters without weight decay."""

    def no_weight_decay(self) -> Iterable[str]: ...


def is_transformer(model: nn.Module) -> bool:
    """Whether the network has attention blocks, which need stronger layer decay and drop path than a CNN."""
    return any(".attn" in name for name, _ in model.named_modules())


def default_layer_decay(model: nn.Module) -> float:
    """0.75 for a transformer, 0.9 for a CNN."""
    return 0.75 if is_transformer(model) else 0.9


def parameter_groups(model: nn.Module, head: nn.Module, decay: float | None, weight_decay: float, head_lr: float) -> list[dict[str, Any]]:
    """Groups for `build_optimizer`: by depth and by weight decay, which excludes vectors and parameters that the network names.

    decay: None for the default of each network.  head: trained with scale `head_lr`; weight decay applies to its weight. Networks side by
    side are all directly below the head."""
    groups = []
    for prefix, network in list_networks(model):
        own = _network_groups(network, default_layer_decay(network) if decay is None else decay, weight_decay)
        groups += [{**group, "name": f"{prefix}{group['name']}"} for group in own]
    weights = [p for p in head.parameters() if p.ndim > 1]
    biases = [p for p in head.parameters() if p.ndim <= 1]
    return [*groups, _parameter_group("head", weights, head_lr, weight_decay), _parameter_group("head_plain", biases, head_lr, 0.0)]


def _network_groups(model: nn.Module, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    depth_of = layer_depths(model) if decay != 1 else {name: 0 for name, _ in model.named_parameters()}
    head_depth = max(depth_of.values(), default=0) + 1 if decay != 1 else 0
    without_decay = set(model.no_weight_decay()) if isinstance(model, HasNoWeightDecay) else set()
    by_group: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        by_group.setdefault((depth_of[name], parameter.ndim <= 1 or name in without_decay), []).append(parameter)
    return [
        _parameter_group(f"layer{depth}{'_plain' if plain else ''}", params, decay ** (head_depth - depth), 0.0 if plain else weight_decay)
        for (depth, plain), params in sorted(by_group.items(), key=lambda item: item[0])
    ]


def _parameter_group(name: str, params: Iterable[nn.Parameter], scale: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": list(params), "lr_scale": scale, "weight_decay": weight_decay}
