"""Labels of slices from a segmentation volume: a slice is positive if enough of its pixels have one of some values.

Shapes: X, Y, Z of the voxels; H, W of a slice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.ingest.nifti.volume import VolumeGeometry, read_geometry, read_voxels, volume_stem
from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError

SAME_GRID_MM = 0.1  # largest distance of equal voxels of a volume and its segmentation; headers are rounded differently


@dataclass(frozen=True)
class SegmentLabel:
    """A label of slices. values: of the segmentation that count; empty: all but 0."""

    name: str
    values: tuple[int, ...] = ()

    def count(self, mask: Array) -> int:
        """Number of pixels (H, W) that belong to the segment."""
        return int((np.isin(mask, self.values) if self.values else mask != 0).sum())


def parse_segment(text: str) -> SegmentLabel:
    """The label from `NAME` or `NAME=1,2,4`. Raises InputError for values that are no whole numbers."""
    name, equals, values = text.partition("=")
    try:
        numbers = tuple(int(part) for part in values.split(",")) if equals else ()
    except ValueError:
        raise InputError(f"--segment {text!r}: expected NAME or NAME=1,2,4 with the values of the segmentation") from None
    if not name.strip():
        raise InputError(f"--segment {text!r} names no label; expected NAME or NAME=1,2,4")
    return SegmentLabel(name.strip(), numbers)


def parse_substitution(text: str) -> tuple[str, str]:
    """The two texts of `OLD=NEW`. Raises InputError if one is empty or both are equal."""
    old, _, new = text.partition("=")
    if not old or not new or old == new:
        raise InputError(
            f"--segmentation {text!r} is not OLD=NEW; it turns the path of a volume into that of its segmentation, e.g. _flair=_seg or "
            "imagesTr=labelsTr"
        )
    return old, new


def pair_segmentations(volumes: Iterable[str], substitution: tuple[str, str]) -> dict[str, str]:
    """Volume -> its segmentation, for the volumes that have one: the last OLD in the path becomes NEW; .nii and .nii.gz are equal.

    volumes: relative paths of all files. Raises InputError if no file has a segmentation."""
    files = {volume_stem(name): name for name in volumes}
    old, new = substitution
    pairs = {}
    for stem, name in files.items():
        before, found, after = stem.rpartition(old)
        if found and (other := files.get(f"{before}{new}{after}")) is not None:
            pairs[name] = other
    if not pairs:
        first = next(iter(files.values()), "")
        raise InputError(f"--segmentation {old}={new} finds the segmentation of none of the {len(files)} volumes (first: {first})")
    return pairs


def read_segmentation(path: Path, volume: VolumeGeometry) -> Array:
    """(X, Y, Z) whole numbers on the voxels of `volume`, in LPS. Raises Unreadable if it lies on another grid."""
    geometry = read_geometry(path)
    if geometry.shape != volume.shape:
        raise Unreadable(f"its segmentation {path.name} has {geometry.shape} voxels, the volume {volume.shape}")
    corners = np.array([[i, j, k, 1] for i in (0, volume.shape[0]) for j in (0, volume.shape[1]) for k in (0, volume.shape[2])])
    apart = float(np.abs(corners @ (geometry.affine - volume.affine).T).max())
    if apart > SAME_GRID_MM:
        raise Unreadable(f"its segmentation {path.name} lies {apart:.2f} mm beside it (the affines of the two headers differ)")
    try:
        return np.asarray(read_voxels(path, dtype=np.int64)[..., 0])
    except Unreadable as error:
        raise Unreadable(f"its segmentation {path.name} {error}") from None
