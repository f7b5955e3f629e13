"""The bits that the 16-bit images of a store use, by their largest values.

Shapes: S images examined.
"""

import numpy as np

from encoders.doctor.report import DepthSummary
from encoders.store.bit_depth import FULL_RANGE, OVERSHOOT, group_by_depth
from encoders.store.store import Store, read_unit_map

MAX_DEPTH_IMAGES = 20_000  # every pixel of an image is read: 2.6 GB of 256 x 256 pixels


def measure_depths(store: Store, most: int = MAX_DEPTH_IMAGES) -> list[DepthSummary]:
    """Groups of 16-bit images that use different bits, from few to many; one group for a uniform store, [] without such images.

    Values are compared as the store maps them to [0, 1], so a store of 12 bits with the unit of 12 bits uses the whole range.
    most: images examined, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(most, len(store))).astype(int))  # (S,)
    rows, tops = [], []
    for i in chosen.tolist():
        part, _ = store.locate(i)
        if part.dtype == np.uint16:
            offset, scale = read_unit_map(part)
            rows.append(i)
            tops.append(round((float(store.image(i).max()) - offset) / scale * FULL_RANGE))
    keys = store.column("key")
    return [
        {"bits": group.bits, "images": len(group.rows), "top": group.top, "first": str(keys[rows[int(group.rows[0])]])}
        for group in (group_by_depth(tops, OVERSHOOT) if tops else [])
    ]
