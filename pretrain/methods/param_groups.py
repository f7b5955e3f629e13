"""Parameter groups: which parameters have weight decay, and which have a learning rate of their own."""

from collections.abc import Iterator
from typing import Literal, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn


class _RequiredParamGroupKeys(TypedDict):
    name: str
    params: list[nn.Parameter]


class ParamGroup(_RequiredParamGroupKeys, total=False):
    """Parameters with the same optimizer settings. Defaults: the recipe's `weight_decay`, `lr_scale` 1, the others False."""

    weight_decay: float
    lr_scale: float
    fixed_lr: bool  # no schedule: the peak learning rate in every step
    backbone: bool  # all of them belong to the backbone (pretrain/methods/backbone_groups.py)


@runtime_checkable
class HasNoWeightDecay(Protocol):
    """A timm model that exempts some of its parameters from weight decay."""

    def no_weight_decay(self) -> set[str]:
        """Names of these parameters."""
        ...


def build_param_groups(
    *modules: nn.Module,
    decay: Literal["matrices", "all"] = "matrices",
    name: str = "",
    fixed_lr: bool = False,
    vector_lr_scale: float | None = None,
) -> list[ParamGroup]:
    """The trainable parameters of `modules`: in one group (`decay="all"`), or with vectors in a second one without weight decay.

    Vectors are biases, norms, single tokens such as (1, 1, D), and what a timm model itself exempts (position tables).

    name: prefix of the groups' names.  fixed_lr: of all groups.  vector_lr_scale: `lr_scale` of the vectors."""
    exempt = {id(p) for m in modules for p in _iter_undecayed_parameters(m)}
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    if decay == "all":
        groups = [ParamGroup(name=name or "all", params=params)]
    else:
        vectors = ParamGroup(name=f"{name}vectors", params=[p for p in params if is_vector(p) or id(p) in exempt], weight_decay=0.0)
        if vector_lr_scale is not None:
            vectors["lr_scale"] = vector_lr_scale
        groups = [ParamGroup(name=f"{name}weights", params=[p for p in params if not (is_vector(p) or id(p) in exempt)]), vectors]
    if fixed_lr:
        for group in groups:
            group["fixed_lr"] = True
    return [group for group in groups if group["params"]]


def _iter_undecayed_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    for m in module.modules():
        if isinstance(m, HasNoWeightDecay):
            exempt = m.no_weight_decay()
            yield from (p for name, p in m.named_parameters(recurse=False) if name in exempt)


def is_vector(p: Tensor) -> bool:
    """Whether at most one axis is longer than 1."""
    return sum(n > 1 for n in p.shape) <= 1
