"""One store file: its attributes, the position of its pixels, and its columns.

The offsets of the pixels are read once; the pixels are then read from the file through a memory map. No HDF5 handle stays open, so a part
may be pickled, forked and spawned; every process maps the file itself.

Shapes: N images, H, W, C of one image.
"""

import hashlib
import json
import mmap
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_heaps import check_global_heaps
from encoders.runtime.local_notes import show_key
from encoders.store.hdf5_errors import reading_hdf5
from encoders.store.layout import (
    ENCODED_HASHES,
    MOST_SHOWN,
    check_attributes,
    check_columns,
    check_encoded_fingerprint,
    check_fingerprint,
    locate_pixels,
    read_classes,
)
from encoders.store.metadata_digest import DIGEST_ATTRIBUTE, digest_metadata

STORE_FORMAT, VERSION = "isograft-store", 1
JSON_ATTRIBUTES = ("unit", "geometry", "recipe", "slide")
UNKNOWN_ATTRIBUTE = "unknown"  # of a column: the texts that meant unknown at ingest and how often each occurred, JSON

SLASH = "%2F"  # in the file, for a slash in the name of a column


class StorePart:
    """One HDF5 file in the store schema, read-only."""

    def __init__(self, path: Path):
        """Raises InputError when the file is missing, truncated, damaged, not a store, of another version, or of another layout."""
        self.path = path
        with reading_hdf5(path), h5py.File(path, "r", locking=False) as file:
            check_global_heaps(file, path)
            self.attrs = read_attributes(file, path)
            check_attributes(self.attrs, path)
            columns = {g: list_columns(file[g]) for g in ("index", "meta", "labels") if g in file}
            self.length = len(file["index"]["key"])
            check_columns(columns, self.length, path)
            self.groups = {g: sorted(found) for g, found in columns.items()}
            labels = columns.get("labels", {})
            self.classes = {n: read_classes(d, path) for n, d in labels.items() if "classes" in d.attrs}
            self.codec = str(self.attrs["codec"])
            self.shape, self.dtype, self.offsets, self.end = locate_pixels(file, self.attrs, path)
            if (n := len(self.offsets) - (self.shape is None)) != self.length:
                raise InputError(f"{path} has {n:,} images and {self.length:,} keys; copy it again, or ingest again")
            check_fingerprint(file["index"]["sha256"].asstr()[:], str(self.attrs["fingerprint"]), path)
            if self.codec == "jpeg" and (encoded := self.attrs.get("encoded_fingerprint")) is not None:
                check_encoded_fingerprint(file[ENCODED_HASHES][:], str(encoded), self.length, path)
        self._check_size(path.stat().st_size)
        self._map: mmap.mmap | None = None

    def _check_size(self, size: int) -> None:
        if self.end > size:
            raise InputError(f"{self.path} is shorter than its table of contents requires; it was cut off: copy or ingest it again")

    def __len__(self) -> int:
        return self.length

    @property
    def fingerprint(self) -> str:
        """64 hex digits that identify the pixels as they are read. The attribute in the file is of the pixels before JPEG."""
        stored = str(self.attrs["fingerprint"])
        if self.codec == "raw":
            return stored
        encoded = self.attrs.get("encoded_fingerprint")  # missing in stores of earlier versions
        return hashlib.sha256(f"{stored} {self.codec}{f' {encoded}' if encoded else ''}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def image(self, i: int) -> Array:
        """(H, W, C) in the stored dtype: a read-only view of the file (raw), or decoded (jpeg)."""
        if self.shape is not None:
            return np.ndarray(self.shape, self.dtype, self._mapped(), int(self.offsets[i]))
        try:
            return decode_jpeg(self.encoded(i), int(self.attrs["channels"]))
        except ValueError as error:
            key = self.column("index", "key")[i]
            raise InputError(
                f"{self.path}: the JPEG of {show_key(key)} cannot be decoded ({error}); copy the store again, or ingest again"
            ) from error

    def encoded(self, i: int) -> bytes:
        """The JPEG of an image."""
        return self._mapped()[self.offsets[i] : self.offsets[i + 1]]

    def _mapped(self) -> mmap.mmap:
        """The file in memory. Raises InputError when it is gone, or shorter than it was: reading past its end would kill the process."""
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    self._check_size(os.fstat(file.fileno()).st_size)
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise InputError(f"cannot read {self.path}: {error.strerror}") from error
        return self._map

    def column(self, group: str, name: str) -> Array:
        """(N,) or (N, K) values; text as NumPy strings."""
        with reading_hdf5(self.path, f"{group}/{name}"), h5py.File(self.path, "r", locking=False) as file:
            data = find_column_data(file[group], name)
            values: Array = data.asstr()[:].astype(str) if h5py.check_string_dtype(data.dtype) else data[:]
            return values

    def unknown_texts(self, group: str, name: str) -> dict[str, int]:
        """The texts that meant unknown when a column was written -> how often; {} for none, and for a store that does not state them."""
        with reading_hdf5(self.path, f"{group}/{name}"), h5py.File(self.path, "r", locking=False) as file:
            counts = json.loads(find_column_data(file[group], name).attrs.get(UNKNOWN_ATTRIBUTE, "{}"))
            if not isinstance(counts, dict) or any(type(n) is not int or n < 0 for n in counts.values()):
                raise ValueError(f"the texts that mean unknown are {str(counts)[:MOST_SHOWN]!r}")
            return counts

    def encoded_sha256(self) -> Array | None:
        """(N, 32) SHA-256 of each JPEG; None for raw pixels, and for stores of earlier versions, which do not state them."""
        with reading_hdf5(self.path, ENCODED_HASHES), h5py.File(self.path, "r", locking=False) as file:
            return file[ENCODED_HASHES][:] if ENCODED_HASHES in file else None

    def metadata_is_intact(self) -> bool | None:
        """Whether attributes and columns are those that were written; None for stores of earlier versions, which cannot say."""
        if DIGEST_ATTRIBUTE not in self.attrs:
            return None
        with reading_hdf5(self.path), h5py.File(self.path, "r", locking=False) as file:
            return digest_metadata(file) == str(self.attrs[DIGEST_ATTRIBUTE])

    def picture(self, name: str) -> bytes | None:
        """The encoded picture `name` (overview or mask of a slide); None when the store has none."""
        with reading_hdf5(self.path, f"pictures/{name}"), h5py.File(self.path, "r", locking=False) as file:
            return file["pictures"][name][:].tobytes() if f"pictures/{name}" in file else None


def stored_column_name(name: str) -> str:
    """The name of a column in the file: HDF5 would read `Nodule/Mass` as a group with a dataset in it."""
    return name.replace("/", SLASH)


def list_columns(group: h5py.Group, above: str = "") -> dict[str, h5py.Dataset]:
    """Name -> dataset. Earlier versions stored a name with a slash as nested groups; their columns have the same name here."""
    found: dict[str, h5py.Dataset] = {}
    for stored, data in group.items():
        name = above + stored.replace(SLASH, "/")
        found |= list_columns(data, f"{name}/") if isinstance(data, h5py.Group) else {name: data}
    return found


def find_column_data(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of a column. Raises KeyError if there is none."""
    stored = stored_column_name(name)
    return group[stored if stored in group else name]


def read_attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """The root attributes, those in JSON decoded. Raises InputError for a file of another format or version."""
    attrs = {name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()}
    if attrs.get("format") != STORE_FORMAT:
        raise InputError(f"{path} is HDF5 but not a store; `encoders ingest hdf5` converts arrays in HDF5 to a store")
    if attrs.get("version") != VERSION:
        version = str(attrs.get("version"))[:MOST_SHOWN]
        raise InputError(f"{path} is a store of version {version!r}, this version of isograft reads version {VERSION}; ingest it again")
    return {name: json.loads(value) if name in JSON_ATTRIBUTES else value for name, value in attrs.items()}


def decode_jpeg(blob: bytes, channels: int) -> NDArray[np.uint8]:
    """(H, W, C) pixels of a JPEG, equal to Pillow's, in two thirds of its time; a gray image is repeated for 3 channels."""
    import simplejpeg

    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(blob, "RGB" if channels == 3 else "GRAY", fastdct=False, fastupsample=False)
    return pixels
