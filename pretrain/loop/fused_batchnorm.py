"""BatchNorm over the images of all ranks by torch's CUDA kernels, which `torch.nn.SyncBatchNorm` calls as well.

They read half precision and accumulate in float32, so that no layer is copied. Nothing waits for the device: `torch.nn.SyncBatchNorm` does,
because it drops ranks without images by a boolean index, and here every rank has some.

Shapes: B images of this rank, C channels, R ranks.
"""

from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from encoders.runtime import dist


def fused_sync_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """The function `F.batch_norm` in training, with the statistics of all ranks; x: (B, C, ...) on a CUDA device."""
    y: Tensor = _FusedSyncBatchNormFunction.apply(x, running_mean, running_var, weight, bias, momentum, eps)
    return y


class _FusedSyncBatchNormFunction(torch.autograd.Function):
    """The gradient of the input is summed over ranks, as that of `dist.gather`; those of scale and shift are this rank's, for DDP."""

    @staticmethod
    @torch.compiler.disable
    def forward(
        ctx: Any,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x = x.contiguous(memory_format=_memory_format(x))
        mean, invstd = torch.batch_norm_stats(x, eps)  # (C,) each
        width = len(mean)
        own = torch.cat([mean, invstd, mean.new_full((1,), x.numel() // width)])
        ranks = own.new_empty(dist.world_size(), len(own))
        td.all_gather(list(ranks.unbind()), own)
        means, invstds, counts = ranks.split([width, width, 1], dim=1)  # (R, C), (R, C), (R, 1): ranks may differ in their numbers
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, means, invstds, running_mean, running_var, momentum, eps, counts.flatten()
        )
        ctx.save_for_backward(x, weight, mean, invstd, counts.flatten().to(torch.int32))
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)

    @staticmethod
    @torch.compiler.disable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, counts = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=_memory_format(x))
        affine = weight is not None
        sum_grad, sum_product, weight_grad, bias_grad = torch.batch_norm_backward_reduce(
            grad, x, mean, invstd, weight, True, affine, affine
        )
        sums = torch.cat([sum_grad, sum_product])  # of the gradient, and of the gradient times (x - mean)
        td.all_reduce(sums)
        sum_grad, sum_product = sums.split(len(mean))
        through = torch.batch_norm_backward_elemt(grad, x, mean, invstd, weight, sum_grad, sum_product, counts)
        return through, None, None, weight_grad if affine else None, bias_grad if affine else None, None, None


def _memory_format(x: Tensor) -> torch.memory_format:
    """The order of `x` that the kernels read: channels-last where it is, otherwise torch's default."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
