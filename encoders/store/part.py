"""One store file: its attributes, where its pixels lie, and its columns.

Offsets of the pixels are read once; pixels then come straight from the file through a memory map. No HDF5 handle stays open, so a
part may be pickled, forked and spawned; every process maps the file for itself.

Shapes: N images, H, W, C of one.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.runtime.errors import InputError

STORE_FORMAT, VERSION = "isograft-store", 1
JSON_ATTRIBUTES = ("unit", "geometry", "recipe", "slide")


class StorePart:
    """One HDF5 file in the store schema, read-only."""

    def __init__(self, path: Path):
        """Raises InputError when the file is missing, torn, foreign, or of another version."""
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self.attrs = read_attributes(file, path)
                self.groups = {g: sorted(file[g]) for g in ("index", "meta", "labels") if g in file}
                self.classes = {n: json.loads(d.attrs["classes"]) for n, d in file["labels"].items() if "classes" in d.attrs}
                self._locate(file)
        except FileNotFoundError:
            raise InputError(f"there is no store at {path}; `encoders ingest --help` says how to make one") from None
        except (OSError, KeyError) as wrong:
            if isinstance(wrong, OSError) and wrong.errno:
                raise InputError(f"cannot read {path}: {wrong.strerror}") from wrong
            told = "it is no HDF5 file or was cut off while being copied" if isinstance(wrong, OSError) else f"it has no {wrong.args[0]}"
            raise InputError(f"{path} is not a readable store: {told}; ingest again, or copy it again") from wrong
        self._map: mmap.mmap | None = None

    def _locate(self, file: h5py.File) -> None:
        self.codec = str(self.attrs["codec"])
        self.offsets: NDArray[np.int64]
        if self.codec == "raw":
            images = file["images"]
            self.shape: tuple[int, int, int] | None = images.shape[1:]
            self.dtype = images.dtype
            self.offsets = read_chunk_offsets(images)  # (N,)
            end = int(self.offsets.max(initial=0)) + (images[:1].nbytes if len(images) else 0)
        elif self.codec == "jpeg":
            self.shape, self.dtype = None, np.dtype(np.uint8)
            start = file["blob"].id.get_offset() or 0  # None when there is not one byte
            self.offsets = file["offsets"][:].astype(np.int64) + start  # (N + 1,)
            end = int(self.offsets[-1])
        else:
            raise InputError(f"{self.path} is stored with codec {self.codec!r}; this isograft reads raw and jpeg")
        self.length = len(file["index"]["key"])
        if end > self.path.stat().st_size:
            raise InputError(f"{self.path} is shorter than its table of contents says; it was cut off: copy or ingest it again")

    def __len__(self) -> int:
        return self.length

    @property
    def fingerprint(self) -> str:
        """64 hex digits that stand for the pixels as they are read. The file's own are those of the pixels before JPEG."""
        told = str(self.attrs["fingerprint"])
        return told if self.codec == "raw" else hashlib.sha256(f"{told} {self.codec}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def image(self, i: int) -> NDArray[Any]:
        """(H, W, C) in the stored dtype: a read-only view of the file (raw), or decoded (jpeg)."""
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.codec == "raw":
            return np.ndarray(self.shape, self.dtype, self._map, self.offsets[i])  # type: ignore[arg-type]
        return decode_jpeg(self._map[self.offsets[i] : self.offsets[i + 1]], int(self.attrs["channels"]))

    def column(self, group: str, name: str) -> NDArray[Any]:
        """(N,) or (N, K) values; text as NumPy strings."""
        with h5py.File(self.path, "r", locking=False) as file:
            data = file[group][name]
            return data.asstr()[:].astype(str) if h5py.check_string_dtype(data.dtype) else data[:]

    def picture(self, name: str) -> bytes | None:
        """The encoded picture of that name (overview, mask of a slide), or None when the store has none."""
        with h5py.File(self.path, "r", locking=False) as file:
            return file["pictures"][name][:].tobytes() if f"pictures/{name}" in file else None


def read_attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """The root attributes with the JSON ones decoded. Raises InputError for a file of another format or version."""
    attrs = {name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()}
    if attrs.get("format") != STORE_FORMAT:
        raise InputError(f"{path} is HDF5 but not a store; `encoders ingest hdf5` makes one from arrays in HDF5")
    if attrs.get("version") != VERSION:
        raise InputError(f"{path} is a store of version {attrs.get('version')}, this isograft reads version {VERSION}; ingest it again")
    return {name: json.loads(value) if name in JSON_ATTRIBUTES else value for name, value in attrs.items()}


def read_chunk_offsets(images: h5py.Dataset) -> NDArray[np.int64]:
    """(N,) byte offsets in the file of the images of a dataset that holds one image a chunk."""
    offsets = np.full(len(images), -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    images.id.chunk_iter(note)
    if (offsets < 0).any():
        raise InputError(f"{images.file.filename} lacks the pixels of {(offsets < 0).sum()} images; ingest it again")
    return offsets


def decode_jpeg(blob: bytes, channels: int) -> NDArray[np.uint8]:
    """(H, W, C) pixels of a JPEG, those that Pillow gives, in two thirds of its time; gray is repeated where 3 channels are wanted."""
    import simplejpeg

    return simplejpeg.decode_jpeg(blob, "RGB" if channels == 3 else "GRAY", fastdct=False, fastupsample=False)
