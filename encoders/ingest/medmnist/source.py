"""MedMNIST files (28 to 224 px), with their split and the names of their labels.

Shapes: N images of one split, H, W, C of one image.
"""

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.ingest.damage import report_damage
from encoders.ingest.geometry import describe_geometry, resize_to_square
from encoders.ingest.list_files import describe_bad_file
from encoders.ingest.medmnist.archive import memmap_member, prepare_member, read_member_headers, unpack_damaged_member
from encoders.ingest.medmnist.names import MODALITY_OF_DATASET, name_labels
from encoders.ingest.options import Codec, ResizeRule
from encoders.ingest.source import ImageRow, PixelUnit, Source, Unreadable, file_stamp
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.read_errors import describe_reason

MEDMNIST_SPLITS = ("train", "val", "test")
MedMNISTItem = tuple[str, int]  # split, position in the split
MAX_NAMES_LENGTH = 200  # characters of the names of arrays in a message
CHECKSUM_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError)
LARGEST_CODE = 2**24  # of a class; float32 holds all whole numbers up to it


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
    accept_damaged: bool = False  # store the images of an array with a wrong checksum; never its labels
    _damaged: dict[str, str] = field(default_factory=dict, repr=False)  # name of an array to the words of zipfile
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
                name = f"{split}_{kind}"
                if name not in self._arrays and name not in self._damaged:  # once, before the workers start
                    self._prepare(name)
        return [(split, i) for split, n in self.lengths.items() for i in range(n)]

    def _prepare(self, name: str) -> None:
        """Verifies an array and opens it. A damaged one is noted, and on request unpacked as far as possible."""
        try:
            prepare_member(self.path, f"{name}.npy", self.spool)
        except InputError as error:
            if not isinstance(error.__cause__, CHECKSUM_ERRORS):
                raise
            self._damaged[name] = f"the array {name} is damaged: {describe_reason(error.__cause__)}"
            if self.accept_damaged and name.endswith("_images"):
                unpack_damaged_member(self.path, f"{name}.npy", self.spool)
            return
        self._array(name)

    def name(self, item: MedMNISTItem) -> str:
        return f"{item[0]}/{item[1]:06d}"

    def stamp(self, item: MedMNISTItem) -> str:
        return file_stamp(self.path)

    def read(self, item: MedMNISTItem) -> ImageRow:
        split, i = item
        if words := self._damaged.get(f"{split}_labels"):
            report_damage(words, self.accept_damaged, decodable=False)
        words = self._damaged.get(f"{split}_images")
        remarks = [report_damage(words, self.accept_damaged)] if words else []
        image = np.asarray(self._array(f"{split}_images")[i])
        image = image[..., None] if image.ndim == 2 else image  # (H, W, C)
        codes = whole_numbers(np.asarray(self._array(f"{split}_labels")[i]))
        key = self.name(item)
        labels = name_labels(self.dataset.lower(), codes)
        return ImageRow(resize_to_square(image, self.size, self.resize), {"key": key, "split": split}, {}, labels, remarks)

    def recipe(self) -> dict[str, Json]:
        return {"command": "ingest medmnist"} | ({"accept_damaged": True} if self.accept_damaged else {})

    def _array(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = memmap_member(self.path, f"{name}.npy", self.spool)
        return self._arrays[name]


def read_split_lengths(path: Path) -> dict[str, int]:
    """Number of images per split of the file. Raises InputError if the file is missing, is not .npz, or has another format."""
    if problem := describe_bad_file(path):
        raise InputError(f"{path} {problem}; download it again")
    heads = read_member_headers(path)
    splits = [split for split in MEDMNIST_SPLITS if f"{split}_images" in heads]
    if not splits:
        raise InputError(
            f"{path} has the arrays {', '.join(heads)[:MAX_NAMES_LENGTH] or 'none'}; "
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
        shape, dtype = heads[f"{split}_labels"]
        if dtype.kind not in "uifb" or len(shape) not in (1, 2) or 0 in shape[1:]:
            raise InputError(f"{split}_labels in {path} is {shape} {dtype}; expected (N, 1) or (N, findings) whole numbers")
    return {split: heads[f"{split}_images"][0][0] for split in splits}


def whole_numbers(labels: Array) -> list[int]:
    """The codes of the labels of an image. Raises Unreadable for values that are no whole number of 0 or more."""
    values = labels.reshape(-1).astype(np.float64)
    if not (np.isfinite(values) & (values == np.rint(values)) & (values >= 0) & (values <= LARGEST_CODE)).all():
        raise Unreadable(f"its labels are {values.tolist()}, expected whole numbers of 0 or more")
    return [int(value) for value in values]
