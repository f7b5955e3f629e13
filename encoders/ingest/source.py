"""What an ingest command has to say about its data: which items there are, and how one of them becomes rows of a store.

A source is pickled to the worker processes, so it holds paths and settings, never open files.

Shapes: H, W, C of one stored image.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Value = str | float | int | None  # None, NaN and "" mean unknown


@dataclass
class ImageRow:
    """One image with what is known about it."""

    image: NDArray[Any]  # (H, W, C) uint8 or uint16
    index: Mapping[str, Value]  # key (unique, required), patient (unknown: leave out), and where known split study slide x y mpp source
    meta: Mapping[str, Value] = field(default_factory=dict)  # sex age view site ...
    labels: Mapping[str, Value] = field(default_factory=dict)  # numbers, or class names: the whole column decides


class Unreadable(ValueError):
    """This item cannot become a row, for a reason that is understood: it is quarantined with the message and without a traceback."""


class Source(Protocol):
    """Items in their final order, and a function from an item to its rows."""

    modality: str  # cxr, histology, ...
    dataset: str  # the name that, with the patient, identifies a person
    codec: str  # "raw": every image of one height and width; "jpeg": heights and widths may vary
    unit: (
        dict[str, Any] | None
    )  # {"scale", "offset", "meaning"}: (stored - offset) / scale is in [0, 1]; None: the full range of the bit depth
    geometry: dict[str, Any]  # resize rule, size, mpp: what was done to get the stored height and width
    channels: int | None  # 1, 3, or None: 1 if every image of the whole set is gray in all its pixels, otherwise 3

    def items(self) -> Sequence[Any]:
        """Every item, picklable, in the order of the store; the same list each time."""

    def name(self, item: Any) -> str:
        """What the item is called in tables and messages: unique, relative to the source."""

    def stamp(self, item: Any) -> str:
        """Changes when the item's content may have changed (a file's size and time); "" where there is nothing to watch."""

    def read(self, item: Any) -> ImageRow | Iterable[ImageRow]:
        """Its row, or its rows (a slide). Raises Unreadable, or anything else, which is quarantined with its traceback."""

    def recipe(self) -> dict[str, Any]:
        """Every setting that changes the result, as JSON: no time, no host, no absolute path."""

    def attributes(self) -> dict[str, Any]:
        """Further attributes of the store, e.g. {"synthetic": True}."""


def file_stamp(path: Any) -> str:
    """The size and modification time of a file: what `make` would look at too."""
    found = os.stat(path)
    return f"{found.st_size}:{found.st_mtime_ns}"


def is_gray(image: NDArray[Any], tolerance: int = 0) -> bool:
    """Whether all pixels of an (H, W, C) image have equal channels."""
    return image.shape[2] == 1 or int(np.ptp(image, axis=2).max(initial=0)) <= tolerance
