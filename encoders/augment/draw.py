"""What happens to each image of a batch: parameters drawn as a pure function of (seed, position, view).

Each operation has a purpose or lanes of its own, so that turning one on or off does not change the draws of the others.

Shapes: B positions.
"""

from numpy.typing import ArrayLike

from encoders.augment.config import AUGMENTATIONS, Augment
from encoders.augment.operation import DrawnParams, Draws, PixelSource
from encoders.augment.randaugment import add_drawn_operations


def draw_params(
    cfg: Augment, seed: int, position: ArrayLike, view: int, source: tuple[int, int], pixels: PixelSource | None = None
) -> DrawnParams:
    """The parameters of one view: arrays with first axis B, only of the operations that are on.

    position: (B,) places in the global order.  view: 0..65535.  source: (H, W) of the images.  pixels: for operations whose draw depends
    on them; these stay off without it."""
    draws = Draws(seed, position, view, source, pixels)
    params: DrawnParams = {}
    for operation in AUGMENTATIONS.values():
        params |= operation.draw(cfg, draws)
    return add_drawn_operations(cfg, draws, params)
