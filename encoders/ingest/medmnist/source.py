"""MedMNIST files (28 to 224 px), with their split and their labels by name.

The arrays of a 224-px file are larger than most memories (pathmnist_224 has 16 GB), so they are mapped, not loaded: compressed ones are
first unpacked, piece by piece, into a folder of the caller's.

Shapes: N images of one split, H, W, C of one image.
"""

import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.geometry import ResizeRule, describe_geometry, resize_to_square
from encoders.ingest.medmnist.names import MODALITY_OF_DATASET, name_labels
from encoders.ingest.source import ImageRow, file_stamp
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write

MEDMNIST_SPLITS = ("train", "val", "test")
MedMNISTItem = tuple[str, int]  # split, place in it


@dataclass
class MedMNISTSource:
    """A source: one .npz in the format of medmnist."""

    path: Path
    spool: Path  # where compressed arrays are unpacked; may be deleted afterwards
    size: int = 0  # 0: as it is
    resize: ResizeRule = "squash"
    dataset: str = ""
    modality: str = ""
    codec: str = "raw"
    unit: dict[str, Any] | None = None
    channels: int | None = None
    _arrays: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises InputError when the file is missing or no MedMNIST file of flat images."""
        self.path = Path(self.path)
        self.dataset = self.dataset or re.sub(r"_\d+$", "", self.path.stem)  # pathmnist_224 is pathmnist
        self.modality = self.modality or MODALITY_OF_DATASET.get(self.dataset.lower(), "")
        if not self.modality:
            raise InputError(f"what kind of images {self.dataset!r} has is not known; pass --modality, e.g. --modality cxr")
        self.geometry = describe_geometry(self.size, self.resize)
        self.lengths = read_split_lengths(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def items(self) -> Sequence[MedMNISTItem]:
        for split in self.lengths:
            for kind in ("images", "labels"):
                self._array(f"{split}_{kind}")  # unpacks what is compressed, once, before there are workers
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

    def recipe(self) -> dict[str, Any]:
        return {"command": "ingest medmnist"}

    def attributes(self) -> dict[str, Any]:
        return {}

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            self._arrays[name] = memmap_member(self.path, f"{name}.npy", self.spool)
        return self._arrays[name]


def read_split_lengths(path: Path) -> dict[str, int]:
    """Images in each split that the file has. Raises InputError when it is missing, no .npz, or not in the format."""
    try:
        with zipfile.ZipFile(path) as archive:
            heads = {name.removesuffix(".npy"): read_member_header(archive, name) for name in archive.namelist() if name.endswith(".npy")}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError, zipfile.BadZipFile) as wrong:
        raise InputError(f"{path} is not a readable .npz: {wrong}; download it again") from wrong
    splits = [split for split in MEDMNIST_SPLITS if f"{split}_images" in heads]
    if not splits:
        raise InputError(
            f"{path} has the arrays {', '.join(heads) or 'none'}; a MedMNIST file has train_images, train_labels, val_images, ..."
        )
    for split in splits:
        shape, dtype = heads[f"{split}_images"]
        if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))) or dtype != np.uint8:
            raise InputError(f"{split}_images in {path} is {shape} {dtype}; (N, H, W) or (N, H, W, 3) uint8 is read, no volumes")
        if heads.get(f"{split}_labels", ((), None))[0][:1] != shape[:1]:
            raise InputError(f"{path} has {shape[0]} {split}_images but {split}_labels of another length, or none")
    return {split: heads[f"{split}_images"][0][0] for split in splits}


def read_member_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in the archive, without its values."""
    with archive.open(name) as file:
        shape, _, dtype = parse_npy_header(file)  # type: ignore[arg-type]
    return shape, dtype


def parse_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def memmap_member(path: Path, member: str, spool: Path) -> NDArray[Any]:
    """An array of a .npz as a memory map; unpacked into `spool` first (and left there) when it is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type == zipfile.ZIP_STORED:
            return memmap_uncompressed(path, info)
        unpacked = spool / f"{path.stem}.{info.CRC:08x}.{member}"
        if not unpacked.exists():
            with atomic_write(unpacked) as part, part.open("wb") as out, archive.open(member) as packed:
                shutil.copyfileobj(packed, out, 1 << 20)  # the checksum is verified at the end of the stream
    return np.load(unpacked, mmap_mode="r")


def memmap_uncompressed(path: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    """A map of an uncompressed member where it lies in the archive."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # the local header repeats the name, and its extra field may differ from the directory's
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
        file.seek(info.header_offset + 30 + name + extra)
        shape, fortran, dtype = parse_npy_header(file)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
