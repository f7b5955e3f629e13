"""Some hundred tiles of a slide, read, judged and encoded: pixels end to end in one file, and a table beside it.

A slide is cut into pieces of fixed size, whatever the number of workers; a piece is finished when its table stands under its name. So
work that was killed goes on at the last piece, and the store is the same.

Shapes: H, W of a tile.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.shard_io import encode_jpeg, shard_pixels_path
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.quality import TileQuality, measure_quality, shrink_tile
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.tile_plan import TilePlan
from encoders.runtime.files import atomic_write
from encoders.similarity.perceptual_hash import phash256_tiles, pixel_sha256
from encoders.stain.normalise import normalise_stain

TILES_PER_SHARD = 512  # tiles: seconds of work, and a thousandth of a large slide
TILES_PER_BATCH = 32  # tiles judged together
BLOB_CHUNK_BYTES = 4 << 20  # bytes of a part: HDF5 takes as long for a call as for copying a hundred tiles
DAMAGED = "damaged"


def tile_table_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def count_tile_shards(tiles: int) -> int:
    """The number of pieces of a slide."""
    return -(-tiles // TILES_PER_SHARD)


def tile_shard_rows(tiles: int, number: int) -> range:
    """The tiles of a piece."""
    return range(number * TILES_PER_SHARD, min((number + 1) * TILES_PER_SHARD, tiles))


def write_tile_shard(
    slide: Slide, plan: TilePlan, number: int, settings: TilingSettings, folder: Path, done: Callable[[int], None]
) -> None:
    """Reads the tiles of a piece; the table is written last."""
    begun = time.monotonic()
    found = TileTable()
    todo = tile_shard_rows(len(plan.x), number)
    with atomic_write(shard_pixels_path(folder, number)) as part, part.open("wb", buffering=1 << 20) as file:
        for start in range(todo.start, todo.stop, TILES_PER_BATCH):
            batch = range(start, min(start + TILES_PER_BATCH, todo.stop))
            tiles = read_tiles(slide, plan, batch, found)
            append_good_tiles(tiles, plan, settings, found, file)
            done(len(batch))
    found.save(tile_table_path(folder, number), time.monotonic() - begun)


def read_tiles(slide: Slide, plan: TilePlan, batch: range, found: "TileTable") -> list[tuple[int, Any]]:
    """Numbers and Pillow images of the tiles that can be read."""
    tiles = []
    for i in batch:
        x, y = int(plan.x[i]), int(plan.y[i])
        try:
            tiles.append((i, plan.cut.read(slide, x, y)))
        except Unreadable:
            found.faults.setdefault(DAMAGED, []).append([x, y])
    return tiles


def append_good_tiles(tiles: list[tuple[int, Any]], plan: TilePlan, settings: TilingSettings, found: "TileTable", file: BinaryIO) -> None:
    """Judges the tiles, and appends the good ones to the file and the table."""
    if not tiles:
        return
    from PIL import Image

    judged, grays = measure_quality([shrink_tile(tile, settings.mpp) for _, tile in tiles])
    hashes = phash256_tiles(grays)  # of the small copies: the hash stands resizing, and this is cheaper
    for (i, tile), measures, phash in zip(tiles, judged, hashes, strict=True):
        if fault := measures.fault(settings):
            found.faults.setdefault(fault, []).append([int(plan.x[i]), int(plan.y[i])])
            continue
        if look := plan.facts.get("stain"):
            tile = Image.fromarray(normalise_stain(np.asarray(tile), look))
        pixels = np.asarray(tile)  # (H, W, 3)
        blob = encode_jpeg(tile) if settings.codec == "jpeg" else pixels.tobytes()
        file.write(blob)
        found.kept.append(i)
        found.sizes.append(len(blob))
        found.sha256.append(pixel_sha256(pixels))
        found.phash.append(phash)
        found.quality.append(measures)


@dataclass
class TileTable:
    """The table of a piece while it grows."""

    kept: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    phash: list[NDArray[np.uint8]] = field(default_factory=list)
    quality: list[TileQuality] = field(default_factory=list)
    faults: dict[str, list[list[int]]] = field(default_factory=dict)  # reason to L0 corners

    def save(self, path: Path, seconds: float) -> None:
        table: dict[str, Any] = {
            "kept": np.array(self.kept, np.int64),
            "sizes": np.array(self.sizes, np.int64),
            "sha256": np.array(self.sha256, "U64"),
            "phash": np.array(self.phash, np.uint8).reshape(-1, 32),
            "quality": np.array(self.quality, np.float32).reshape(-1, len(TileQuality._fields)),
            "seconds": np.array(seconds),
            **{f"fault_{reason}": np.array(where, np.int64) for reason, where in self.faults.items()},
        }
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(file, **table)


def read_tile_table(folder: Path, number: int) -> dict[str, NDArray[Any]]:
    with np.load(tile_table_path(folder, number)) as file:
        return dict(file)


def read_tile_blobs(folder: Path, tables: Sequence[Mapping[str, NDArray[Any]]]) -> Iterator[bytes]:
    """The encoded tiles of a slide in order."""
    for number, table in enumerate(tables):
        with shard_pixels_path(folder, number).open("rb") as file:
            for size in table["sizes"]:
                yield file.read(int(size))


def read_blob_chunks(folder: Path, tables: Sequence[Mapping[str, NDArray[Any]]]) -> Iterator[bytes]:
    """The encoded tiles of a slide end to end, in parts of some megabytes."""
    for number in range(len(tables)):
        with shard_pixels_path(folder, number).open("rb") as file:
            while part := file.read(BLOB_CHUNK_BYTES):
                yield part
