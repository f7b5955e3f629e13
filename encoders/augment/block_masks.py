"""The block masks of iBOT and DINOv2: rectangles of patches, in some of the global crops, none in local crops.

Source: Zhou et al. 2021 (arXiv:2111.07832), section 3.1: a crop is masked with probability 1/2, by a ratio drawn uniformly from [0.1, 0.5];
facebookresearch/dinov2, dinov2/data/masking.py (after BEiT, Bao et al. 2021, arXiv:2106.08254, algorithm 1) for the rectangles.

Departures: DINOv2 masks exactly half of the crops of a batch and spreads their ratios evenly over the range; here each crop draws both on
its own, as in iBOT, so that a mask depends on the position of its image only. At most MAX_RECTANGLES rectangles are tried for a mask.

Shapes: B images of a micro-batch, N tokens of a view, M hidden tokens of all B images together.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.masks import Masks, MaskSpec
from encoders.runtime.arrays import BoolArray, FloatArray, IntArray
from encoders.runtime.random import Purpose, uniform

MIN_PATCHES = 4  # smallest area of a rectangle, where there is room for it; as published
ASPECT_RATIO = 0.3  # height / width of a rectangle is drawn from 0.3 to 1 / 0.3, evenly in its logarithm; as published
MAX_FAILURES = 10  # rectangles in a row that do not fit, after which the mask is complete; as published
MAX_RECTANGLES = 64  # a mask of 14 x 14 patches takes 9 on average; 31 were the most in 30,000 masks
LANES = 4  # numbers drawn per rectangle: area, aspect ratio, top, left


@dataclass(frozen=True, eq=False)
class BlockMasks(Masks):
    """Hidden tokens whose number differs between images, with their indices, so that a device need not count them.

    hidden: (B, N) bool.  index: (M,) int64, places of the hidden tokens among all B * N.  number: (M,) int64, of hidden tokens in the image
    of each: divided by it, the tokens of an image count as one."""

    hidden: Tensor
    index: Tensor
    number: Tensor


class BlockTokens(MaskSpec):
    """Rectangles of patches in some of the first `views` views."""

    rows: int = Field(gt=0, description="rows of patches in a view")
    columns: int = Field(gt=0, description="columns of patches in a view")
    views: int = Field(2, ge=1, description="views that are masked, from the first on: the global crops")
    probability: float = Field(0.5, ge=0, le=1, description="probability that a crop is masked at all")
    ratio: tuple[float, float] = Field((0.1, 0.5), description="lowest and highest share of the patches that is hidden")

    def draw(self, seed: int, positions: IntArray, view: int) -> Masks:
        if view >= self.views:
            return Masks()
        return index_hidden(draw_block_masks(self, seed, positions, view))


def draw_block_masks(spec: BlockTokens, seed: int, positions: IntArray, view: int) -> BoolArray:
    """(B, N) true for the hidden patches, row by row: a pure function of (seed, position, view)."""
    drawn = uniform(seed, Purpose.MASK, positions, view, 2 + LANES * MAX_RECTANGLES)  # (B, lanes)
    n_tokens, (low, high) = spec.rows * spec.columns, spec.ratio
    targets = (n_tokens * (low + (high - low) * drawn[:, 1])).astype(np.int64)
    targets[drawn[:, 0] >= spec.probability] = 0
    masks = [draw_rectangles(spec.rows, spec.columns, n, own[2:].reshape(-1, LANES)) for n, own in zip(targets, drawn, strict=True)]
    return np.stack(masks).reshape(len(masks), n_tokens)


def draw_rectangles(rows: int, columns: int, target: int, numbers: FloatArray) -> BoolArray:
    """(rows, columns) true in rectangles that together hide at most `target` patches.

    numbers: (MAX_RECTANGLES, LANES) in [0, 1). A rectangle that hides nothing new, or too much, is left out."""
    hidden = np.zeros((rows, columns), dtype=bool)
    count = failures = 0
    for area_number, aspect_number, top_number, left_number in numbers:
        if count >= target or failures == MAX_FAILURES:
            break
        room = min(target - count, rows * columns // 2)
        area = MIN_PATCHES + (room - MIN_PATCHES) * area_number
        aspect = math.exp((2 * aspect_number - 1) * math.log(1 / ASPECT_RATIO))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        failures += 1
        if height >= rows or width >= columns:
            continue
        top, left = int(top_number * (rows - height + 1)), int(left_number * (columns - width + 1))
        rectangle = hidden[top : top + height, left : left + width]
        new = height * width - int(rectangle.sum())
        if 0 < new <= room:
            rectangle[:] = True
            count, failures = count + new, 0
    return hidden


def index_hidden(hidden: BoolArray) -> BlockMasks:
    """The masks with the indices of their hidden tokens, and the number in the image of each.  hidden: (B, N)."""
    counts = hidden.sum(axis=1)
    return BlockMasks(*map(torch.from_numpy, (hidden, np.flatnonzero(hidden), np.repeat(counts, counts))))
