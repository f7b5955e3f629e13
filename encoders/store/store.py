"""Images with their metadata and labels, from one HDF5 file or from several as one.

Schema: root attributes (format, version, modality, codec, channels, unit, geometry, dataset, recipe, fingerprint); pixels in /images, one
image per chunk, unfiltered (codec raw), or in /blob and /offsets (codec jpeg); columns in /index, /meta and /labels.

Shapes: N images in the store, B requested, H, W, C of one image.
"""

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.unknown_values import add_counts
from encoders.store.part import StorePart
from encoders.store.patient_ids import SameNames, name_patients, normalise_id, separate_people

PIXEL_STEPS = {"normalise": "stain normalisation", "remove_hair": "the removal of hairs"}  # of the geometry -> in messages


class Store:
    """Images and columns of one or several files, read-only. It may be pickled, and used under fork and spawn."""

    def __init__(self, parts: Sequence[StorePart]):
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])  # (parts + 1,)
        self._columns: dict[str, Array] = {}

    @classmethod
    def open(cls, where: str | Path | Sequence[str | Path]) -> Self:
        """The store at a path, a pattern such as `tiles/*.h5`, or a list of these, in that order.

        Raises InputError when a file is missing, truncated, not a store, or of another version, and when files differ in stain
        normalisation or in the removal of hairs."""
        parts = [StorePart(path) for path in expand_paths(where)]
        for step, name in PIXEL_STEPS.items():
            methods = {str((part.attrs.get("geometry") or {}).get(step, "none")): part.path for part in parts}
            if len(methods) > 1:
                differences = ", ".join(f"{path}: {method}" for method, path in sorted(methods.items()))
                raise InputError(
                    f"these stores differ in {name} ({differences}); ingest them with the same method, or open them separately"
                )
        return cls(parts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": {}}

    @property
    def paths(self) -> list[Path]:
        return [part.path for part in self.parts]

    @property
    def attrs(self) -> dict[str, Any]:
        """The root attributes of the first file, those in JSON decoded."""
        return self.parts[0].attrs

    @property
    def modality(self) -> str:
        return str(self._common_attribute("modality"))

    @property
    def dataset(self) -> str:
        return "+".join(dict.fromkeys(str(part.attrs["dataset"]) for part in self.parts))

    @property
    def datasets(self) -> Array:
        """(N,) the data set of each image; data set and patient id together identify a patient."""
        return np.repeat([normalise_id(part.attrs["dataset"]) for part in self.parts], [len(part) for part in self.parts])

    @property
    def channels(self) -> int:
        return int(max(part.attrs["channels"] for part in self.parts))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest of the files' dtypes."""
        return max((part.dtype for part in self.parts), key=lambda dtype: dtype.itemsize)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C), or None when images differ in shape."""
        shapes = {part.shape for part in self.parts}
        return shapes.pop() if len(shapes) == 1 else None

    @property
    def fingerprint(self) -> str:
        """64 hex digits that identify the pixels and their order: that of the file, or the hash of those of several files."""
        each = [part.fingerprint for part in self.parts]
        return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()

    def locate(self, i: int) -> tuple[StorePart, int]:
        """The file that holds image `i`, and its index there."""
        if len(self.parts) == 1:
            return self.parts[0], i
        part = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.parts[part], i - int(self.starts[part])

    def find_split_name(self, names: Array, rows: Array) -> tuple[str, Path, Path] | None:
        """A name that occurs in two files, and the two files; None when there is no such name.  names: (T,) of `rows` (T,)."""
        unique, code = np.unique(names, return_inverse=True)
        pairs = np.unique(np.stack([code, np.searchsorted(self.starts, rows, side="right") - 1], 1), axis=0)  # (pairs, 2): name, file
        repeated = np.flatnonzero(pairs[1:, 0] == pairs[:-1, 0])
        if not len(repeated):
            return None
        (name, first), (_, second) = pairs[repeated[0] : repeated[0] + 2]
        return str(unique[name]), self.paths[first], self.paths[second]

    def image(self, i: int) -> Array:
        """(H, W, C) in the stored dtype; a read-only view of the file when the pixels are raw."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        part, j = self.locate(i)
        return part.image(j)

    def images(self, index: ArrayLike) -> Array:
        """(B, H, W, C) in the stored dtype. Raises InputError when the requested images differ in shape or dtype."""
        images = [self.image(int(i)) for i in np.asarray(index).reshape(-1)]
        if len({(image.shape, image.dtype) for image in images}) > 1:
            kinds = sorted({f"{image.shape} {image.dtype}" for image in images})
            raise InputError(
                f"these images do not fit in one array ({', '.join(kinds)}): read them one at a time, or ingest with one --size"
            )
        return np.stack(images) if images else np.empty((0, *(self.shape or (0, 0, self.channels))), self.dtype)

    def to_unit(self, images: Array) -> NDArray[np.float32]:
        """Stored values mapped to [0, 1]. Raises InputError when the files differ in this mapping: then use `unit_images`."""
        maps = [read_unit_map(part) for part in self.parts]
        if len(set(maps)) > 1:
            raise InputError(f"{len(self.parts)} stores with different units {sorted(set(maps))} are open as one; use unit_images(index)")
        return to_unit(images, *maps[0])

    def unit_images(self, index: ArrayLike) -> NDArray[np.float32]:
        """(B, H, W, C) in [0, 1], each image by the unit of its own file; gray images get three channels when others have colour.

        Raises InputError when the images differ in height or width."""
        rows = np.asarray(index).reshape(-1)
        if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"images {rows.min()} to {rows.max()} of {len(self)}")
        first = self.image(int(rows[0])) if rows.size else np.empty((*(self.shape or (0, 0, 0)),))
        out = np.empty((len(rows), *first.shape[:2], self.channels), np.float32)  # (B, H, W, C)
        for row, i in enumerate(rows):
            part, j = self.locate(int(i))
            image = part.image(j)
            if image.shape[:2] != first.shape[:2]:
                raise InputError(f"these images differ in size ({first.shape[:2]} and {image.shape[:2]}); ingest them with one --size")
            offset, scale = read_unit_map(part)
            np.subtract(image, np.float32(offset), out=out[row], casting="unsafe")
            out[row] /= np.float32(scale)
        return out

    def compact_images(self, index: ArrayLike) -> tuple[Array, float]:
        """(B, H, W, C) and the value of white: bytes, a quarter of the traffic, or float32 in [0, 1] where bytes would lose something.

        The images divided by the value of white are those of `unit_images`."""
        kinds = {(read_unit_map(part), part.shape, part.dtype, part.attrs["channels"]) for part in self.parts}
        (offset, scale), _, dtype, _ = next(iter(kinds))
        if len(kinds) == 1 and dtype == np.uint8 and offset == 0:
            return self.images(index), scale
        return self.unit_images(index), 1.0

    def columns(self) -> list[str]:
        """The names in /index and /meta that are in every file."""
        each = [{*part.groups["index"], *part.groups.get("meta", ())} for part in self.parts]
        return sorted(set.intersection(*each))

    def has_column(self, name: str) -> bool:
        return name in self.columns()

    def column(self, name: str) -> Array:
        """(N,) values from /index or /meta ((N, 32) for phash); text as NumPy strings. Raises InputError for an unknown name.

        Ids of patients are normalised; an image whose patient is unknown counts as a patient of its own, named by its key."""
        if name not in self._columns:
            if not self.has_column(name):
                raise unknown_name_error("column", name, self.columns(), f"({self.paths[0]})")
            each = [part.column("index" if name in part.groups["index"] else "meta", name) for part in self.parts]
            values = each[0] if len(each) == 1 else np.concatenate(each)
            self._columns[name] = name_patients(values.tolist(), self.column("key")) if name == "patient" else values
        return self._columns[name]

    def people(self, same: SameNames = (), plain: str | None = None) -> Array:
        """(N,) one name per person: the patient, preceded by the data set if there are several.

        same: groups of data sets that number the same people.  plain: the data set whose patients are not preceded by its name.
        Images of different files that name no patient are never of one person, even if their keys are equal."""
        people, unnamed = separate_people(self.column("patient"), self.datasets, same, plain), np.flatnonzero(~self.names_patient())
        names, count = np.unique(people[unnamed], return_counts=True)
        if (repeated := unnamed[np.isin(people[unnamed], names[count > 1])]).size:
            people = people.astype(object)
            people[repeated] = [f"{people[i]} in {self.locate(int(i))[0].fingerprint[:16]}" for i in repeated]
        return people.astype(str)

    def names_patient(self) -> NDArray[np.bool_]:
        """(N,) whether the patient of each image is known."""
        return np.asarray(self.column("patient") != self.column("key"), dtype=bool)

    def unknown_texts(self, name: str, groups: Sequence[str] = ("index", "meta")) -> dict[str, int]:
        """The texts that meant unknown when a column was written -> how often, over all files. groups: `labels` for a label."""
        places = [(part, group) for part in self.parts for group in groups if name in part.groups.get(group, ())]
        return add_counts(part.unknown_texts(group, name) for part, group in places)

    def label_names(self) -> list[str]:
        """The labels that are in any file."""
        return sorted({name for part in self.parts for name in part.groups.get("labels", ())})

    def labels(self, name: str) -> NDArray[np.float32]:
        """(N,) float32, NaN where unknown and for files without that label. Raises InputError for an unknown name."""
        if name not in self.label_names():
            raise unknown_name_error("label", name, self.label_names(), f"({self.paths[0]})")
        classes, each = self.classes(name), []
        for part in self.parts:
            if name not in part.groups.get("labels", ()):
                each.append(np.full(len(part), np.nan, np.float32))
                continue
            values = part.column("labels", name)
            each.append(recode_classes(values, part.classes[name], classes) if classes and name in part.classes else values)
        return np.concatenate(each)

    def classes(self, name: str) -> list[str] | None:
        """The class names of the codes 0, 1, ... of a text label; None for a numeric label."""
        if name not in self.label_names():
            raise unknown_name_error("label", name, self.label_names(), f"({self.paths[0]})")
        holders = [part for part in self.parts if name in part.groups.get("labels", ())]
        is_text = [True for part in holders if name in part.classes]
        is_text += [False for part in holders if name not in part.classes and not np.isnan(part.column("labels", name)).all()]
        if any(is_text) and not all(is_text):
            raise InputError(f"the label {name!r} is text in some of these stores and a number in others; ingest them as one of the two")
        return sorted({c for part in self.parts for c in part.classes.get(name, ())}) if any(is_text) else None

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        for part in self.parts:
            part._map = None  # views of the file keep the old map open, so it is not closed here

    def _common_attribute(self, attribute: str) -> Json:
        values: set[Json] = {part.attrs[attribute] for part in self.parts}
        if len(values) > 1:
            raise InputError(f"these stores differ in {attribute} ({', '.join(sorted(map(str, values)))}); open them separately")
        return values.pop()


