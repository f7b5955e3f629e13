"""Masks beside the images of a store: where the finding of each image is. A store need not have them; phantoms do on request.

Shapes: N images, B of them, H x W pixels.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import h5py
import numpy as np

from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.errors import InputError
from encoders.store.hdf5_errors import reading_hdf5
from encoders.store.metadata_digest import MASKS

if TYPE_CHECKING:
    from encoders.store.store import Store


def write_masks(file: h5py.File, masks: Iterable[Array], shape: tuple[int, int, int]) -> None:
    """Writes /masks.  masks: N arrays (H, W) of bool.  shape: N, H, W."""
    data = file.create_dataset(MASKS, shape, np.uint8, chunks=(1, *shape[1:]), compression="gzip", track_times=False)
    for i, mask in enumerate(masks):
        data[i] = mask


def has_masks(store: "Store") -> bool:
    """Whether every file of the store has masks."""
    for part in store.parts:
        with reading_hdf5(part.path), h5py.File(part.path, "r", locking=False) as file:
            if MASKS not in file:
                return False
    return True


def read_masks(store: "Store", rows: Array) -> list[BoolArray]:
    """The masks (H, W) of some images. Raises InputError if a file has none, or masks of other images."""
    masks = []
    for row in np.asarray(rows).tolist():
        part, i = store.locate(int(row))
        with reading_hdf5(part.path, MASKS), h5py.File(part.path, "r", locking=False) as file:
            if MASKS not in file:
                raise InputError(f"{part.path} has no masks; phantoms have them with `encoders ingest phantom --masks`")
            data = file[MASKS]
            if part.shape is None or data.shape != (len(part), *part.shape[:2]) or data.dtype != np.uint8:
                raise InputError(f"{part.path}: masks is {data.shape} of {data.dtype}, which is not that of its images; ingest again")
            masks.append(np.asarray(data[i] > 0))
    return masks
