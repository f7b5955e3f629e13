"""A finished slide about which the table says something else now: its store gets other columns, and keeps its tiles."""

from collections.abc import Iterator

import h5py
import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.cohort import Cohort
from encoders.ingest.wsi.finish import named, told
from encoders.ingest.wsi.item import Item
from encoders.ingest.wsi.piece import STRETCH
from encoders.ingest.wsi.quality import Quality
from encoders.runtime.errors import InputError
from encoders.store_part import Part
from encoders.store_write import write_jpeg_store, write_store

OF_TILES = ("key", "mpp", "level", "x", "y", "tissue", "sha256", "phash")  # columns of the index that no table says anything of


def relabel(cohort: Cohort, item: Item) -> None:
    """Writes the store as tiling the slide again would write it, to the byte. Raises Unreadable when the store is damaged."""
    path = cohort.store(item)
    try:
        part = Part(path)
    except InputError as wrong:
        raise Unreadable(f"its store is damaged: {wrong}") from wrong
    attrs = {**part.attrs, **cohort.attrs}
    index = {name: part.column("index", name) for name in OF_TILES} | named(item, attrs["slide"], len(part))
    meta, labels = told(item, {name: part.column("meta", name) for name in Quality._fields}, len(part))
    pictures = {name: blob for name in ("mask", "overview") if (blob := part.picture(name)) is not None}
    with h5py.File(path, "r", locking=False) as file:
        if part.codec == "jpeg":
            sizes = np.diff(file["offsets"][:].astype(np.int64))
            write_jpeg_store(path, stretches(file["blob"]), sizes, attrs, index, meta, labels, pictures)
        else:
            images = file["images"]
            write_store(path, iter(images), images.shape[1:], images.dtype, attrs, index, meta, labels, pictures)


def stretches(blob: h5py.Dataset) -> Iterator[bytes]:
    for start in range(0, len(blob), STRETCH):
        yield blob[start : start + STRETCH].tobytes()
