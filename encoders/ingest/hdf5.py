"""Arrays in HDF5: PCam (`x` in one file, `y` in another), CLAM (`imgs`, `coords`, one file per slide), or any (N, H, W[, C]).

Images are read one at a time and in order. HDF5 caches a chunk of many images while they are read.

Shapes: N images in a file, H, W, C of one image.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from encoders.ingest.damage import refuse_damaged_file
from encoders.ingest.geometry import describe_geometry, resize_to_square
from encoders.ingest.hdf5_damaged import read_accepted_row
from encoders.ingest.hdf5_fields import ArrayFields, TableOptions
from encoders.ingest.hdf5_reading import (
    check_chunks,
    chunk_cache_bytes,
    find_dataset,
    holds_values,
    open_hdf5,
    read_row,
    to_position,
    to_text,
)
from encoders.ingest.list_files import describe_bad_file
from encoders.ingest.options import ArrayLayout, Codec, ResizeRule
from encoders.ingest.source import ImageRow, PixelUnit, Source, Unreadable, Value, describe_default_dataset, file_stamp
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_heaps import check_global_heaps
from encoders.runtime.json_types import Json
from encoders.runtime.unknown_values import is_unknown
from encoders.store.tile_coordinates import LEVEL0_SIDE_COLUMN, TileScale, read_scale

Hdf5Item = tuple[int, int]  # number of the file, row in the file
UINT16_MAX = 65535.0


@dataclass
class Hdf5Source(Source[Hdf5Item]):
    """One dataset of images in one or several files of the same layout."""

    paths: Sequence[Path]
    images: str
    labels: str | None = None
    label_names: Sequence[str] = ()
    patients: str | None = None
    coords: str | None = None
    labels_path: Path | None = None  # file with labels and patients, if they are not beside the images
    layout: ArrayLayout = "auto"
    limits: tuple[float, float] | None = None  # values that map to 0 and 1, for floats outside [0, 1] and for integers of more than 16 bits
    size: int = 0
    resize: ResizeRule = "pad"
    dataset: str = ""
    modality: str = "histology"
    codec: Codec = "raw"
    channels: int | None = None
    unit: PixelUnit | None = None
    table: TableOptions = field(default_factory=TableOptions)  # patients, slides and labels from the paths and from a table
    accept_damaged: bool = False  # store images whose chunk is damaged; never their labels
    _open_datasets: dict[tuple[Path, str], h5py.Dataset] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises InputError if a file or key is missing, or if a shape or type cannot be that of images."""
        self.paths = [Path(p) for p in self.paths]
        default = self.paths[0].stem if len(self.paths) == 1 else self.paths[0].parent.name
        self.notes, self.dataset = [] if self.dataset else [describe_default_dataset(default)], self.dataset or default
        self.geometry = describe_geometry(self.size, self.resize)
        if self.labels_path is not None and len(self.paths) > 1:
            raise InputError(f"--labels-file names one file for {len(self.paths)} files of images; ingest the files one at a time")
        above = Path(os.path.commonpath([p.absolute().parent for p in self.paths]))
        self.lengths = self._keep_readable(above)
        self.stems = [p.absolute().relative_to(above).with_suffix("").as_posix() for p in self.paths]  # unique, and no absolute path
        self.scales = [self._read_scale(path) for path in self.paths] if self.coords else []
        self.states_side = any(math.isfinite(scale.square_side) for scale in self.scales)  # then all rows have the column
        self._stamps = [file_stamp(path) for path in self.paths]
        names = [path.absolute().relative_to(above).as_posix() for path in self.paths]
        self.fields = ArrayFields(self.table, names, self.lengths, self.notes, above)
        self.left_out = self.fields.left_out
        kind = self._data(self.paths[0], self.images).dtype
        if self.limits or not is_stored_unchanged(kind):
            low, high = self.limits or (0.0, 1.0)
            meaning = f"0 = the value {low:g} and 1 = the value {high:g} of {self.images!r}"
            self.unit = PixelUnit(scale=UINT16_MAX, offset=0.0, meaning=meaning)
        self._check_fields()
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open_datasets": {}}

    def items(self) -> Sequence[Hdf5Item]:
        return [(f, i) for f, n in enumerate(self.lengths) if f in self.fields.by_file for i in range(n) if i not in self.fields.unselected]

    def name(self, item: Hdf5Item) -> str:
        return f"{self.stems[item[0]]}/{item[1]:06d}"

    def stamp(self, item: Hdf5Item) -> str:
        return self._stamps[item[0]] + self.fields.of(*item).stamp()

    def read(self, item: Hdf5Item) -> ImageRow:
        path, i = self.paths[item[0]], item[1]
        image, remarks = read_accepted_row(self._data(path, self.images), i, self.accept_damaged)  # (H, W), (H, W, C) or (C, H, W)
        if image.ndim == 2:
            image = image[..., None]
        elif self._layout(path) == "NCHW":
            image = np.moveaxis(image, 0, -1)
        fields = self.fields.of(*item)
        own = {"slide": self.stems[item[0]]} if self.coords or self.fields.file_is_slide else {}
        index: dict[str, Value] = {"key": self.name(item), **own, **fields.index}
        if self.coords:
            scale = self.scales[item[0]]
            index |= to_position(read_row(self._data(path, self.coords), i), scale.factor or (1.0, 1.0), self.coords)
            if self.states_side:
                index[LEVEL0_SIDE_COLUMN] = scale.square_side
        if not is_unknown(slide := index.get("slide")):
            index.setdefault("patient", slide)  # a slide belongs to one patient
        if self.patients:
            index["patient"] = to_text(read_row(self._data(self.labels_path or path, self.patients), i), self.patients)
        values = to_stored_values(image, self.limits)
        labels = {**fields.labels, **self._labels(path, i)}
        return ImageRow(resize_to_square(values, self.size, self.resize), index, fields.meta, labels, remarks, int(values.max()))

    def recipe(self) -> dict[str, Json]:
        keys: dict[str, Json] = {"images": self.images, "labels": self.labels, "patients": self.patients, "coords": self.coords}
        limits: Json = list(self.limits) if self.limits else None
        settings: dict[str, Json] = {"layout": self.layout, "range": limits} | ({"accept_damaged": True} if self.accept_damaged else {})
        return {"command": "ingest hdf5", **keys, **settings, **self.fields.recipe()}

    def _check_fields(self) -> None:
        """Raises InputError if a column has two origins; notes what stands for unknown patients."""
        known = {name for each in (*self.fields.by_file.values(), *self.fields.by_row) for name in each.index}
        if self.patients and "patient" in known:
            raise InputError("patients are in --patients and in --pattern or --table; name them once")
        if not self.patients and "patient" not in known:
            slides = self.coords or self.fields.file_is_slide or "slide" in known
            self.notes = [*self.notes, f"no --patients: every {'slide' if slides else 'image'} counts as a patient of its own"]
        if not self.fields.by_file:
            raise InputError(f"no file is left: {'; '.join(self.notes)}")

    def close(self) -> None:
        for data in self._open_datasets.values():
            data.file.close()
        self._open_datasets.clear()

    def _read_scale(self, path: Path) -> TileScale:
        """What the attributes of CLAM state about tiles and coordinates. Raises InputError if these are not level-0 pixels."""
        shape = self._data(path, self.images).shape
        high, wide = shape[2:4] if len(shape) == 4 and self._layout(path) == "NCHW" else shape[1:3]
        with open_hdf5(path) as file, refuse_damaged_file(path, "HDF5 file"):
            try:
                scale = read_scale(file, str(self.coords), high if high == wide else None)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
        if scale.factor is None:
            raise InputError(f"{self.coords!r} in {path} are not level-0 pixels: micrometres, or pixels of a level without `downsample`")
        return scale

    def _labels(self, path: Path, i: int) -> dict[str, Value]:
        if not self.labels:
            return {}
        values = read_row(self._data(self.labels_path or path, self.labels), i).reshape(-1)
        labels = [to_text(v, self.labels) if values.dtype.kind in "SOU" else float(v) for v in values]
        return dict(zip(self._label_names(len(labels)), labels, strict=True))

    def _label_names(self, n: int) -> list[str]:
        if self.label_names:
            return list(self.label_names)
        last = str(self.labels).split("/")[-1]
        return [last] if n == 1 else [f"{last}_{k}" for k in range(n)]

    def _data(self, path: Path, key: str) -> h5py.Dataset:
        """The dataset, opened once per process, with a cache that holds the chunks of one image."""
        if (path, key) not in self._open_datasets:
            with open_hdf5(path) as file:
                cache = chunk_cache_bytes(find_dataset(file, key, path))
            file = open_hdf5(path, rdcc_nbytes=cache, rdcc_nslots=10007)
            with refuse_damaged_file(path, "HDF5 file"):
                self._open_datasets[path, key] = file[key]
        return self._open_datasets[path, key]

    def _layout(self, path: Path) -> str:
        return self.layout if self.layout != "auto" else guess_layout(self._data(path, self.images).shape, f"{self.images!r} in {path}")

    def _keep_readable(self, above: Path) -> list[int]:
        """The numbers of rows of the files; of several files, those that cannot be read leave `paths` and are `broken`.

        Raises InputError if no file can be read as images."""
        lengths: dict[Path, int] = {}
        errors: dict[Path, InputError] = {}
        for path in self.paths:
            try:
                lengths[path] = self._check_file(path)
            except InputError as error:
                errors[path] = error
        if not lengths:
            raise next(iter(errors.values()))
        self.paths = list(lengths)
        self.broken = [(path.absolute().relative_to(above).as_posix(), str(error)) for path, error in errors.items()]
        return list(lengths.values())

    def _check_file(self, path: Path) -> int:
        """Number of rows of the file. Raises InputError if they cannot be read as images."""
        if problem := describe_bad_file(path):
            raise InputError(f"{path} {problem}")
        with open_hdf5(path) as file, refuse_damaged_file(path, "HDF5 file"):
            check_global_heaps(file, path)
        images = self._data(path, self.images)
        if images.ndim not in (3, 4) or not len(images):
            raise InputError(f"{self.images!r} in {path} has shape {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
        if images.ndim == 4:
            channels = images.shape[1 if self._layout(path) == "NCHW" else 3]
            if channels not in (1, 3):
                raise InputError(
                    f"{self.images!r} in {path} has shape {images.shape}: {channels} channels as {self._layout(path)}; expected 1 or 3"
                )
        with refuse_damaged_file(path, "HDF5 file"):
            check_chunks(images, path)
        if images.dtype.kind not in "uif" or (images.dtype.kind != "f" and not is_stored_unchanged(images.dtype) and not self.limits):
            raise InputError(
                f"{self.images!r} in {path} is {images.dtype}; expected uint8, uint16 or float in [0, 1]. "
                "For other numbers, pass --range LOW,HIGH (the values that become black and white)"
            )
        for key in filter(None, (self.labels, self.patients, self.coords)):
            beside = self._data(path if key == self.coords else self.labels_path or path, key)
            if len(beside) != len(images):
                raise InputError(f"{key!r} has {len(beside)} rows, {self.images!r} in {path} has {len(images)}")
            with refuse_damaged_file(path, "HDF5 file"):
                check_chunks(beside, path)
            self._check_columns(path, key, beside)
        if self.label_names and self.labels:
            width = math.prod(self._data(self.labels_path or path, self.labels).shape[1:])
            if width != len(self.label_names):
                raise InputError(f"--label-names has {len(self.label_names)} names for the {width} columns of {self.labels!r}")
        return len(images)

    def _check_columns(self, path: Path, key: str, beside: h5py.Dataset) -> None:
        """Raises InputError if a dataset beside the images cannot hold what it is named for."""
        width = math.prod(beside.shape[1:])
        right = {
            "coordinates, (N, 2) numbers": key != self.coords or (beside.ndim == 2 and width >= 2 and beside.dtype.kind in "uif"),
            "patients, one text or number per image": key != self.patients or (width == 1 and holds_values(beside)),
            "labels, numbers or texts": key != self.labels or (width > 0 and holds_values(beside)),
        }
        if wrong := [expected for expected, fits in right.items() if not fits]:
            raise InputError(f"{key!r} in {path} is {beside.shape} of {beside.dtype}; expected {wrong[0]}")


def guess_layout(shape: tuple[int, ...], name: str) -> str:
    """NHWC or NCHW, by the axis that has length 1 or 3.  name: of the dataset, for the message.

    Raises InputError if both axes or neither have."""
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        raise InputError(f"cannot determine the channel axis of {name} {shape}; pass --layout NHWC or --layout NCHW")
    return "NCHW" if first else "NHWC"


def is_stored_unchanged(dtype: np.dtype[np.generic]) -> bool:
    """Whether values of this type are stored unchanged: unsigned, 8 or 16 bits, of either byte order."""
    return dtype.kind == "u" and dtype.itemsize in (1, 2)


def to_stored_values(image: Array, limits: tuple[float, float] | None) -> Array:
    """(H, W, C) uint8 or uint16: unchanged, or mapped to 16 bits from [0, 1] or from `limits`.

    Raises Unreadable for values that are not finite, and without `limits` for values outside [0, 1]."""
    if limits is None and is_stored_unchanged(image.dtype):
        return np.ascontiguousarray(image).astype(image.dtype.newbyteorder("="), copy=False)
    low, high = limits or (0.0, 1.0)
    values = (image.astype(np.float64) - low) / (high - low)
    if not np.isfinite(values).all():
        raise Unreadable("has NaN or infinite values")
    if limits is None and not (values.min() >= 0 and values.max() <= 1):
        raise Unreadable(
            f"has values from {values.min():g} to {values.max():g}, expected [0, 1]; "
            "pass --range LOW,HIGH (the values that become black and white)"
        )
    return np.rint(np.clip(values, 0, 1) * UINT16_MAX).astype(np.uint16)


def parse_range(text: str) -> tuple[float, float]:
    """The two numbers of `LOW,HIGH`. Raises InputError unless LOW is below HIGH."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--range {text!r} is not LOW,HIGH; pass two numbers, e.g. --range=-1000,1000") from None
    if not low < high:
        raise InputError(f"--range {text!r}: the first number, which becomes black, must be below the second")
    return low, high
