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
from encoders.runtime.files import atomic_write
from encoders.runtime.json_types import Json
from encoders.store.part import JSON_ATTRIBUTES, STORE_FORMAT, VERSION

ColumnValues = Sequence[Any] | Array
UNKNOWN_WORDS = {"", "nan", "na", "n/a", "null"}  # in a text column, upper or lower case: the value is unknown
NUMERIC_INDEX_COLUMNS = {"x", "y", "mpp", "level", "tissue"}


class TextValues(list[str]):
    """Values of a column that stay text even if they all look like numbers: the same column holds text in another file of the store."""


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
) -> None:
    """Writes a store of raw pixels.

    images: N arrays (H, W, C), consumed one at a time.  attrs: as in the schema, without format and version.
    pictures: encoded pictures of the whole (a slide's overview), which become /pictures/NAME.

    Raises InputError when a key occurs twice, when there is no image, and when the folder cannot be written."""
    n = len(index["key"])
    with atomic_write(path) as part, h5py.File(part, "w", libver=("v110", "v110")) as file:
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
    with atomic_write(path) as part, h5py.File(part, "w", libver=("v110", "v110")) as file:
        write_metadata(file, attrs, index, meta or {}, labels or {}, pictures or {})
        file.create_dataset("offsets", data=offsets, track_times=False)
        data = file.create_dataset("blob", (int(offsets[-1]),), np.uint8, track_times=False)
        written = 0
        for blob in blobs:
            data[written : written + len(blob)] = np.frombuffer(blob, np.uint8)
            written += len(blob)
        if written != int(offsets[-1]):
            raise ValueError(f"{written} bytes were given for images of {int(offsets[-1])} bytes")


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
    from encoders.similarity.perceptual_hash import phash256, pixel_sha256

    sha = [pixel_sha256(image) for image in images]
    keys = [f"{i:06d}" for i in range(len(images))]
    patients = keys if patient is None else [str(p) for p in patient]
    hashes = np.stack([phash256(image) for image in images])
    index: dict[str, ColumnValues] = {"key": keys, "patient": patients, "sha256": sha, "phash": hashes}
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
    for name, value in sorted({**attrs, "format": STORE_FORMAT, "version": VERSION}.items()):
        file.attrs[name] = json.dumps(value, sort_keys=True) if name in JSON_ATTRIBUTES else value
    for group, columns in (("index", index), ("meta", meta)):
        h5_group = file.create_group(group, track_order=False)
        for name in sorted(columns):
            is_text = group == "index" and name not in NUMERIC_INDEX_COLUMNS
            write_column(h5_group, name, np.asarray(columns[name]) if name == "phash" else to_typed_column(columns[name], text=is_text))
    h5_group = file.create_group("labels", track_order=False)
    for name in sorted(labels):
        values, classes = encode_labels(labels[name])
        write_column(h5_group, name, values)
        if classes is not None:
            h5_group[name].attrs["classes"] = json.dumps(classes)
    for name, blob in sorted(pictures.items()):
        file.create_dataset(f"pictures/{name}", data=np.frombuffer(blob, np.uint8), track_times=False)


def write_column(group: h5py.Group, name: str, values: Array) -> None:
    if values.dtype.kind == "U":
        raw = np.char.encode(values, "utf-8") if values.size else values.astype("S1")
        values = raw.astype(h5py.string_dtype("utf-8", max(1, raw.dtype.itemsize)))
    group.create_dataset(name, data=values, track_times=False)


def is_known(value: object) -> bool:
    """Whether a value of a column is known: not None, not NaN, and not one of UNKNOWN_WORDS."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    return not isinstance(value, str) or value.strip().lower() not in UNKNOWN_WORDS


def is_number(value: object) -> bool:
    """Whether a known value is a number, or text that is only a number."""
    if not isinstance(value, str):
        return True
    text = value.strip()
    return bool(NUMBER_PATTERN.fullmatch(text)) and any(c.isdigit() for c in text)


def to_typed_column(values: ColumnValues, text: bool = False) -> Array:
    """(N,) float64 with NaN for unknown if all known values are numbers, otherwise strings with "" for unknown.

    An array of floats stays one, even if all values are unknown, and TextValues stay strings."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not text:
        return values.astype(np.float64)
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not text and not isinstance(values, TextValues) and any(map(is_known, items)) and all(is_number(v) for v in items if is_known(v)):
        return np.array([float(v) if is_known(v) else np.nan for v in items])
    return np.array([str(v).strip() if is_known(v) or (text and isinstance(v, str)) else "" for v in items], dtype=str)


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
