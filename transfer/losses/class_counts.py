"""How many images each class has, in the form that the losses share.

Shapes: N rows, C labels or classes.
"""

from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray


class ClassCounts(NamedTuple):
    """positive: (C,) images of each label or class.  negative: (C,) known images without it."""

    positive: FloatArray
    negative: FloatArray

    @property
    def is_complete(self) -> "Array":
        """(C,) whether a label has both, so that something can be done about their ratio."""
        return np.asarray((self.positive > 0) & (self.negative > 0))


def count_classes(y: Array) -> ClassCounts:
    """The counts of y (N, C) in {0, 1}, NaN = unknown."""
    known = ~np.isnan(y)
    positive = np.asarray(np.nansum(y, axis=0, dtype=np.float64))
    return ClassCounts(positive, np.asarray(known.sum(axis=0) - positive))
