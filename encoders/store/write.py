"""Writes a store: the same images and columns give the same bytes, on every machine with the same version of HDF5.

There are no time stamps, strings have fixed lengths (HDF5 keeps others in heaps whose layout depends on the order of writes), and writing
is atomic.

Shapes: N images, H, W, C of one image.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_file import atomic_hdf5
from encoders.runtime.json_types import Json
from encoders.runtime.unknown_values import count_unknown, find_unknown, is_unknown
from encoders.similarity.perceptual_hash import HASH_COLUMNS
from encoders.store.layout import ENCODED_HASHES
from encoders.store.masks import write_masks
from encoders.store.metadata_digest import DIGEST_ATTRIBUTE, digest_metadata
from encoders.store.part import JSON_ATTRIBUTES, STORE_FORMAT, UNKNOWN_ATTRIBUTE, VERSION, stored_column_name
from encoders.store.patient_ids import name_patients
from encoders.store.tile_coordinates import LEVEL0_SIDE_COLUMN

ColumnValues = Sequence[Any] | Array
NAME_COLUMNS = ("patient", "slide", "study", "split")  # of /index: `none` is no name, see encoders/runtime/unknown_values.py
NUMERIC_INDEX_COLUMNS = {"x", "y", "mpp", "level", "tissue", LEVEL0_SIDE_COLUMN}
COMPUTED_ATTRIBUTES = ("encoded_fingerprint", DIGEST_ATTRIBUTE)


class TextValues(list[str]):
    """Values of a column that stay text even if they all look like numbers, and in which `none` is a class: the same column holds other
    words in another file of the store."""


NUMBER_PATTERN = re.compile(r"[+-]?(0|[1-9]\d*)?(\.\d*)?([eE][+-]?\d+)?")  # "007" is a name, not the number 7


def write_store(
    path: str | Path,
    images: Iterable[Array],
    shape: tuple[int, int, int],
    dtype: DTypeLike,
    attrs: Mapping[str, Json],
    index: Mapping[str, ColumnValues],
    meta: Mapping[str, ColumnValues] | None = None,
    labels: Mapping[str, ColumnValues] | None = None,
    pictures: Mapping[str, bytes] | None = None,
    masks: Iterable[Array] | None = None,
) -> None:
    """Writes a store of raw pixels.

    images: N arrays (H, W, C), consumed one at a time.  attrs: as in the schema, without format and version.
    pictures: encoded pictures of the whole (a slide's overview), which become /pictures/NAME.
    masks: N arrays (H, W) of bool, where the finding of each image is, which become /masks.

    Raises InputError when a key occurs twice, when there is no image, and when the folder cannot be written."""
    n = len(index["key"])
    with atomic_hdf5(path, libver=("v110", "v110")) as file:
        write_metadata(file, attrs, index, meta or {}, labels or {}, pictures or {})
        data = file.create_dataset("images", (n, *shape), dtype, chunks=(1, *shape), fillvalue=None, track_times=False) if n else None
        if data is None:
            raise InputError(f"{path} would have no images; nothing was written")
        count = 0
        for image in images:
            if image.shape != tuple(shape) or image.dtype != data.dtype:
                raise ValueError(f"image {count} is {image.shape} {image.dtype}, the store {tuple(shape)} {data.dtype}")
            data.id.write_direct_chunk((count, 0, 0, 0), np.ascontiguousarray(image).data)
            count += 1
        if count != n:
            raise ValueError(f"{count} images were given for {n} rows")
        if masks is not None:
            write_masks(file, masks, (n, *shape[:2]))
        file.attrs[DIGEST_ATTRIBUTE] = digest_metadata(file)


def write_jpeg_store(
    path: str | Path,
    blobs: Iterable[bytes],
    sizes: ColumnValues,
    attrs: Mapping[str, Json],
    index: Mapping[str, ColumnValues],
    meta: Mapping[str, ColumnValues] | None = None,
    labels: Mapping[str, ColumnValues] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a store of JPEGs.  blobs: parts of the concatenated encoded images, in order.  sizes: (N,) bytes of each image."""
    offsets = np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.uint64))]).astype(np.uint64)
    with atomic_hdf5(path, libver=("v110", "v110")) as file:
        write_metadata(file, attrs, index, meta or {}, labels or {}, pictures or {})
        file.create_dataset("offsets", data=offsets, track_times=False)
        data = file.create_dataset("blob", (int(offsets[-1]),), np.uint8, track_times=False)
        hasher, written = PieceHasher(np.diff(offsets.astype(np.int64)).tolist()), 0
        for blob in blobs:
            data[written : written + len(blob)] = np.frombuffer(blob, np.uint8)
            hasher.update(blob)
            written += len(blob)
        if written != int(offsets[-1]):
            raise ValueError(f"{written} bytes were given for images of {int(offsets[-1])} bytes")
        digests = b"".join(hasher.digests)
        file.create_dataset(ENCODED_HASHES, data=np.frombuffer(digests, np.uint8).reshape(-1, 32), track_times=False)
        file.attrs["encoded_fingerprint"] = hashlib.sha256(digests).hexdigest()
        file.attrs[DIGEST_ATTRIBUTE] = digest_metadata(file)


