"""What gives a cell the features of its images.

Shapes: N images of the store, M of the given rows, D width.
"""

from typing import Protocol

from encoders.runtime.arrays import Array


class RowFeatures(Protocol):
    """Features by row of the store: an array (N, D), or one that stays in a file."""

    def __getitem__(self, rows: Array, /) -> Array:
        """(M, D) of the given rows."""


class FeatureSource(Protocol):
    """Pooled features of the images of a store, computed when they are first needed."""

    def __call__(self) -> RowFeatures:
        """Those of all images of the store."""

    def shifted(self, shift: str, strength: int, rows: Array) -> Array:
        """(M, D) of the given rows, with an acquisition shift applied to their images."""
