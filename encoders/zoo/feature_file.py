"""A file of tile features of one slide: `.h5` of `encoders embed`, CLAM, TRIDENT (`features`) or STAMP (`feats`), or `.pt` of CLAM.

Files with the suffix .pt are read without running their code.

Shapes: N tiles, D width.
"""

import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_heaps import check_global_heaps
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.zip_damage import find_zip_damage

if TYPE_CHECKING:
    from torch import Tensor

FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".pth")
FEATURE_NAMES = ("features", "feats")  # of CLAM, TRIDENT and `encoders embed`; of STAMP
EXTRACTOR_NAMES = ("encoder", "extractor", "model_name")  # attributes that name what computed the features


@dataclass(frozen=True)
class FeatureFile:
    """The tile features of a slide.

    x: (N, D).  keys: of the tiles in a store, if `encoders embed` wrote the file.  corners: (N, 2) level-0 x, y that a .pt holds itself.
    has_coords: whether it is HDF5 with a dataset `coords`."""

    x: NDArray[np.float32]
    keys: list[str] | None = None
    corners: Array | None = None
    has_coords: bool = False
    extractor: str = ""


def read_feature_file(path: Path) -> FeatureFile:
    """The features in a file. Raises InputError with the reason if it holds none, or values that are not finite."""
    try:
        file = read_torch(path) if path.suffix.lower() in (".pt", ".pth") else read_hdf5(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if wrong := int((~np.isfinite(file.x)).any(axis=1).sum()):
        raise InputError(f"{path}: {wrong} of {len(file.x)} tiles have features that are NaN or infinite")
    return file


def read_hdf5(path: Path) -> FeatureFile:
    """The dataset `features` or `feats`, with its keys."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            check_global_heaps(file, path)
            name = choose_name([name for name in file if isinstance(file[name], h5py.Dataset)])
            keys = file["key"].asstr()[:].tolist() if "key" in file else None
            own = {**file.attrs, **file[name].attrs}
            extractor = next((str(own[each]) for each in EXTRACTOR_NAMES if each in own), "")
            return FeatureFile(to_rows(file[name][()], name), keys, None, "coords" in file, extractor)
    except InputError:
        raise
    except READ_ERRORS as error:  # also of datasets, which h5py reads when they are used
        raise InputError(f"is not a readable HDF5 file: {describe_reason(error)}") from error


def read_torch(path: Path) -> FeatureFile:
    """The tensor in a file of torch.save, or the tensors `features` (`feats`) and `coords` of a dictionary. No other object is loaded."""
    import torch

    try:
        if zipfile.is_zipfile(path) and (damage := find_zip_damage(path)):
            raise InputError(f"is damaged: {damage}; copy it again")
        with warnings.catch_warnings(action="ignore"):  # about the protocol of pickle, which matters only if the file cannot be read
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError("holds other objects than tensors, which are not loaded, as they could run code; save the tensor alone") from error
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"is not a readable file of torch.save: {describe_reason(error)}") from error
    if isinstance(content, torch.Tensor):
        return FeatureFile(to_rows(to_numbers(content, "the tensor"), "the tensor"))
    if not isinstance(content, dict):
        raise InputError(f"holds a {type(content).__name__}; expected a tensor (N, D)")
    name = choose_name([str(key) for key, value in content.items() if isinstance(value, torch.Tensor)])
    coords = content.get("coords")
    corners = to_numbers(coords, "coords") if isinstance(coords, torch.Tensor) else None
    return FeatureFile(to_rows(to_numbers(content[name], name), name), None, corners, False, str(content.get("model_name", "")))


def to_numbers(tensor: "Tensor", name: str) -> Array:
    """The values of a tensor. Raises InputError for one that is complex, quantised, sparse or of another device."""
    if tensor.is_complex() or tensor.is_quantized or tensor.is_sparse or tensor.device.type != "cpu":
        raise InputError(f"{name} is a tensor of {tensor.dtype}, {tensor.layout} on {tensor.device}; expected dense real numbers")
    values: Array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return values


def choose_name(names: list[str]) -> str:
    """The name of the features. Raises InputError if there are none, or two."""
    found = [name for name in FEATURE_NAMES if name in names]
    if len(found) != 1:
        have = (
            f"both {' and '.join(found)}"
            if found
            else f"no features: expected {' or '.join(FEATURE_NAMES)}, found {', '.join(names) or 'nothing'}"
        )
        raise InputError(f"has {have}")
    return found[0]


def to_rows(values: Array, name: str) -> NDArray[np.float32]:
    """(N, D) float32; also of (1, N, D), a batch of one slide. Raises InputError for another shape, and without rows."""
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise InputError(f"{name} has shape {values.shape} and type {values.dtype}; expected (N, D) numbers, a row per tile")
    return np.ascontiguousarray(values, np.float32)
