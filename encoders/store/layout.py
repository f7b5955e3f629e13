"""The layout of a store file as its reader needs it. Everything that the reader relies on is checked once, when the file is opened.

Pixels are read from the file through a memory map, past HDF5: a filter, another chunk size or a wrong offset would give wrong pixels
without an error.

Shapes: N images, H, W, C of one image.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.errors import InputError

PIXEL_DTYPES = ("uint8", "uint16")
MOST_SHOWN = 60  # characters of a value of the file in a message
HEX_DIGITS = 64  # of a SHA-256
REPAIR = "copy it again, or ingest again"
TEXT_COLUMNS = ("key", "patient", "sha256")  # of every store
ENCODED_HASHES = "encoded_sha256"  # (N, 32) bytes: of each JPEG
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}  # by number in HDF5


class PixelLayout(NamedTuple):
    """Where the pixels are in the file."""

    shape: tuple[int, int, int] | None  # (H, W, C); None for JPEGs, which state their own
    dtype: np.dtype[Any]
    offsets: IntArray  # bytes from the start of the file: raw (N,) of each image, jpeg (N + 1,) of each image and the end
    end: int  # byte after the last pixel


def locate_pixels(file: h5py.File, attrs: Mapping[str, Any], path: Path) -> PixelLayout:
    """Where the pixels of a file are. Raises InputError for a codec or a storage that the reader does not read."""
    codec = attrs["codec"]
    if codec == "raw":
        return locate_raw(file["images"], attrs, path)
    if codec == "jpeg":
        return locate_jpeg(file["blob"], file["offsets"], path)
    raise InputError(f"{path} is stored with codec {str(codec)[:MOST_SHOWN]!r}; this version of isograft reads raw and jpeg")


def locate_raw(images: h5py.Dataset, attrs: Mapping[str, Any], path: Path) -> PixelLayout:
    """Where the images of a dataset (N, H, W, C) are, which has one image per chunk and no filter."""
    require_plain(images, path)
    if images.ndim != 4 or images.dtype.name not in PIXEL_DTYPES:
        raise InputError(
            f"{path}: images is {describe_array(images)}; a store has (N, H, W, C) of {', '.join(PIXEL_DTYPES)}: "
            "`encoders ingest hdf5` converts arrays"
        )
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    if images.chunks != (1, *shape):
        raise InputError(
            f"{path}: images is stored in {describe_chunks(images)}, and a store has one image per chunk, {(1, *shape)}; "
            "`encoders ingest hdf5` converts it"
        )
    if attrs["channels"] != shape[2]:
        raise InputError(f"{path}: the attribute channels is {attrs['channels']} and its images have {shape[2]}; {REPAIR}")
    offsets = read_chunk_offsets(images, path)
    n_bytes = math.prod(shape) * images.dtype.itemsize
    return PixelLayout(shape, images.dtype, offsets, int(offsets.max(initial=0)) + (n_bytes if len(offsets) else 0))


def read_chunk_offsets(images: h5py.Dataset, path: Path) -> IntArray:
    """(N,) byte offsets in the file of the images of a dataset with one image per chunk."""
    offsets = np.full(len(images), -1, dtype=np.int64)
    n_bytes, odd = math.prod(images.chunks) * images.dtype.itemsize, [0]

    def save_offset(chunk: h5py.h5d.StoreInfo) -> None:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset
        odd[0] += chunk.size != n_bytes or chunk.filter_mask != 0

    images.id.chunk_iter(save_offset)
    if (missing := int((offsets < 0).sum())) or odd[0]:
        what = f"lacks the pixels of {missing} images" if missing else f"has pixels of another size in {odd[0]} images"
        raise InputError(f"{path} {what}; {REPAIR}")
    if len(np.unique(offsets)) != len(offsets):
        raise InputError(f"{path}: several images have the same pixels in the file; {REPAIR}")
    return offsets


def locate_jpeg(blob: h5py.Dataset, offsets: h5py.Dataset, path: Path) -> PixelLayout:
    """Where the JPEGs of a contiguous dataset of bytes are.  offsets: (N + 1,), the start of each in it and the end of the last."""
    require_plain(blob, path)
    if blob.ndim != 1 or blob.dtype != np.uint8 or blob.chunks is not None:
        raise InputError(f"{path}: blob is {describe_array(blob)} in {describe_chunks(blob)}; a store has bytes in one piece; {REPAIR}")
    start = blob.id.get_offset()
    if start is None:
        if len(blob):
            raise InputError(f"{path}: the bytes of blob are not in the file; {REPAIR}")
        start = 0
    if offsets.ndim != 1 or offsets.dtype.kind not in "ui" or not len(offsets):
        raise InputError(f"{path}: offsets is {describe_array(offsets)}; a store has (N + 1,) integers; {REPAIR}")
    positions = offsets[:]
    if positions[0] != 0 or positions[-1] != len(blob) or (positions[1:] <= positions[:-1]).any():
        raise InputError(f"{path}: offsets does not rise from 0 to the {len(blob):,} bytes of blob; {REPAIR}")
    positions = positions.astype(np.int64) + int(start)
    return PixelLayout(None, np.dtype(np.uint8), positions, int(positions[-1]))


def require_plain(data: h5py.Dataset, path: Path) -> None:
    """Raises InputError for a dataset whose bytes in the file are not its values."""
    plist, name = data.id.get_create_plist(), data.name.lstrip("/")
    filters = [FILTERS.get(number := plist.get_filter(i)[0], f"number {number}") for i in range(plist.get_nfilters())]
    if filters:
        raise InputError(
            f"{path}: {name} is compressed or checked by HDF5 ({', '.join(filters)}), and a store holds plain bytes; undo it by "
            f"`h5repack -f {name}:NONE {path.name} NEW`, or ingest again"
        )
    if data.is_virtual or data.external:
        raise InputError(f"{path}: {name} lies in other files ({'virtual' if data.is_virtual else 'external'} dataset); {REPAIR}")


def check_attributes(attrs: Mapping[str, Any], path: Path) -> None:
    """Raises InputError for an attribute of another type or range than the reader needs. Raises KeyError for a missing one."""
    unit, fingerprint = attrs["unit"], attrs["fingerprint"]
    numbers = [unit.get("scale"), unit.get("offset")] if isinstance(unit, dict) else [None]
    right = {
        "modality": isinstance(attrs["modality"], str),
        "dataset": isinstance(attrs["dataset"], str),
        "channels": attrs["channels"] in (1, 3) and not isinstance(attrs["channels"], bool),
        "unit": all(isinstance(v, int | float) and math.isfinite(v) for v in numbers) and numbers[0] != 0,
        "geometry": isinstance(attrs.get("geometry") or {}, dict),
        "fingerprint": isinstance(fingerprint, str) and len(fingerprint) == HEX_DIGITS and set(fingerprint) <= set("0123456789abcdef"),
    }
    if wrong := [name for name, fits in right.items() if not fits]:
        raise InputError(f"{path}: its attribute {wrong[0]} is {str(attrs[wrong[0]])[:MOST_SHOWN]!r}, which no store has; {REPAIR}")


def check_columns(columns: Mapping[str, Mapping[str, h5py.Dataset]], n: int, path: Path) -> None:
    """Raises InputError when a column has another length than the images, or cannot hold what it is for."""
    for name in TEXT_COLUMNS:
        if (data := columns["index"].get(name)) is None or h5py.check_string_dtype(data.dtype) is None or data.ndim != 1:
            what = "is missing" if data is None else f"is {describe_array(data)}, expected texts"
            raise InputError(f"{path}: the column index/{name} {what}; {REPAIR}")
    for name, data in columns.get("labels", {}).items():
        if data.ndim != 1 or data.dtype.kind not in "biuf":
            raise InputError(f"{path}: the label {name!r} is {describe_array(data)}, expected (N,) numbers; {REPAIR}")
    for group, found in columns.items():
        for name, data in found.items():
            if not data.shape or data.shape[0] != n:
                length = data.shape[0] if data.shape else 0
                raise InputError(f"{path}: the column {group}/{name} has {length:,} values for {n:,} images; {REPAIR}")


def read_classes(label: h5py.Dataset, path: Path) -> list[str]:
    """The class names of a label of texts. Raises InputError if they are no list of texts, or if a code has no name."""
    classes, codes = json.loads(label.attrs["classes"]), label[:]
    names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    known = codes[~np.isnan(codes.astype(np.float64))]
    if not names or not np.isin(known, np.arange(len(classes))).all():
        raise InputError(f"{path}: the classes of the label {label.name.split('/')[-1]!r} do not fit its codes; {REPAIR}")
    return list(classes)


def check_fingerprint(sha256: Array, fingerprint: str, path: Path) -> None:
    """Raises InputError when the fingerprint is not that of the stored hashes.  sha256: (N,) text of 64 hex digits."""
    joined = "".join(sha256.tolist())
    try:
        digest = hashlib.sha256(bytes.fromhex(joined)).hexdigest()
    except ValueError:
        digest = ""
    if digest != fingerprint or len(joined) != HEX_DIGITS * len(sha256):
        raise InputError(f"{path}: its fingerprint is not that of its column sha256: one of them was changed; {REPAIR}")


def check_encoded_fingerprint(digests: Array, fingerprint: str, n: int, path: Path) -> None:
    """Raises InputError when the fingerprint is not that of the hashes of the JPEGs.  digests: (N, 32)."""
    if digests.shape != (n, 32) or digests.dtype != np.uint8 or hashlib.sha256(digests.tobytes()).hexdigest() != fingerprint:
        raise InputError(f"{path}: its encoded_fingerprint is not that of its {ENCODED_HASHES}: one of them was changed; {REPAIR}")


def describe_array(data: h5py.Dataset) -> str:
    return f"{data.shape} of {data.dtype}"


def describe_chunks(data: h5py.Dataset) -> str:
    return "one piece" if data.chunks is None else f"chunks of {data.chunks}"
