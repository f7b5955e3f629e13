"""Random directions of a step as one operation that torch.compile does not look into: NumPy draws them on the host.

Shapes: D width of the embedding, S directions.
"""

import torch
from torch import Tensor

from encoders.runtime.random import Purpose, generator


@torch.library.custom_op("isograft::draw_slices", mutates_args=())
def draw_slices(progress: Tensor, seed: int, width: int, number: int) -> Tensor:
    """(D, S) columns of length 1, on the CPU: a function of `seed` and of `progress`, a float64 scalar on the CPU."""
    stream = generator(seed, Purpose.SLICES, *progress.item().as_integer_ratio())
    columns: Tensor = torch.from_numpy(stream.standard_normal((width, number))).float()
    directions: Tensor = columns / columns.norm(dim=0)
    return directions


@draw_slices.register_fake
def _slices_shape(progress: Tensor, seed: int, width: int, number: int) -> Tensor:
    return torch.empty(width, number)