class PieceHasher:
    """SHA-256 of consecutive pieces of a stream whose parts end anywhere.  sizes: bytes of each piece, more than 0."""

    def __init__(self, sizes: Sequence[int]):
        self.digests: list[bytes] = []  # of the pieces that are complete
        self._sizes = list(sizes)
        self._hash, self._room = hashlib.sha256(), 0
        self._start_piece()

    def _start_piece(self) -> None:
        self._hash = hashlib.sha256()
        self._room = self._sizes[len(self.digests)] if len(self.digests) < len(self._sizes) else 0

    def update(self, data: bytes) -> None:
        """Takes the next bytes of the stream; those after the last piece are ignored."""
        view = memoryview(data)
        while len(view) and self._room:
            taken, view = view[: self._room], view[self._room :]
            self._hash.update(taken)
            self._room -= len(taken)
            if not self._room:
                self.digests.append(self._hash.digest())
                self._start_piece()


def save_store(
    path: str | Path,
    images: Array,
    *,
    patient: ColumnValues | None = None,
    labels: Mapping[str, ColumnValues] | None = None,
    meta: Mapping[str, ColumnValues] | None = None,
    modality: str = "cxr",
    dataset: str = "arrays",
    **attrs: Json,
) -> Path:
    """Writes a store of images in memory, (N, H, W, C) uint8 or uint16, whose keys are their numbers. For scripts and tests."""
    from encoders.similarity.perceptual_hash import hash_columns, hash_signs, pixel_sha256

    sha = [pixel_sha256(image) for image in images]
    keys = [f"{i:06d}" for i in range(len(images))]
    signs = np.stack([hash_signs(image) for image in images])
    index: dict[str, ColumnValues] = {"key": keys, "patient": keys if patient is None else patient, "sha256": sha, **hash_columns(signs)}
    height, width, channels = images.shape[1:]
    defaults: dict[str, Json] = {
        "modality": modality,
        "codec": "raw",
        "channels": channels,
        "unit": full_range_unit(images.dtype),
        "dataset": dataset,
        "geometry": {"resize": "none", "size": [height, width]},
        "recipe": {"command": "save"},
        "fingerprint": pixel_fingerprint(sha),
    }
    write_store(path, images, (height, width, channels), images.dtype, defaults | attrs, index, meta, labels)
    return Path(path)


def write_metadata(
    file: h5py.File,
    attrs: Mapping[str, Json],
    index: Mapping[str, ColumnValues],
    meta: Mapping[str, ColumnValues],
    labels: Mapping[str, ColumnValues],
    pictures: Mapping[str, bytes],
) -> None:
    """Writes everything but the pixels: root attributes, the three groups of columns and the pictures, each in sorted order."""
    keys = [str(key) for key in index["key"]]
    if len(set(keys)) < len(keys):
        repeated = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise InputError(f"the key {repeated!r} occurs twice; keys identify images and must be unique")
    own = {name: value for name, value in attrs.items() if name not in COMPUTED_ATTRIBUTES}  # not those of the store it was copied from
    for name, value in sorted({**own, "format": STORE_FORMAT, "version": VERSION}.items()):
        file.attrs[name] = json.dumps(value, sort_keys=True) if name in JSON_ATTRIBUTES else value
    h5_group = file.create_group("index", track_order=False)
    for name in sorted(index):
        write_index_column(h5_group, name, index[name], keys)
    h5_group = file.create_group("meta", track_order=False)
    for name in sorted(meta):
        write_column(h5_group, name, to_typed_column(meta[name]), meta[name])
    h5_group = file.create_group("labels", track_order=False)
    for name in sorted(labels):
        values, classes = encode_labels(labels[name])
        write_column(h5_group, name, values, labels[name])
        if classes is not None:
            h5_group[stored_column_name(name)].attrs["classes"] = json.dumps(classes)
    for name, blob in sorted(pictures.items()):
        file.create_dataset(f"pictures/{name}", data=np.frombuffer(blob, np.uint8), track_times=False)


