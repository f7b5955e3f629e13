"""The contract of a source: which items a data set has, and how one item becomes rows of a store.

A source is pickled to the worker processes, so it holds paths and settings, never open files.

Shapes: H, W, C of one stored image.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import numpy as np

from encoders.ingest.options import Codec
from encoders.runtime.arrays import Array
from encoders.runtime.json_types import Json

Value = str | float | int | None  # None, NaN and "" mean unknown
ItemT = TypeVar("ItemT")


class PixelUnit(TypedDict):
    """How stored values map to [0, 1]: (stored - offset) / scale."""

    scale: float
    offset: float
    meaning: str  # what 0 and 1 stand for


@dataclass
class ImageRow:
    """One image and its columns."""

    image: Array  # (H, W, C) uint8 or uint16
    index: Mapping[str, Value]  # key (unique, required), patient (leave out if unknown); if known: split study slide x y mpp source
    meta: Mapping[str, Value] = field(default_factory=dict)  # sex age view site ...
    labels: Mapping[str, Value] = field(default_factory=dict)  # numbers or class names; the whole column decides which
    remarks: Sequence["Remark"] = ()  # what the user should know about an image that is stored nevertheless
    top: int | None = None  # largest value before resizing; None: that of `image`
    mask: Array | None = None  # (H, W) bool, where the finding is; of a source all rows have one or none has


class Remark(NamedTuple):
    """Something about an image that the user should know although the image is stored. Remarks of one kind are counted together."""

    kind: str  # completes "N images: ..."
    detail: str = ""  # of this image


class Unreadable(ValueError):
    """The item cannot become a row, for a known reason: it is quarantined with the message and without a traceback."""


class ItemCollection(ABC, Generic[ItemT]):
    """Items in their final order, and the facts that all stores made from them share."""

    modality: str  # cxr, histology, ...; required
    dataset: str  # name of the data set, required; together with the patient it identifies a person
    codec: Codec = "raw"  # "raw": all images have one height and width; "jpeg": height and width may vary
    unit: PixelUnit | None = None  # None: the full range of the bit depth
    geometry: Mapping[str, Json] = {"resize": "none", "size": None}  # resize rule, size, mpp: how the stored height and width came about
    channels: int | None = None  # 1, 3, or None: 1 if every image of the whole set is gray in all its pixels, otherwise 3
    notes: Sequence[str] = ()  # what the user should know before the ingest starts
    broken: Sequence[tuple[str, str]] = ()  # what was found and cannot be an item, with the reason: it is quarantined
    left_out: Mapping[str, int] = {}  # files that are no items, by reason; with `items` and `broken`, they are all of the input
    auto_bits: bool = False  # groups of 16-bit images that use fewer bits are mapped to the full range

    @abstractmethod
    def items(self) -> Sequence[ItemT]:
        """Every item, picklable, in the order of the store; the same list at every call."""

    @abstractmethod
    def name(self, item: ItemT) -> str:
        """Name of the item in tables and messages: unique, and relative to the source."""

    def stamp(self, item: ItemT) -> str:
        """Changes when the item's content may have changed (size and time of a file); "" if there is nothing to watch."""
        return ""

    @abstractmethod
    def recipe(self) -> dict[str, Json]:
        """Every setting that changes the result, as JSON: no time, no host, no absolute path."""


class Source(ItemCollection[ItemT]):
    """A collection whose items are read one at a time and become one store.

    To add a source: subclass this, set `modality` and `dataset`, write the four abstract methods, and add an entry to `SOURCES`."""

    @abstractmethod
    def read(self, item: ItemT) -> ImageRow | Iterable[ImageRow]:
        """Row or rows of the item.

        Raises Unreadable for a known reason. Any other exception quarantines the item with its traceback."""

    def attributes(self) -> dict[str, Json]:
        """Further attributes of the store, e.g. {"synthetic": True}."""
        return {}


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What every ingest reports."""

    out: Path  # a store, or a folder of stores
    rows: int
    quarantined: list[tuple[str, str]] = field(default_factory=list)  # (item, reason)

    @property
    def exit_code(self) -> int:
        """0 if every item became rows, 1 if an item was quarantined."""
        return 1 if self.quarantined else 0


def describe_default_dataset(dataset: str) -> str:
    """A note for a source whose data set is named after its files."""
    return f"data set {dataset!r}, after the files; patients are compared by data set and id, so name it with --dataset"


def to_pixel_unit(unit: Mapping[str, Any]) -> PixelUnit:
    """The unit in the form that sources declare."""
    return PixelUnit(scale=unit["scale"], offset=unit["offset"], meaning=unit["meaning"])


def unit_to_json(unit: PixelUnit) -> dict[str, Json]:
    """The unit as a value of a recipe or an attribute."""
    return {"scale": unit["scale"], "offset": unit["offset"], "meaning": unit["meaning"]}


def file_stamp(path: str | os.PathLike[str]) -> str:
    """Size and modification time of a file, which is what `make` compares."""
    status = os.stat(path)
    return f"{status.st_size}:{status.st_mtime_ns}"


def is_gray(image: Array, tolerance: int = 0) -> bool:
    """Whether all pixels of an (H, W, C) image have equal channels."""
    return image.shape[2] == 1 or int(np.ptp(image, axis=2).max(initial=0)) <= tolerance
