"""Images with what is known about them, from one HDF5 file or from several seen as one.

Schema: root attributes (format, version, modality, codec, channels, unit, geometry, dataset, recipe, fingerprint); pixels in /images, one
image a chunk, unfiltered (codec raw) or in /blob and /offsets (codec jpeg); columns in /index, /meta and /labels.

Shapes: N images in the store, B asked for, H, W, C of one image.
"""

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.store.part import StorePart


class Store:
    """Read-only; may be pickled, and used under fork and spawn."""

    def __init__(self, parts: Sequence[StorePart]):
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])  # (parts + 1,)
        self._columns: dict[str, NDArray[Any]] = {}

    @classmethod
    def open(cls, where: str | Path | Sequence[str | Path]) -> Self:
        """The store at a path, a pattern such as `tiles/*.h5`, or a list of these, in that order.

        Raises InputError when a file is missing, torn, foreign, or of another version, and when files differ in stain normalisation."""
        parts = [StorePart(path) for path in expand_paths(where)]
        stained = {str((part.attrs.get("geometry") or {}).get("normalise", "none")): part.path for part in parts}
        if len(stained) > 1:
            told = ", ".join(f"{path}: {how}" for how, path in sorted(stained.items()))
            raise InputError(f"these stores differ in stain normalisation ({told}); ingest them alike, or open them apart")
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
        """The root attributes of the first file, JSON ones decoded."""
        return self.parts[0].attrs

    @property
    def modality(self) -> str:
        return self._same("modality")

    @property
    def dataset(self) -> str:
        return "+".join(dict.fromkeys(str(part.attrs["dataset"]) for part in self.parts))

    @property
    def datasets(self) -> NDArray[Any]:
        """(N,) the data set's name of each image: with the patient it says who a person is."""
        return np.repeat([str(part.attrs["dataset"]) for part in self.parts], [len(part) for part in self.parts])

    @property
    def channels(self) -> int:
        return int(max(part.attrs["channels"] for part in self.parts))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest of the files' dtypes."""
        return max((part.dtype for part in self.parts), key=lambda dtype: dtype.itemsize)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C), or None when it varies."""
        shapes = {part.shape for part in self.parts}
        return shapes.pop() if len(shapes) == 1 else None

    @property
    def fingerprint(self) -> str:
        """64 hex digits that stand for the pixels and their order: the file's own, or for several files the hash of theirs."""
        each = [part.fingerprint for part in self.parts]
        return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()

    def place(self, i: int) -> tuple[StorePart, int]:
        """The file that holds image `i`, and its place there."""
        if len(self.parts) == 1:
            return self.parts[0], i
        part = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.parts[part], i - int(self.starts[part])

    def divided(self, names: NDArray[Any], rows: NDArray[Any]) -> tuple[str, Path, Path] | None:
        """A name that stands in two files, and the two; None where each stands in one. names: (T,) of `rows` (T,)."""
        found, of = np.unique(names, return_inverse=True)
        held = np.unique(np.stack([of, np.searchsorted(self.starts, rows, side="right") - 1], 1), axis=0)  # (names of files, 2)
        twice = np.flatnonzero(held[1:, 0] == held[:-1, 0])
        if not len(twice):
            return None
        (name, one), (_, two) = held[twice[0] : twice[0] + 2]
        return str(found[name]), self.paths[one], self.paths[two]

    def image(self, i: int) -> NDArray[Any]:
        """(H, W, C) in its stored dtype; a read-only view of the file where the pixels are raw."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        part, j = self.place(i)
        return part.image(j)

    def images(self, index: ArrayLike) -> NDArray[Any]:
        """(B, H, W, C) in the stored dtype. Raises InputError when the images asked for differ in shape or dtype."""
        found = [self.image(int(i)) for i in np.asarray(index).reshape(-1)]
        if len({(image.shape, image.dtype) for image in found}) > 1:
            kinds = sorted({f"{image.shape} {image.dtype}" for image in found})
            raise InputError(
                f"these images do not fit in one array ({', '.join(kinds)}): read them one at a time, or ingest with one --size"
            )
        return np.stack(found) if found else np.empty((0, *(self.shape or (0, 0, self.channels))), self.dtype)

    def unit(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Stored values mapped to [0, 1]. Raises InputError when the files map them differently: then use `unit_images`."""
        maps = [read_unit_map(part) for part in self.parts]
        if len(set(maps)) > 1:
            raise InputError(f"{len(self.parts)} stores with unlike units {sorted(set(maps))} are open as one; use unit_images(index)")
        return to_unit(images, *maps[0])

    def unit_images(self, index: ArrayLike) -> NDArray[np.float32]:
        """(B, H, W, C) in [0, 1], each image by the unit of its own file; gray images are repeated where others have colour.

        Raises InputError when the images differ in height or width."""
        wanted = np.asarray(index).reshape(-1)
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"images {wanted.min()} to {wanted.max()} of {len(self)}")
        first = self.image(int(wanted[0])) if wanted.size else np.empty((*(self.shape or (0, 0, 0)),))
        out = np.empty((len(wanted), *first.shape[:2], self.channels), np.float32)  # (B, H, W, C)
        for row, i in enumerate(wanted):
            part, j = self.place(int(i))
            image = part.image(j)
            if image.shape[:2] != first.shape[:2]:
                raise InputError(f"these images differ in size ({first.shape[:2]} and {image.shape[:2]}); ingest them with one --size")
            offset, scale = read_unit_map(part)
            np.subtract(image, np.float32(offset), out=out[row], casting="unsafe")
            out[row] /= np.float32(scale)
        return out

    def columns(self) -> list[str]:
        """The names in /index and /meta that every file has."""
        each = [{*part.groups["index"], *part.groups.get("meta", ())} for part in self.parts]
        return sorted(set.intersection(*each))

    def has(self, name: str) -> bool:
        return name in self.columns()

    def column(self, name: str) -> NDArray[Any]:
        """(N,) values from /index or /meta ((N, 32) for phash); text as NumPy strings. Raises InputError for an unknown name."""
        if name not in self._columns:
            if not self.has(name):
                raise unknown_name_error("column", name, self.columns(), f"({self.paths[0]})")
            each = [part.column("index" if name in part.groups["index"] else "meta", name) for part in self.parts]
            self._columns[name] = each[0] if len(each) == 1 else np.concatenate(each)
        return self._columns[name]

    def label_names(self) -> list[str]:
        """The labels that any of the files has."""
        return sorted({name for part in self.parts for name in part.groups.get("labels", ())})

    def labels(self, name: str) -> NDArray[np.float32]:
        """(N,) float32, NaN where unknown, also for a file without that label. Raises InputError for an unknown name."""
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
        """The class names that the codes 0, 1, ... of a text label stand for; None for a numeric label."""
        if name not in self.label_names():
            raise unknown_name_error("label", name, self.label_names(), f"({self.paths[0]})")
        holders = [part for part in self.parts if name in part.groups.get("labels", ())]
        named = [True for part in holders if name in part.classes]
        named += [False for part in holders if name not in part.classes and not np.isnan(part.column("labels", name)).all()]
        if any(named) and not all(named):
            raise InputError(f"the label {name!r} is text in some of these stores and a number in others; ingest them alike")
        return sorted({c for part in self.parts for c in part.classes.get(name, ())}) if any(named) else None

    def close(self) -> None:
        """Lets go of the files; a later read opens them again."""
        for part in self.parts:
            part._map = None  # views handed out keep the old map alive, so it is not closed by force

    def _same(self, attribute: str) -> Any:
        values = {part.attrs[attribute] for part in self.parts}
        if len(values) > 1:
            raise InputError(f"these stores differ in {attribute} ({', '.join(map(str, sorted(values)))}); open them apart")
        return values.pop()