def expand_paths(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path, a pattern, or a list of them names. Raises InputError when it names none, or a file twice."""
    names = [where] if isinstance(where, str | Path) else list(where)
    paths = [Path(path) for name in names for path in match_files(str(name))]
    if not paths:
        raise InputError("no store was given; name one, e.g. data.store=cxr.h5")
    if folder := next((path for path in paths if path.is_dir()), None):
        raise InputError(f"{folder} is a folder, and a store is a file: did you mean '{folder}/*.h5'?")
    repeated = {str(path) for path in paths if paths.count(path) > 1}
    if repeated:
        raise InputError(f"{', '.join(sorted(repeated))} is named twice, so every image would count twice; name it once")
    return paths


def match_files(name: str) -> list[str]:
    """The sorted files that match a pattern; the name itself when it is not a pattern or a file has exactly this name."""
    if not glob.has_magic(name) or Path(name).exists():
        return [name]
    paths = sorted(glob.glob(name, recursive=True))
    if not paths:
        raise InputError(f"no file matches {name!r} (relative to {Path.cwd()})")
    return paths


def read_unit_map(part: StorePart) -> tuple[float, float]:
    """(offset, scale) such that (stored - offset) / scale is in [0, 1]."""
    return float(part.attrs["unit"]["offset"]), float(part.attrs["unit"]["scale"])


def to_unit(images: Array, offset: float, scale: float) -> NDArray[np.float32]:
    """`(images - offset) / scale` in single precision."""
    out = images.astype(np.float32)
    if offset:
        out -= np.float32(offset)
    out /= np.float32(scale)
    return out


def recode_classes(values: NDArray[np.float32], old: list[str], new: list[str]) -> NDArray[np.float32]:
    """Class codes of one file as codes of the classes of all files."""
    table = np.array([new.index(c) for c in old], np.float32)
    known = ~np.isnan(values)
    out = values.copy()
    out[known] = table[values[known].astype(int)]
    return out
