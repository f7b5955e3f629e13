"""The features of the tiles of a store from files of other tools: a tile is found by its key, or by its slide and level-0 corner.

Shapes: N tiles asked for, T tiles in a file, D width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.tile_coordinates import Pair, read_coordinate_file, read_corners, slide_mpp
from encoders.zoo.feature_file import FeatureFile, read_feature_file
from encoders.zoo.stored_features import StoredFeatures

COORDINATE_FOLDERS = ("h5_files", "patches", "coords")  # of CLAM, beside or below the folder of .pt files
TRIDENT_PATCHES = "_patches"
SUFFIX_ORDER = (".h5", ".hdf5", ".pt", ".pth")  # HDF5 first: it holds the coordinates too


def read_stored_features(
    encoder: StoredFeatures, store: Store, rows: NDArray[np.int64], progress: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """(N, D) features of `rows` of the store, in that order.

    Raises InputError for a store without slides or corners, and with the number and an example of tiles that have no features."""
    if missing := [name for name in ("slide", "x", "y") if not store.has_column(name)]:
        raise InputError(f"{store.paths[0]} has no column {' or '.join(missing)}, by which tiles find their features in {encoder.folder}")
    slides = store.column("slide")[rows].astype(str)
    files = index_files(encoder.files)
    out = np.empty((len(rows), encoder.card.dim), np.float32)
    absent: list[str] = []
    for name in np.unique(slides):
        own = np.flatnonzero(slides == name)
        if str(name) not in files:
            absent += [f"slide {name}, which has no file"] * len(own)
            continue
        path = choose_file(files[str(name)])
        found = match_tiles(path, read_feature_file(path), store, rows[own])
        x = found[1]
        if x.shape[1] != encoder.card.dim:
            raise InputError(f"{path} has features of width {x.shape[1]}, the other files of {encoder.folder} {encoder.card.dim}")
        at = found[0]
        out[own[at >= 0]] = x[at[at >= 0]]
        absent += [f"{store.column('key')[i]} of {path.name}" for i in rows[own[at < 0]].tolist()]
        if progress:
            progress(len(own))
    if absent:
        raise InputError(
            f"{len(absent):,} of {len(rows):,} tiles have no features in {encoder.folder} (first: {absent[0]}); tile the slides at the "
            "coordinates of the features: encoders ingest wsi --coords"
        )
    return out


def index_files(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Name of a slide -> the files with that name, without suffix and TRIDENT's ending."""
    files: dict[str, list[Path]] = {}
    for path in paths:
        files.setdefault(path.stem.removesuffix(TRIDENT_PATCHES), []).append(path)
    return files


def choose_file(paths: Sequence[Path]) -> Path:
    """The file of a slide: HDF5 rather than the .pt that CLAM writes beside it. Raises InputError for two of one kind."""
    best = min(SUFFIX_ORDER.index(path.suffix.lower()) for path in paths)
    chosen = [path for path in paths if SUFFIX_ORDER.index(path.suffix.lower()) == best]
    if len(chosen) > 1:
        raise InputError(f"two files hold features of one slide: {chosen[0]} and {chosen[1]}; name the folder of one of them")
    return chosen[0]


def match_tiles(path: Path, file: FeatureFile, store: Store, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(N,) row of the file for each tile, -1 for none, and the features (T, D) of the file.

    Raises InputError for a file whose tiles have neither keys nor coordinates, and for another number of coordinates."""
    if file.keys is not None:
        places = {key: i for i, key in enumerate(file.keys)}
        return np.array([places.get(key, -1) for key in store.column("key")[rows].tolist()], np.int64), file.x
    corners = read_file_corners(path, file, slide_mpp(store.locate(int(rows[0]))[0]))
    if len(corners) != len(file.x):
        raise InputError(f"{path} has {len(file.x)} features and {len(corners)} coordinates; a tile has one of each")
    at: dict[tuple[int, int], int] = {}
    for i, (x, y) in enumerate(corners.tolist()):
        at.setdefault((x, y), i)
    wanted = np.stack([store.column("x")[rows], store.column("y")[rows]], axis=1)
    return np.array([at.get((round(x), round(y)), -1) for x, y in wanted.tolist()], np.int64), file.x


def read_file_corners(path: Path, file: FeatureFile, mpp: Pair | None) -> Array:
    """(T, 2) level-0 corners of the features in a file: from itself, or for a .pt of CLAM from the HDF5 file with its name.

    Raises InputError if there are none: the order of tiles is then unknown."""
    if file.corners is not None:
        return read_corners(file.corners, (1.0, 1.0))
    source = path if file.has_coords else find_coordinates(path)
    if source is None:
        raise InputError(
            f"{path} holds no coordinates, which tell to which tile a row belongs; keep the HDF5 files of CLAM beside it, "
            f"as {path.parent.parent / COORDINATE_FOLDERS[0] / (path.stem + '.h5')}"
        )
    try:
        return read_coordinate_file(source, mpp)[0]
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def find_coordinates(path: Path) -> Path | None:
    """The HDF5 file with the coordinates of a .pt file: beside it, or in a folder of CLAM beside its folder."""
    folders = [path.parent, *(path.parent.parent / name for name in COORDINATE_FOLDERS)]
    usual = [folder / f"{path.stem}{ending}.h5" for folder in folders for ending in ("", TRIDENT_PATCHES)]
    return next((each for each in usual if each.is_file()), None)
