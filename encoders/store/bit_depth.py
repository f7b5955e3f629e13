"""Groups of 16-bit images by the bits that they use, found by their largest values.

A detector of 12 bits writes values up to 4095 into 16-bit files. Beside files of the full range such images are nearly black. The largest
value of an image only bounds its depth from below: a dark image may have more bits than it uses. Two groups are therefore told apart only
where a usual depth lies between them and the largest values differ by a factor of at least GAP, with none between.

Shapes: N images, M images of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from encoders.runtime.arrays import IntArray

FULL_RANGE = 2**16 - 1
USUAL_DEPTHS = (8, 10, 12, 14, 16)  # bits
GAP = 2.0  # images of full range rarely have a largest value below half of it
OVERSHOOT = 0.15  # a bicubic filter exceeds the largest value of an image by up to this share


@dataclass(frozen=True)
class DepthGroup:
    """Images that use about the same number of bits."""

    bits: int  # the smallest usual depth that holds all of them
    top: int  # largest value
    rows: IntArray  # (M,) numbers of the images, ascending


def group_by_depth(tops: Sequence[int] | IntArray, overshoot: float = 0.0) -> list[DepthGroup]:
    """The groups from few to many bits; one group if no gap separates the images.

    tops: (N,) largest value of each image.  overshoot: share by which a value may exceed the largest of its depth (after resizing)."""
    values = np.asarray(tops, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    limits = [int((2**bits - 1) * (1 + overshoot)) for bits in USUAL_DEPTHS]
    depth = np.searchsorted(limits, ordered)  # number of the smallest usual depth that holds the value
    apart = (ordered[1:] >= GAP * ordered[:-1]) & (depth[1:] > depth[:-1])
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(values)]
    return [
        DepthGroup(USUAL_DEPTHS[min(int(depth[end - 1]), len(USUAL_DEPTHS) - 1)], int(ordered[end - 1]), np.sort(order[start:end]))
        for start, end in pairwise(bounds)
        if end > start
    ]


def describe_depths(groups: Sequence[DepthGroup], keys: Sequence[str]) -> str:
    """`12 images use 12 bits (largest value 4,071, first: a.png); 30 images use 16 bits (...)`.  keys: (N,)."""
    return "; ".join(
        f"{len(group.rows):,} images use {group.bits} bits (largest value {group.top:,}, first: {keys[int(group.rows[0])]})"
        for group in groups
    )
