"""Rewrites the columns of a finished slide after a change of the table; its tiles stay."""

from collections.abc import Iterator

import h5py
import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.cohort import Cohort
from encoders.ingest.wsi.merge_slide import build_meta_and_labels, constant_columns
from encoders.ingest.wsi.quality import TileQuality
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_shard import BLOB_CHUNK_BYTES
from encoders.runtime.errors import InputError
from encoders.similarity.perceptual_hash import HASH_COLUMNS
from encoders.store.content import find_damaged_images
from encoders.store.hdf5_errors import reading_hdf5
from encoders.store.part import StorePart
from encoders.store.store import Store
from encoders.store.write import write_jpeg_store, write_store

TILE_COLUMNS = ("key", "mpp", "level", "x", "y", "tissue", "sha256")  # of the index, not from a table; and hashes


def relabel_store(cohort: Cohort, item: SlideItem) -> None:
    """Rewrites the store with the same bytes as a new ingest of the slide. Raises Unreadable if the store is damaged."""
    path = cohort.store_path(item)
    try:
        part = StorePart(path)
        damaged = next(filter(None, find_damaged_images(Store([part]), range(len(part)))), None)  # else it would be sealed as intact
    except InputError as error:
        raise Unreadable(f"its store is damaged: {error}") from error
    if damaged is not None:
        raise Unreadable(f"its store is damaged: {damaged.key}: {damaged.reason}; delete {path.name} to tile the slide again")
    attrs = {**part.attrs, **cohort.attrs}
    hashes = [name for name in HASH_COLUMNS if name in part.groups["index"]]  # earlier versions stored one of them only
    index = {name: part.column("index", name) for name in (*TILE_COLUMNS, *hashes)} | constant_columns(item, attrs["slide"], len(part))
    meta, labels = build_meta_and_labels(item, {name: part.column("meta", name) for name in TileQuality._fields}, len(part))
    pictures = {name: blob for name in ("mask", "overview") if (blob := part.picture(name)) is not None}
    with reading_hdf5(path), h5py.File(path, "r", locking=False) as file:
        if part.codec == "jpeg":
            sizes = np.diff(file["offsets"][:].astype(np.int64))
            write_jpeg_store(path, read_stored_chunks(file["blob"]), sizes, attrs, index, meta, labels, pictures)
        else:
            images = file["images"]
            write_store(path, iter(images), images.shape[1:], images.dtype, attrs, index, meta, labels, pictures)


def read_stored_chunks(blob: h5py.Dataset) -> Iterator[bytes]:
    """The encoded tiles of a store, concatenated, in chunks."""
    for start in range(0, len(blob), BLOB_CHUNK_BYTES):
        yield blob[start : start + BLOB_CHUNK_BYTES].tobytes()
