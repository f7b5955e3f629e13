"""BatchNorm in groups of a batch whose images pass the network together.

    with BatchGroups(n_images=B, n_groups=G):      # layers: those of `group_batchnorm(network)`
        features = network(images)

Every layer normalises each group by the group's own mean and variance, as if the groups passed the network one after the other; its running
statistics receive those of all groups in that order. Only these layers know the groups: a convolution is one operation.

A layer takes (B, C, ...) as (B / G, G * C, ...): groups become channels of one call of BatchNorm. This is a view, and in channels-last
order a copy there and back. For it the images of a group are G apart (`interleave`). If G does not divide B, the first groups have one
image more than the others, as in `torch.tensor_split`, and each of the two sizes is a call.

Shapes: B images, G groups of N images, C channels, T rows per image inside a layer (more than 1 where tokens are rows of a norm).
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from einops import rearrange
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.runtime.errors import InputError
from encoders.zoo.batchnorm import STATISTICS, list_batch_statistics_layers

GROUPABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)  # these classes alone: others may compute otherwise
ZEROS = 2**18  # that are made at once, by one operation: a megabyte
# of x, running mean and variance, scale, shift, momentum and eps, in training
BatchNormFunction = Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float, float], Tensor]


def train_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """`F.batch_norm` in training, over the images of this rank.  x: (B, C, ...)."""
    return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)


class GroupRun(NamedTuple):
    """Consecutive groups of one size."""

    n_groups: int
    size: int  # images of each


class BatchGroups:
    """While it is entered, layers of `group_batchnorm` in train mode normalise group by group. Running statistics change on leaving it."""

    def __init__(self, n_images: int, n_groups: int):
        size, larger = divmod(n_images, n_groups)
        self.n_images = n_images
        self.runs = [run for run in (GroupRun(larger, size + 1), GroupRun(n_groups - larger, size)) if run.n_groups]
        self._zeros: dict[torch.dtype, Tensor] = {}  # not used yet
        self._seen: dict[_BatchNorm, Tensor] = {}  # (2, G, C) mean and unbiased variance of each group

    def __enter__(self) -> "BatchGroups":
        _entered.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _entered.pop()
        if error[0] is None:
            self._update_running_statistics()

    def interleave(self, rows: Tensor) -> Tensor:
        """(B,) `rows`, in which the groups are consecutive, in the order in which they pass the network."""
        runs = rows.split([run.n_groups * run.size for run in self.runs])
        return torch.cat([rearrange(part, "(g n) -> (n g)", g=run.n_groups) for part, run in zip(runs, self.runs, strict=True)])

    def normalise(self, layer: _BatchNorm, x: Tensor, batch_norm: BatchNormFunction = train_batch_norm) -> Tensor:
        """`x` (B * T, C, ...) normalised group by group with scale and shift of `layer`."""
        per_image, rest = divmod(len(x), self.n_images)
        if rest:
            raise InputError(
                f"MoCo normalises groups of images, but a BatchNorm of the network receives {len(x)} rows for {self.n_images} images; "
                "choose another network, or batchnorm=frozen"
            )
        parts = x.split([run.n_groups * run.size * per_image for run in self.runs]) if len(self.runs) > 1 else [x]
        outputs, statistics = [], []
        for part, run in zip(parts, self.runs, strict=True):
            folded = fold_groups(part, run.n_groups, per_image)
            found = self._new_statistics(layer, run.n_groups)  # (2, G * C) or None
            mean, var = (None, None) if found is None else (found[0], found[1])
            weight, bias = (None if p is None else p.expand(run.n_groups, -1).reshape(-1) for p in (layer.weight, layer.bias))
            y = batch_norm(folded, mean, var, weight, bias, 1.0, layer.eps)  # momentum 1: mean and var become the batch's
            outputs.append(unfold_groups(y, run.n_groups, per_image))
            if found is not None:
                statistics.append(found.view(2, run.n_groups, -1))
        if statistics:
            self._remember(layer, torch.cat(statistics, dim=1) if len(statistics) > 1 else statistics[0])
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _new_statistics(self, layer: _BatchNorm, n_groups: int) -> Tensor | None:
        """(2, G * C) zeros for mean and variance, from memory that many layers share; None for a layer without running statistics."""
        if not layer.track_running_stats or layer.running_mean is None:
            return None
        width = n_groups * layer.num_features
        free = self._zeros.get(layer.running_mean.dtype)
        if free is None or len(free) < 2 * width:
            free = layer.running_mean.new_zeros(max(2 * width, ZEROS))
        self._zeros[free.dtype] = free[2 * width :]
        return free[: 2 * width].view(2, width)

    def _remember(self, layer: _BatchNorm, statistics: Tensor) -> None:
        if layer in self._seen:  # a second pass through the same layer comes after the first
            self._update_running_statistics()
        self._seen[layer] = statistics

    def _update_running_statistics(self) -> None:
        with torch.no_grad():  # not a decorator, which torch.compile does not trace
            for momentum in {layer.momentum for layer in self._seen}:
                layers = [layer for layer in self._seen if layer.momentum == momentum]
                update_running_statistics(layers, [self._seen[layer] for layer in layers], momentum)
        self._seen.clear()


_entered: list[BatchGroups] = []


def active_groups() -> BatchGroups | None:
    """The groups of the pass that is going on; None outside of `BatchGroups`."""
    return _entered[-1] if _entered else None


class GroupedBatchNorm(nn.Module):
    """Mixed into the class of a BatchNorm: it normalises group by group inside of `BatchGroups`, and is unchanged elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        groups = active_groups()
        if groups is None or not self.training:
            y: Tensor = super().forward(x)  # of the class that this one is mixed into
            return y
        y = groups.normalise(cast(_BatchNorm, self), x)
        for layer in self.children():  # timm's BatchNormAct2d: drop, act
            y = layer(y)
        return y


