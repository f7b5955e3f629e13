"""The moving average of all tensors of a network, in operations over lists of them: their number does not grow with the network."""

from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def move_average(average: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """Moves each tensor of `average` to decay * average + (1 - decay) * current, in place; integers (counters) are copied.

    Both have the same names, in any order. Raises KeyError for a name that `current` lacks."""
    floats = [name for name, tensor in average.items() if tensor.is_floating_point()]
    counters = [name for name, tensor in average.items() if not tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floats], [current[name].detach() for name in floats], 1.0 - decay)
    if counters:
        torch._foreach_copy_([average[name] for name in counters], [current[name] for name in counters])
