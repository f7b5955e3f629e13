"""What the host reads of a step, in one copy: whether its numbers are finite on all ranks, and whether a rank is to stop.

A copy from the device makes the host wait until the device has finished the step. So there is one, and all that is asked is in it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from encoders.runtime import dist


class StepReading(NamedTuple):
    """The numbers of a step on the host."""

    loss: float  # of this rank
    grad_norm: float  # of this rank; equal on all ranks unless it is not finite
    loss_is_finite: bool  # on all ranks
    is_finite: bool  # the loss and the gradient, on all ranks
    stop: bool  # a rank was asked to stop


def read_step(loss: Tensor, grad_norm: Tensor, stop: bool, device: torch.device) -> StepReading:
    """The reading of a step; the only wait for the device in it.  loss, grad_norm: scalars on the device.  stop: asked of this rank."""
    numbers = torch.stack([loss.detach().double(), grad_norm.detach().double()])
    asked = torch.full((1,), float(stop), dtype=torch.float64, device=device)  # a fill, which takes the value along: no copy
    flags = dist.max_over_ranks(torch.cat([1.0 - numbers.isfinite().double(), asked]))
    own_loss, own_norm, bad_loss, bad_norm, any_stop = torch.cat([numbers, flags]).cpu().tolist()
    return StepReading(own_loss, own_norm, not bad_loss, not (bad_loss or bad_norm), bool(any_stop))


def read_scalars(scalars: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The numbers on the host, in one copy."""
    on_device = {name: value for name, value in scalars.items() if isinstance(value, Tensor) and value.device.type != "cpu"}
    values = torch.stack([value.detach().double() for value in on_device.values()]).cpu().tolist() if on_device else []
    fetched = dict(zip(on_device, values, strict=True))
    return {name: fetched[name] if name in fetched else float(value) for name, value in scalars.items()}
