"""Distributed training: this process's rank, and collectives that are the identity for a single process.

Shapes: R ranks, B rows per rank, D width.
"""

import os
import warnings
from datetime import timedelta

import torch
import torch.distributed as td
from torch import Tensor, nn

from encoders.runtime.launcher import local_rank, srun_variable

TIMEOUT_MIN = 10.0  # minutes that a process waits for the others


def join_process_group(device: str, timeout_min: float = TIMEOUT_MIN) -> None:
    """Joins the process group that `torchrun` or `srun` defines in the environment; does nothing for a single process.

    device: of this process, with its number (cuda:1): NCCL binds to it at once, and does not guess it from the rank.
    timeout_min: minutes that a process waits for the others, at the start and in each collective, before it fails."""
    size = int(os.environ.get("WORLD_SIZE") or srun_variable("SLURM_NTASKS") or 1)
    if size == 1 or is_distributed():
        return
    os.environ.setdefault("WORLD_SIZE", str(size))
    os.environ.setdefault("RANK", srun_variable("SLURM_PROCID") or "0")
    os.environ.setdefault("LOCAL_RANK", str(local_rank()))
    gpu = torch.device(device) if device.startswith("cuda") else None
    td.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(minutes=timeout_min), device_id=gpu)


def leave_process_group() -> None:
    """Leaves the process group, if there is one."""
    if is_distributed():
        td.destroy_process_group()


def is_distributed() -> bool:
    """Whether a process group exists."""
    return td.is_available() and td.is_initialized()


def rank() -> int:
    """The rank of this process, 0 for a single process."""
    return td.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of processes, 1 for a single process."""
    return td.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process is rank 0, which writes the files."""
    return rank() == 0


def barrier() -> None:
    """Waits for the other processes."""
    if is_distributed():
        td.barrier()


def any_rank(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether `flag` is true on any rank; a host-device sync with more than one rank."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([int(flag)], device=device)
    td.all_reduce(flags, op=td.ReduceOp.MAX)
    return bool(flags.item())


def max_over_ranks(values: Tensor) -> Tensor:
    """The largest of each value over the ranks; changes `values`. The identity for a single process."""
    if world_size() > 1:
        td.all_reduce(values, op=td.ReduceOp.MAX)
    return values


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks in rank order: (B, D) -> (R * B, D). The identity for a single process.

    Its gradient is the sum over ranks of the gradients of these rows. With a loss that is a mean over each rank's own rows, and DDP's mean
    over ranks, parameters then get the gradient of the mean over all rows, as in a single process."""
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _GatherContext(torch.autograd.function.FunctionCtx):
    rows: int


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _GatherContext, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        td.all_gather(parts, x.contiguous())
        return torch.cat(parts)  # (R * B, D)

    @staticmethod
    def backward(ctx: _GatherContext, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        td.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]  # (B, D)


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` wrapped in DDP; `model` itself for a single process. Buffers are not broadcast: a method keeps them equal by `gather`."""
    if world_size() == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # torch 2.14 renames it; older versions do not have the new name
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)
