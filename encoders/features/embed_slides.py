"""Tile features, one file per slide, in the layout of TRIDENT, CLAM or STAMP (encoders/features/slide_layouts.py).

Files are written atomically. A file with features of the same encoder and the same tiles is kept.

Shapes: N tiles of a slide, D width.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.features.embed import extract_features, read_encoder_sha256, read_feature_precision
from encoders.features.slide_layouts import SlideAttributes, SlideLayout, feature_path, level0_mpp, write_slide_features
from encoders.runtime import dist
from encoders.runtime.errors import InputError
from encoders.runtime.progress import skip_items
from encoders.store.part import StorePart
from encoders.store.store import Store
from encoders.store.tile_coordinates import LEVEL0_SIDE_COLUMN, slide_mpp
from encoders.zoo.encoder import Encoder


def group_by_slide(store: Store) -> dict[str, NDArray[np.int64]]:
    """The rows of every slide, by slide name, sorted.

    Raises InputError if tiles have no slide or coordinates, or if two stores hold a slide of the same name."""
    missing = [name for name in ("slide", "x", "y") if not store.has_column(name)]
    if missing:
        raise InputError(
            f"{store.paths[0]} has no column {' or '.join(missing)}: features by slide need the coordinates of every tile; "
            "`encoders ingest wsi` stores them, and `encoders ingest folder --pattern` reads them from file names"
        )
    names = store.column("slide").astype(str)
    if two := store.find_split_name(names, np.arange(len(store))):
        raise InputError(f"the slide {two[0]!r} is in {two[1]} and in {two[2]}; embed the two stores into two folders")
    rows = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    for name, own in rows.items():
        if not name or "/" in name or name.startswith("."):
            raise InputError(f"the slide {name!r} of {store.locate(int(own[0]))[0].path} cannot be used as a file name")
    return rows


def tile_side(part: StorePart, mpp: float, pixels: int) -> int:
    """The side of a tile of `pixels` pixels in level-0 pixels; 0 if the slide's resolution is unknown."""
    scale = slide_mpp(part)
    return round(pixels * mpp / float(np.mean(scale))) if scale and np.isfinite(mpp) else 0


def level0_side(store: Store, part: StorePart, rows: NDArray[np.int64], mpp: float, pixels: int) -> int:
    """The side of the square tiles `rows` of a slide in level-0 pixels; 0 if it is unknown, differs, or if they are not square there."""
    if store.has_column(LEVEL0_SIDE_COLUMN):
        sides = np.asarray(store.column(LEVEL0_SIDE_COLUMN)[rows], np.float64)
        return int(sides[0]) if np.isfinite(sides).all() and len(np.unique(sides)) == 1 else 0
    facts = part.attrs.get("slide")
    if isinstance(facts, dict) and facts.get("oblong"):  # pixels are not square: tiles are, in micrometres or in pixels
        width, height = (round(float(side)) for side in facts["field"])
        return width if width == height else 0
    return tile_side(part, mpp, pixels)


def write_all_slide_features(
    encoder: Encoder,
    store: Store,
    folder: Path,
    batch: int = 64,
    workers: int = 0,
    progress: Callable[[int], None] = lambda n: None,
    layout: SlideLayout = "trident",
) -> tuple[int, int]:
    """Writes the features of every slide; returns the number of slides written and of slides whose file existed already.

    Several ranks share the slides, and each counts its own. Raises InputError if the folder holds features of another encoder or another
    precision, or for STAMP, whose coordinates are micrometres, if a slide has no resolution."""
    written = skipped = 0
    slides = group_by_slide(store)
    if layout == "stamp":
        for rows in slides.values():
            level0_mpp(store, rows)
    for existing in sorted({*folder.glob("*.h5"), *folder.glob("h5_files/*.h5")}):
        if read_encoder_sha256(existing) not in (None, encoder.sha256):
            raise InputError(f"{existing} holds features of another encoder; write those of {encoder.card.name} to another folder")
        if (other := read_feature_precision(existing)) not in (None, encoder.precision):
            raise InputError(f"{existing} holds features computed in {other}; write those in {encoder.precision} to another folder")
    for name, rows in list(slides.items())[dist.rank() :: dist.world_size()]:
        out = feature_path(folder, name, layout)
        attributes = feature_file_attributes(encoder, store, name, rows)
        if is_complete(out, attributes):
            skipped += 1
            skip_items(progress, len(rows))
            continue
        x = extract_features(encoder, store, index=rows, batch=batch, workers=workers, cache=False, progress=progress)
        write_slide_features(folder, layout, x, store, rows, attributes)
        written += 1
    return written, skipped


def feature_file_attributes(encoder: Encoder, store: Store, name: str, rows: NDArray[np.int64]) -> SlideAttributes:
    """The attributes of the feature file of a slide."""
    part, first = store.locate(int(rows[0]))
    size, mpp = int(part.image(first).shape[0]), float(store.column("mpp")[rows[0]]) if store.has_column("mpp") else float("nan")
    level0 = level0_side(store, part, rows, mpp, size)
    tiles = hashlib.sha256("".join(store.column("sha256")[rows].tolist()).encode()).hexdigest()
    attributes: SlideAttributes = {
        "name": name,
        "encoder": encoder.card.name,
        "encoder_sha256": encoder.sha256,
        "tiles_sha256": tiles,
        "patch_size": size,
        "mpp": mpp,
    }
    if level0:
        attributes["patch_size_level0"] = level0
    if encoder.precision != "fp32":
        attributes["precision"] = encoder.precision
    return attributes


def is_complete(out: Path, attributes: SlideAttributes) -> bool:
    """Whether the file holds the features of these tiles by this encoder."""
    try:
        with h5py.File(out, "r") as file:
            same_encoder = file.attrs.get("encoder_sha256") == attributes["encoder_sha256"]
            same_side = file.attrs.get("patch_size_level0") == attributes.get("patch_size_level0")  # earlier versions guessed it
            return bool(same_encoder and same_side and file.attrs.get("tiles_sha256") == attributes["tiles_sha256"])
    except OSError:
        return False
