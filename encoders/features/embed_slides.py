"""Features of tiles, a file a slide: `features` (N, D) and `coords` (N, 2), as CLAM and TRIDENT write them and MIL tools read them.

A file is written whole or not at all; one that is there, of the same encoder and the same tiles, is not made again.

Shapes: N tiles of a slide, D width.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.features.embed import extract_features, read_encoder_sha256
from encoders.runtime import dist
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.store.store import Store
from encoders.zoo.encoder import Encoder


def group_by_slide(store: Store) -> dict[str, NDArray[np.int64]]:
    """The rows of every slide, slides in the order of their names.

    Raises InputError when tiles have no slide or place, or two files hold a slide of the same name."""
    missing = [name for name in ("slide", "x", "y") if not store.has(name)]
    if missing:
        raise InputError(
            f"{store.paths[0]} has no column {' or '.join(missing)}: features by slide need the place of every tile; "
            "`encoders ingest wsi` keeps it, and `encoders ingest folder --pattern` reads it from a file's name"
        )
    names = store.column("slide").astype(str)
    if two := store.divided(names, np.arange(len(store))):
        raise InputError(f"the slide {two[0]!r} is in {two[1]} and in {two[2]}: embed them into two folders")
    rows = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    for name, mine in rows.items():
        if not name or "/" in name or name.startswith("."):
            raise InputError(f"the slide {name!r} of {store.place(int(mine[0]))[0].path} cannot name a file")
    return rows


def tile_side(part: Any, mpp: float, pixels: int) -> int:
    """Pixels at level 0 that a tile of `pixels` covers; 0 where the store does not say the slide's resolution."""
    facts = part.attrs.get("slide")
    if not isinstance(facts, dict) or "mpp" not in facts or not np.isfinite(mpp):
        return 0
    return round(pixels * mpp / float(np.mean(facts["mpp"])))


def write_all_slide_features(
    encoder: Encoder,
    store: Store,
    folder: Path,
    batch: int = 64,
    workers: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[int, int]:
    """Writes FOLDER/SLIDE.h5 for every slide; returns how many were made and how many were there already.

    Several ranks share the slides, and each counts its own. Raises InputError when the folder holds features of another encoder."""
    made = there = 0
    slides = group_by_slide(store)
    for there_already in sorted(folder.glob("*.h5")):
        if read_encoder_sha256(there_already) not in (None, encoder.sha256):
            raise InputError(f"{there_already} holds features of another encoder; write those of {encoder.card.name} to another folder")
    for name, rows in list(slides.items())[dist.rank() :: dist.world_size()]:
        out = folder / f"{name}.h5"
        told = feature_file_attributes(encoder, store, name, rows)
        if is_complete(out, told):
            there += 1
            progress(len(rows))
            continue
        x = extract_features(encoder, store, index=rows, batch=batch, workers=workers, cache=False, progress=progress)
        write_slide_features(out, x, store, rows, told)
        made += 1
    return made, there


def feature_file_attributes(encoder: Encoder, store: Store, name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
    """What the file's attributes say: what it was made from, and the geometry in TRIDENT's words."""
    part, first = store.place(int(rows[0]))
    size, mpp = int(part.image(first).shape[0]), float(store.column("mpp")[rows[0]]) if store.has("mpp") else float("nan")
    level0 = tile_side(part, mpp, size)
    tiles = hashlib.sha256("".join(store.column("sha256")[rows].tolist()).encode()).hexdigest()
    told = {"name": name, "encoder": encoder.card.name, "encoder_sha256": encoder.sha256, "tiles_sha256": tiles, "patch_size": size}
    return told | {"patch_size_level0": level0 or size, "mpp": mpp}


def is_complete(out: Path, told: dict[str, Any]) -> bool:
    """Whether the file holds these tiles' features of this encoder."""
    try:
        with h5py.File(out, "r") as file:
            return all(file.attrs.get(name) == told[name] for name in ("encoder_sha256", "tiles_sha256"))
    except OSError:
        return False


def write_slide_features(out: Path, x: NDArray[np.float32], store: Store, rows: NDArray[np.int64], told: dict[str, Any]) -> None:
    """One slide's file; `coords` are the tiles' upper left corners in level-0 pixels, x before y."""
    places = np.stack([store.column("x")[rows], store.column("y")[rows]], axis=1)  # (N, 2)
    with atomic_write(out) as part, h5py.File(part, "w", track_order=False) as file:
        file.create_dataset("features", data=x, track_times=False).attrs["encoder"] = told["encoder"]
        coords = file.create_dataset("coords", data=np.rint(places).astype(np.int64), track_times=False)
        coords.attrs.update({name: told[name] for name in ("name", "patch_size", "patch_size_level0")})
        file.create_dataset("key", data=store.column("key")[rows].tolist(), dtype=h5py.string_dtype(), track_times=False)
        file.attrs.update(told)
