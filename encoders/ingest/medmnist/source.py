"""MedMNIST files (28 to 224 px), with their split and the names of their labels.

The arrays of a 224-px file may exceed the memory (pathmnist_224 has 16 GB), so they are memory-mapped. Compressed arrays are first
unpacked, in pieces, into a folder that the caller names.

Shapes: N images of one split, H, W, C of one image.
"""

import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from encoders.ingest.geometry import describe_geometry, resize_to_square
from encoders.ingest.list_files import describe_bad_file
from encoders.ingest.medmnist.names import MODALITY_OF_DATASET, name_labels
from encoders.ingest.options import Codec, ResizeRule
from encoders.ingest.source import ImageRow, PixelUnit, Source, file_stamp
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.json_types import Json

MEDMNIST_SPLITS = ("train", "val", "test")
MedMNISTItem = tuple[str, int]  # split, position in the split


@dataclass
class MedMNISTSource(Source[MedMNISTItem]):
    """One .npz file in the format of the package medmnist."""

    notes = ("MedMNIST files name no patients: every image counts as a patient of its own, and the split of the file is kept",)

    path: Path
    spool: Path  # folder for unpacked arrays; may be deleted after the ingest
    size: int = 0  # side of the stored square; 0: as in the file
    resize: ResizeRule = "squash"
    dataset: str = ""
    modality: str = ""
    codec: Codec = "raw"
    unit: PixelUnit | None = None
    channels: int | None = None
    _arrays: dict[str, Array] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises InputError if the file is missing or is not a MedMNIST file of 2D images."""
        self.path = Path(self.path)
        self.dataset = self.dataset or re.sub(r"_\d+$", "", self.path.stem)  # pathmnist_224 -> pathmnist
        self.modality = self.modality or MODALITY_OF_DATASET.get(self.dataset.lower(), "")
        if not self.modality:
            raise InputError(f"the modality of {self.dataset!r} is unknown; pass --modality, e.g. --modality cxr")
        self.geometry = describe_geometry(self.size, self.resize)
        self.lengths = read_split_lengths(self.path)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_arrays": {}}

    def items(self) -> Sequence[MedMNISTItem]:
        for split in self.lengths:
            for kind in ("images", "labels"):
                self._array(f"{split}_{kind}")  # unpacks compressed arrays once, before the workers start
        return [(split, i) for split, n in self.lengths.items() for i in range(n)]

    def name(self, item: MedMNISTItem) -> str:
        return f"{item[0]}/{item[1]:06d}"

    def stamp(self, item: MedMNISTItem) -> str:
        return file_stamp(self.path)

    def read(self, item: MedMNISTItem) -> ImageRow:
        split, i = item
        image = np.asarray(self._array(f"{split}_images")[i])
        image = image[..., None] if image.ndim == 2 else image  # (H, W, C)
        codes = np.asarray(self._array(f"{split}_labels")[i]).reshape(-1).astype(int).tolist()
        key = self.name(item)
        return ImageRow(
            resize_to_square(image, self.size, self.resize), {"key": key, "split": split}, {}, name_labels(self.dataset.lower(), codes)
        )

    def recipe(self) -> dict[str, Json]:
        return {"command": "ingest medmnist"}

    def _array(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = memmap_member(self.path, f"{name}.npy", self.spool)
        return self._arrays[name]


def read_split_lengths(path: Path) -> dict[str, int]:
    """Number of images per split of the file. Raises InputError if the file is missing, is not .npz, or has another format."""
    if problem := describe_bad_file(path):
        raise InputError(f"{path} {problem}; download it again")
    try:
        with zipfile.ZipFile(path) as archive:
            heads = {name.removesuffix(".npy"): read_member_header(archive, name) for name in archive.namelist() if name.endswith(".npy")}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a readable .npz: {error}; download it again") from error
    splits = [split for split in MEDMNIST_SPLITS if f"{split}_images" in heads]
    if not splits:
        raise InputError(
            f"{path} has the arrays {', '.join(heads) or 'none'}; "
            "expected those of a MedMNIST file: train_images, train_labels, val_images, ..."
        )
    for split in splits:
        shape, dtype = heads[f"{split}_images"]
        if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))) or dtype != np.uint8:
            raise InputError(
                f"{split}_images in {path} is {shape} {dtype}; expected (N, H, W) or (N, H, W, 3) uint8; volumes are not supported"
            )
        if heads.get(f"{split}_labels", ((), None))[0][:1] != shape[:1]:
            raise InputError(f"{path} has {shape[0]} {split}_images, but {split}_labels is missing or has another length")
    return {split: heads[f"{split}_images"][0][0] for split in splits}


def read_member_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and dtype of an array in the archive; its values are not read."""
    with archive.open(name) as file:
        shape, _, dtype = parse_npy_header(file)
    return shape, dtype


def parse_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def memmap_member(path: Path, member: str, spool: Path) -> Array:
    """An array of a .npz as a memory map. A compressed array is first unpacked into `spool`, and stays there."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type == zipfile.ZIP_STORED:
            return memmap_uncompressed(path, info)
        unpacked = spool / f"{path.stem}.{info.CRC:08x}.{member}"
        if not unpacked.exists():
            with atomic_write(unpacked) as part, part.open("wb") as out, archive.open(member) as packed:
                shutil.copyfileobj(packed, out, 1 << 20)  # zipfile verifies the checksum at the end of the stream
    return np.asanyarray(np.load(unpacked, mmap_mode="r"))


def memmap_uncompressed(path: Path, info: zipfile.ZipInfo) -> Array:
    """A memory map of an uncompressed member at its place in the archive."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # the local header repeats the name; its extra field may differ from that of the directory
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
        file.seek(info.header_offset + 30 + name + extra)
        shape, fortran, dtype = parse_npy_header(file)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