def expand_paths(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path, a pattern, or a list of them means. Raises InputError when it means none, or a file twice."""
    names = [where] if isinstance(where, str | Path) else list(where)
    paths = [Path(found) for name in names for found in match_files(str(name))]
    if not paths:
        raise InputError("no store was given; name one, e.g. data.store=cxr.h5")
    if folder := next((path for path in paths if path.is_dir()), None):
        raise InputError(f"{folder} is a folder, and a store is a file: did you mean '{folder}/*.h5'?")
    twice = {str(path) for path in paths if paths.count(path) > 1}
    if twice:
        raise InputError(f"{', '.join(sorted(twice))} is named twice; every image would count double")
    return paths


def match_files(name: str) -> list[str]:
    """The sorted files that a pattern means, or the name itself when it is no pattern or a file has that very name."""
    if not glob.has_magic(name) or Path(name).exists():
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        raise InputError(f"no file matches {name!r} (seen from {Path.cwd()})")
    return found


def read_unit_map(part: StorePart) -> tuple[float, float]:
    """(offset, scale) with which (stored - offset) / scale is in [0, 1]."""
    return float(part.attrs["unit"]["offset"]), float(part.attrs["unit"]["scale"])


def to_unit(images: NDArray[Any], offset: float, scale: float) -> NDArray[np.float32]:
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