def write_index_column(group: h5py.Group, name: str, values: ColumnValues, keys: Sequence[str]) -> None:
    """Writes a column of /index. An unknown patient is named by the key of the image, an unknown slide, study or split is ""."""
    if name in HASH_COLUMNS:
        write_column(group, name, np.asarray(values))
    elif name in NUMERIC_INDEX_COLUMNS:
        write_column(group, name, to_typed_column(values))
    elif name == "patient":
        write_column(group, name, name_patients(values, keys), values, names=True)
    else:
        is_name = name in NAME_COLUMNS
        missing = np.array([not isinstance(v, str) and is_unknown(v) for v in values], dtype=bool)  # a key or a path has any text
        column = to_text_column(values, find_unknown(values, names=True) if is_name else missing)
        write_column(group, name, column, values if is_name else None, names=True)


def write_column(group: h5py.Group, name: str, column: Array, values: ColumnValues | None = None, names: bool = False) -> None:
    """Writes `column`, with the texts of the unknown ones among its original `values` and how often each occurs as an attribute."""
    if column.dtype.kind == "U":
        raw = np.char.encode(column, "utf-8") if column.size else column.astype("S1")
        column = raw.astype(h5py.string_dtype("utf-8", max(1, raw.dtype.itemsize)))
    data = group.create_dataset(stored_column_name(name), data=column, track_times=False)
    if values is not None and not (isinstance(values, np.ndarray) and values.dtype.kind == "f"):  # an array of floats has no texts
        unknown = find_unknown_in_column(values, names)
        if unknown.any():
            data.attrs[UNKNOWN_ATTRIBUTE] = json.dumps(count_unknown(values, unknown))


def find_unknown_in_column(values: ColumnValues, names: bool = False) -> NDArray[np.bool_]:
    """(N,) as `find_unknown`; for TextValues, whose other words are in other files, `none` is known."""
    if isinstance(values, TextValues):
        return np.array([is_unknown(v, beside_words=True) for v in values], dtype=bool)
    return find_unknown(values, names)


def is_number(value: object) -> bool:
    """Whether a known value is a number, or text that is only a number."""
    if not isinstance(value, str):
        return True
    text = value.strip()
    return bool(NUMBER_PATTERN.fullmatch(text)) and any(c.isdigit() for c in text)


def to_typed_column(values: ColumnValues) -> Array:
    """(N,) float64 with NaN for unknown if all known values are numbers, otherwise strings with "" for unknown.

    An array of floats stays one, even if all values are unknown, and TextValues stay strings."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return values.astype(np.float64)
    unknown = find_unknown_in_column(values)
    if not isinstance(values, TextValues) and not unknown.all() and all(map(is_number, np.asarray(values, dtype=object)[~unknown])):
        return np.array([np.nan if hole else float(v) for v, hole in zip(values, unknown, strict=True)])
    return to_text_column(values, unknown)


def to_text_column(values: ColumnValues, unknown: NDArray[np.bool_]) -> Array:
    """(N,) strings without spaces around them, "" for unknown."""
    return np.array(["" if hole else str(v).strip() for v, hole in zip(values, unknown, strict=True)], dtype=str)


def encode_labels(values: ColumnValues) -> tuple[NDArray[np.float32], list[str] | None]:
    """(N,) label values with NaN for unknown, and the sorted class names if they are text (the values are then indices of these)."""
    column = to_typed_column(values)
    if column.dtype.kind == "f":
        return column.astype(np.float32), None
    if not (column != "").any():
        return np.full(len(column), np.nan, np.float32), None
    classes = sorted(set(column.tolist()) - {""})
    codes = {name: float(i) for i, name in enumerate(classes)} | {"": math.nan}
    return np.array([codes[v] for v in column.tolist()], np.float32), classes


def full_range_unit(dtype: DTypeLike, bits: int | None = None) -> dict[str, Json]:
    """The unit of values that use all bits of `dtype`, or the lowest `bits` of them."""
    top = float(2 ** (bits or np.dtype(dtype).itemsize * 8) - 1)
    return {"scale": top, "offset": 0.0, "meaning": f"0 = darkest, {top:.0f} = brightest value of the file format"}


def pixel_fingerprint(sha256: Iterable[str]) -> str:
    """The SHA-256 of the ordered pixel hashes."""
    return hashlib.sha256(bytes(chain.from_iterable(bytes.fromhex(each) for each in sha256))).hexdigest()
