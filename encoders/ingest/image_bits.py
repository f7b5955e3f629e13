"""16-bit images that use fewer bits: found by their largest values, reported, and mapped to the full range on request.

Shapes: H, W, C of one image.
"""

import numpy as np

from encoders.ingest.options import BitsChoice
from encoders.ingest.shard_io import ShardRow
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.store.bit_depth import FULL_RANGE, DepthGroup, describe_depths, group_by_depth


def find_groups(rows: list[ShardRow]) -> tuple[list[ShardRow], list[DepthGroup]]:
    """The rows with 16 bits, and their groups by depth."""
    deep = [row for row in rows if row["dtype"] == "uint16"]
    return deep, group_by_depth([row["top"] for row in deep])


def assign_bits(rows: list[ShardRow]) -> None:
    """Writes the depth of its group into every row with 16 bits."""
    deep, groups = find_groups(rows)
    for group in groups:
        for k in group.rows:
            deep[int(k)]["bits"] = group.bits


def stretch_bits(image: Array, bits: int) -> Array:
    """The image (H, W, C) uint16 with 2**bits - 1 mapped to the full range; larger values, which resizing causes, are clipped."""
    top = 2**bits - 1
    return np.asarray(np.rint(np.minimum(image, top) * (FULL_RANGE / top)).astype(np.uint16))


def describe_bits(rows: list[ShardRow], auto: bool) -> list[str]:
    """Notes about the bits that 16-bit images use; [] if they use the whole range.  auto: they are mapped to the full range."""
    deep, groups = find_groups(rows)
    if not groups:
        return []
    depths = describe_depths(groups, [str(row["index"]["key"]) for row in deep])
    if auto:
        return [f"--bits auto: {depths}; each group is mapped to the full range"]
    if len(groups) > 1:
        return [
            f"warning: mixed bit depths: {depths}. The images of fewer bits are stored nearly black: pass --bits auto to map each group to "
            "the full range, or ingest the groups one at a time with --bits"
        ]
    if groups[0].top < 2**15:
        return [
            f"warning: the largest 16-bit value is {groups[0].top}, so the images use only part of the range; if they have "
            f"{groups[0].bits} bits, pass --bits {max(groups[0].bits, 9)}"
        ]
    return []


def parse_bits(text: str | None) -> BitsChoice | None:
    """The number of bits, or auto. Raises InputError for other text."""
    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or not 9 <= int(text) <= 16:
        raise InputError(f"--bits {text!r} is neither a number from 9 to 16 nor auto")
    return int(text)
