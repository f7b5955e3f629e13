"""One store file: its attributes, the position of its pixels, and its columns.

The offsets of the pixels are read once; the pixels are then read from the file through a memory map. No HDF5 handle stays open, so a part
may be pickled, forked and spawned; every process maps the file itself.

Shapes: N images, H, W, C of one image.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.errors import InputError

STORE_FORMAT, VERSION = "isograft-store", 1
JSON_ATTRIBUTES = ("unit", "geometry", "recipe", "slide")
UNKNOWN_ATTRIBUTE = "unknown"  # of a column: the texts that meant unknown at ingest and how often each occurred, JSON

SLASH = "%2F"  # in the file, for a slash in the name of a column


class StorePart:
    """One HDF5 file in the store schema, read-only."""

    def __init__(self, path: Path):
        """Raises InputError when the file is missing, truncated, not a store, or of another version."""
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self.attrs = read_attributes(file, path)
                columns = {g: list_columns(file[g]) for g in ("index", "meta", "labels") if g in file}
                self.groups = {g: sorted(found) for g, found in columns.items()}
                labels = columns.get("labels", {})
                self.classes = {n: json.loads(d.attrs["classes"]) for n, d in labels.items() if "classes" in d.attrs}
                self._locate(file)
        except FileNotFoundError:
            raise InputError(f"there is no store at {path}; `encoders ingest --help` shows how to create one") from None
        except (OSError, KeyError) as error:
            if isinstance(error, OSError) and error.errno:
                raise InputError(f"cannot read {path}: {error.strerror}") from error
            reason = "not an HDF5 file, or cut off while it was copied" if isinstance(error, OSError) else f"it has no {error.args[0]}"
            raise InputError(f"{path} is not a readable store: {reason}; ingest again, or copy it again") from error
        self._map: mmap.mmap | None = None

    def _locate(self, file: h5py.File) -> None:
        self.codec = str(self.attrs["codec"])
        self.offsets: IntArray
        if self.codec == "raw":
            images = file["images"]
            self.shape: tuple[int, int, int] | None = images.shape[1:]
            self.dtype = images.dtype
            self.offsets = read_chunk_offsets(images)  # (N,)
            end = int(self.offsets.max(initial=0)) + (images[:1].nbytes if len(images) else 0)
        elif self.codec == "jpeg":
            self.shape, self.dtype = None, np.dtype(np.uint8)
            start = file["blob"].id.get_offset() or 0  # None when the blob is empty
            self.offsets = file["offsets"][:].astype(np.int64) + start  # (N + 1,)
            end = int(self.offsets[-1])
        else:
            raise InputError(f"{self.path} is stored with codec {self.codec!r}; this version of isograft reads raw and jpeg")
        self.length = len(file["index"]["key"])
        if end > self.path.stat().st_size:
            raise InputError(f"{self.path} is shorter than its table of contents requires; it was cut off: copy or ingest it again")

    def __len__(self) -> int:
        return self.length

    @property
    def fingerprint(self) -> str:
        """64 hex digits that identify the pixels as they are read. The attribute in the file is of the pixels before JPEG."""
        stored = str(self.attrs["fingerprint"])
        return stored if self.codec == "raw" else hashlib.sha256(f"{stored} {self.codec}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def image(self, i: int) -> Array:
        """(H, W, C) in the stored dtype: a read-only view of the file (raw), or decoded (jpeg)."""
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.shape is not None:
            return np.ndarray(self.shape, self.dtype, self._map, int(self.offsets[i]))
        return decode_jpeg(self._map[self.offsets[i] : self.offsets[i + 1]], int(self.attrs["channels"]))

    def column(self, group: str, name: str) -> Array:
        """(N,) or (N, K) values; text as NumPy strings."""
        with h5py.File(self.path, "r", locking=False) as file:
            data = find_column_data(file[group], name)
            values: Array = data.asstr()[:].astype(str) if h5py.check_string_dtype(data.dtype) else data[:]
            return values

    def unknown_texts(self, group: str, name: str) -> dict[str, int]:
        """The texts that meant unknown when a column was written -> how often; {} for none, and for a store that does not state them."""
        with h5py.File(self.path, "r", locking=False) as file:
            counts: dict[str, int] = json.loads(find_column_data(file[group], name).attrs.get(UNKNOWN_ATTRIBUTE, "{}"))
            return counts

    def picture(self, name: str) -> bytes | None:
        """The encoded picture `name` (overview or mask of a slide); None when the store has none."""
        with h5py.File(self.path, "r", locking=False) as file:
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
        raise InputError(
            f"{path} is a store of version {attrs.get('version')}, this version of isograft reads version {VERSION}; ingest it again"
        )
    return {name: json.loads(value) if name in JSON_ATTRIBUTES else value for name, value in attrs.items()}


def read_chunk_offsets(images: h5py.Dataset) -> IntArray:
    """(N,) byte offsets in the file of the images of a dataset with one image per chunk."""
    offsets = np.full(len(images), -1, dtype=np.int64)

    def save_offset(chunk: h5py.h5d.StoreInfo) -> None:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    images.id.chunk_iter(save_offset)
    if (offsets < 0).any():
        raise InputError(f"{images.file.filename} lacks the pixels of {(offsets < 0).sum()} images; ingest it again")
    return offsets


def decode_jpeg(blob: bytes, channels: int) -> NDArray[np.uint8]:
    """(H, W, C) pixels of a JPEG, equal to Pillow's, in two thirds of its time; a gray image is repeated for 3 channels."""
    import simplejpeg

    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(blob, "RGB" if channels == 3 else "GRAY", fastdct=False, fastupsample=False)
    return pixels
