"""The masks of I-JEPA: target blocks to predict, and the context block to predict them from, without the targets.

Source: Assran et al. 2023 (arXiv:2301.08243), section 3 and appendix A.1; facebookresearch/ijepa, src/masks/multiblock.py. The targets of a
step share one size and so do its contexts, so that the images of a step make tensors without gaps. A context that keeps too few patches is
drawn again, and after MAX_TRIES with one target fewer removed from it. The contexts of a step are cut to the shortest, row by row from the
top.

Departures: a block may touch any border; the authors' ranges are one short, so that no block ever holds the last row or column. The step is
that of the whole batch, over all ranks and micro-batches, not that of a loader process.

Shapes: B images of a micro-batch, N tokens of a view, K of the context, T targets, M tokens of each.
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

MAX_TRIES = 20  # places of a context block before one target fewer is removed from it; as published


@dataclass(frozen=True, eq=False)
class ContextMasks(Masks):
    """Indices of patch tokens, each row ascending.  context: (B, K) int64, seen; targets: (B, T, M) int64, predicted, none of them seen
    unless the context would be too small."""

    context: Tensor
    targets: Tensor


class ContextBlocks(MaskSpec):
    """One context block and `targets` target blocks of every view."""

    rows: int = Field(gt=0, description="rows of patches in a view")
    columns: int = Field(gt=0, description="columns of patches in a view")
    batch: int = Field(gt=0, description="images of a step over all ranks and micro-batches: they share the size of their blocks")
    targets: int = Field(4, ge=1, description="target blocks of an image; they may overlap")
    target_scale: tuple[float, float] = Field((0.15, 0.2), description="area of a target block as a fraction of the view")
    target_aspect: tuple[float, float] = Field((0.75, 1.5), description="height / width of a target block")
    context_scale: tuple[float, float] = Field((0.85, 1.0), description="area of the square context block as a fraction of the view")
    min_keep: int = Field(10, ge=1, description="patches that a context keeps at least, where the block has as many")

    def draw(self, seed: int, positions: IntArray, view: int) -> ContextMasks:
        step, within = int(positions[0]) // self.batch, positions % self.batch
        assert (positions // self.batch == step).all(), "the images of a micro-batch are of one step"
        context, targets = draw_step(self, seed, step, view)
        return ContextMasks(torch.from_numpy(context[within]), torch.from_numpy(targets[within]))


def draw_step(spec: ContextBlocks, seed: int, step: int, view: int) -> tuple[IntArray, IntArray]:
    """Contexts (B, K) and targets (B, T, M) of all B = `spec.batch` images of a step: K is that of the smallest context."""
    area, aspect, context_area = uniform(seed, Purpose.MASK_SHAPE, step, view, 3)[0]
    target = block_size(spec, interpolate(spec.target_scale, area), interpolate(spec.target_aspect, aspect))
    context = block_size(spec, interpolate(spec.context_scale, context_area), 1.0)
    n_targets, positions = spec.targets, step * spec.batch + np.arange(spec.batch)
    numbers = uniform(seed, Purpose.MASK, positions, view, 2 * (n_targets + MAX_TRIES * (n_targets + 1)))  # (B, lanes)
    corners = numbers.reshape(len(positions), -1, 2)
    blocks = fill_blocks(spec, target, corners[:, :n_targets])  # (B, T, N)
    seen = place_contexts(spec, context, blocks, corners[:, n_targets:])  # (B, N)
    shortest = int(seen.sum(axis=1).min())
    first = np.argsort(~seen, axis=1, kind="stable")[:, :shortest]  # the indices of the tokens seen, ascending
    return first, np.nonzero(blocks)[2].reshape(*blocks.shape[:2], -1)


def interpolate(limits: tuple[float, float], share: float) -> float:
    """The number at `share` in [0, 1) of the way between two limits."""
    return limits[0] + share * (limits[1] - limits[0])


def block_size(spec: ContextBlocks, scale: float, aspect: float) -> tuple[int, int]:
    """Height and width in patches of a block with this share of the view's area and this height / width, at least 1, at most the view."""
    area = int(spec.rows * spec.columns * scale)
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(height, 1), spec.rows), min(max(width, 1), spec.columns)


def fill_blocks(spec: ContextBlocks, size: tuple[int, int], corners: FloatArray) -> BoolArray:
    """(..., N) true inside a block of this size.  corners: (..., 2) in [0, 1), its place from the top and from the left."""
    (height, width), rows, columns = size, np.arange(spec.rows), np.arange(spec.columns)
    top = (corners[..., :1] * (spec.rows - height + 1)).astype(np.int64)
    left = (corners[..., 1:] * (spec.columns - width + 1)).astype(np.int64)
    row, column = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    inside: BoolArray = row[..., :, None] & column[..., None, :]
    return inside.reshape(*inside.shape[:-2], -1)


def place_contexts(spec: ContextBlocks, size: tuple[int, int], targets: BoolArray, corners: FloatArray) -> BoolArray:
    """(B, N) true for the tokens of a context block of this size that are in no target.

    targets: (B, T, N).  corners: (B, tries, 2): the first place is taken that keeps `min_keep` tokens; every MAX_TRIES places one target
    fewer is removed, in the end none."""
    seen = np.zeros(targets.shape[::2], dtype=bool)
    left = np.arange(len(targets))  # images without a context
    for place in range(corners.shape[1]):
        removed = targets[left, : targets.shape[1] - place // MAX_TRIES].any(axis=1)
        seen[left] = fill_blocks(spec, size, corners[left, place]) & ~removed
        left = left[seen[left].sum(axis=1) < spec.min_keep]
        if not len(left):
            break
    return seen
