"""BatchNorm over the images of all ranks, so that several processes normalise as one would.

torch's own needs CUDA, and its conversion drops the layers that timm puts behind a norm; this one works on any device and keeps them. On
CUDA devices it uses torch's kernels (fused_batchnorm.py).

Shapes: B images of this rank, C channels, R ranks, N images (times pixels) of all ranks.
"""

from typing import Any

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.runtime import dist
from encoders.zoo.batchnorm import is_frozen
from pretrain.loop.fused_batchnorm import fused_sync_batch_norm
from pretrain.methods.batch_groups import active_groups, train_batch_norm
from pretrain.methods.precision import at_least_float32


class SyncBatchNorm(_BatchNorm):
    """`like` with the statistics of all ranks in train mode: the same names, weights, averages and hooks, and timm's layers behind it."""

    def __init__(self, like: _BatchNorm):
        super().__init__(like.num_features, like.eps, like.momentum, affine=False, track_running_stats=like.track_running_stats)
        self.affine = like.affine
        self.weight, self.bias = like.weight, like.bias
        for name, average in like.named_buffers(recurse=False):
            self.register_buffer(name, average)
        self.after = [name for name, _ in like.named_children()]  # timm's BatchNormAct2d: drop, act, aa, in this order
        for name, child in like.named_children():
            self.add_module(name, child)
        self._forward_pre_hooks.update(like._forward_pre_hooks)  # a masked CNN hands its norms visible positions only
        self._forward_hooks.update(like._forward_hooks)
        self.train(like.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any number of pixels behind the channels

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        groups, alone = active_groups(), dist.world_size() == 1
        if self.training and groups is not None:
            x = groups.normalise(self, input, train_batch_norm if alone else sync_batch_norm)
        elif self.training and not alone:
            x = self._over_all(input)
        else:
            x = super().forward(input)
        for name in self.after:
            x = self.get_submodule(name)(x)
        return x

    def _over_all(self, x: Tensor) -> Tensor:
        share, tracked = self.momentum or 0.0, self.track_running_stats and self.running_mean is not None
        if tracked:
            assert self.num_batches_tracked is not None  # torch has it wherever it has averages
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                share = 1 / float(self.num_batches_tracked)
        means, variances = (self.running_mean, self.running_var) if tracked else (None, None)
        return sync_batch_norm(x, means, variances, self.weight, self.bias, share, self.eps)


def sync_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """The function `F.batch_norm` in training, with the statistics of all ranks.  x: (B, C, ...)."""
    if x.is_cuda:
        return fused_sync_batch_norm(x, running_mean, running_var, weight, bias, momentum, eps)
    y: Tensor
    y, mean, var, total = _SyncBatchNormFunction.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * total / (total - 1)).to(running_var.dtype), momentum)
    return y


class _SyncBatchNormFunction(torch.autograd.Function):
    """BatchNorm by the statistics of all ranks. The gradient is summed over ranks, as that of `dist.gather`."""

    @staticmethod
    @torch.compiler.disable
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        high = at_least_float32(x)
        mean, var = torch.batch_norm_update_stats(high, None, None, 0.0)  # (C,); var_mean over these axes takes twenty times as long
        mean, var, total = merge_rank_statistics(mean, var, x.numel() // x.shape[1])
        y = F.batch_norm(high, mean, var, weight, bias, False, 0.0, eps)  # training=False: with exactly these statistics
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var, total)
        return y.to(x.dtype), mean, var, total

    @staticmethod
    @torch.compiler.disable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, total = ctx.saved_tensors
        grad, high, invstd = at_least_float32(grads[0]), at_least_float32(x), (var + ctx.eps).rsqrt()
        scale = invstd if weight is None else invstd * weight
        ones = torch.ones_like(mean) if weight is None else weight
        own = torch.stack(  # (2, C): sums of grad * normalised x and of grad, this rank's gradients of weight and bias for DDP
            torch.ops.aten.native_batch_norm_backward(grad, high, ones, mean, var, None, None, False, ctx.eps, [False, True, True])[1:]
        )
        sums = own.clone()
        td.all_reduce(sums)
        # scale * (grad - (sum of grad + normalised x * sum of grad * normalised x) / total), in two passes over the pixels
        slope = -scale * invstd * sums[0] / total
        level = -scale * sums[1] / total - slope * mean
        through = torch.addcmul(_broadcast_channels(level, x), high, _broadcast_channels(slope, x)).addcmul_(
            grad, _broadcast_channels(scale, x)
        )
        if weight is None:
            return through.to(x.dtype), None, None, None
        return through.to(x.dtype), own[0].to(weight.dtype), own[1].to(weight.dtype), None


def merge_rank_statistics(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of the values of all ranks, from those of this rank; their numbers may differ.

    Source: Chan, Golub, LeVeque 1983, equation 2.1, which subtracts no large squares."""
    own = torch.cat([mean, var, mean.new_tensor([count])])
    parts = [torch.empty_like(own) for _ in range(dist.world_size())]
    td.all_gather(parts, own)
    means, variances, counts = torch.stack(parts).split([len(mean), len(var), 1], dim=1)  # (R, C), (R, C), (R, 1)
    total = counts.sum()
    overall = (counts * means).sum(0) / total
    return overall, (counts * (variances + (means - overall).square())).sum(0) / total, total


def _broadcast_channels(per_channel: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), with as many axes as x."""
    return per_channel.view(1, -1, *[1] * (x.ndim - 2))


def convert_sync_batchnorm(module: nn.Module) -> None:
    """Replaces every BatchNorm inside `module` that is not frozen, in place; names and values in `state_dict` stay the same."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not is_frozen(child):
            setattr(module, name, SyncBatchNorm(child))
        else:
            convert_sync_batchnorm(child)