def group_batchnorm(network: nn.Module) -> bool:
    """Lets the layers of `network` with batch statistics normalise inside of `BatchGroups`, in place; False if some of them cannot.

    Weights, buffers and their names stay the same. The class of a layer changes to a subclass, so that copies of the network can do it too.
    With gradient checkpointing parts of the network pass again in the backward pass, where no groups are entered."""
    layers = list_batch_statistics_layers(network)
    if any(getattr(module, "grad_checkpointing", False) for module in network.modules()):
        return False
    if not all(type(layer) in GROUPABLE or isinstance(layer, GroupedBatchNorm) for layer in layers):
        return False
    for layer in layers:
        if not isinstance(layer, GroupedBatchNorm):
            layer.__class__ = _GROUPED_CLASSES[type(layer)]
    return True


_GROUPED_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Grouped{kind.__name__}", (GroupedBatchNorm, kind), {"__module__": __name__}) for kind in GROUPABLE
}


def fold_groups(x: Tensor, n_groups: int, per_image: int) -> Tensor:
    """(N * G * T, C, ...) with interleaved groups -> (N * T, G * C, ...) in the same memory order."""
    if per_image > 1:
        return rearrange(x, "(n g t) c ... -> (n t) (g c) ...", g=n_groups, t=per_image)
    if _is_channels_last(x):
        return rearrange(x, "(n g) c h w -> n h w (g c)", g=n_groups).permute(0, 3, 1, 2)
    return rearrange(x, "(n g) c ... -> n (g c) ...", g=n_groups)


def unfold_groups(x: Tensor, n_groups: int, per_image: int) -> Tensor:
    """The inverse of `fold_groups`."""
    if per_image > 1:
        return rearrange(x, "(n t) (g c) ... -> (n g t) c ...", g=n_groups, t=per_image)
    if _is_channels_last(x):
        return rearrange(x, "n (g c) h w -> (n g) h w c", g=n_groups).permute(0, 3, 1, 2)
    return rearrange(x, "n (g c) ... -> (n g) c ...", g=n_groups)


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def update_running_statistics(layers: list[_BatchNorm], statistics: list[Tensor], momentum: float | None) -> None:
    """Moves running means and variances as one update per group does, in their order.

    statistics: (2, G, C) of each layer.  momentum: of all the layers; None: running statistics are means over all updates so far."""
    n_groups = statistics[0].shape[1]
    counters, means, variances = ([getattr(layer, name) for layer in layers] for name in ("num_batches_tracked", *STATISTICS))
    torch._foreach_add_(counters, n_groups)
    if momentum is None:
        for mean, var, counter, own in zip(means, variances, counters, statistics, strict=True):
            share = n_groups / counter.to(own.dtype)
            mean.lerp_(own[0].mean(dim=0), share)
            var.lerp_(own[1].mean(dim=0), share)
        return
    joined = torch.cat(statistics, dim=2)  # (2, G, C of all layers)
    later = torch.arange(n_groups - 1, -1, -1, dtype=joined.dtype, device=joined.device)  # (G,) updates after that of each group
    changes = (joined * (momentum * (1 - momentum) ** later)[:, None]).sum(dim=1).split([len(mean) for mean in means], dim=1)  # (2, C) each
    torch._foreach_mul_([*means, *variances], (1 - momentum) ** n_groups)
    torch._foreach_add_([*means, *variances], [change[i] for i in range(2) for change in changes])
