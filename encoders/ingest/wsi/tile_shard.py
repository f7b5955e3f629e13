"""Some hundred tiles of a slide, read, checked and encoded: concatenated pixels in one file, and a table in another.

The shards of a slide have a fixed size, independent of the number of workers. A shard is finished when its table exists under its final
name, so an interrupted ingest resumes at the last shard and writes the same store.

Shapes: H, W of a tile.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.shard_io import encode_jpeg, shard_pixels_path
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.quality import TileQuality, measure_quality, shrink_tile
from encoders.ingest.wsi.records import Corners
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.tile_plan import TilePlan
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.similarity.perceptual_hash import hash_signs_tiles, pixel_sha256
from encoders.stain.normalise import normalise_stain

if TYPE_CHECKING:
    from PIL import Image

NumberedTile = tuple[int, "Image.Image"]  # row in the plan, Pillow image

TILES_PER_SHARD = 512  # seconds of work, and a thousandth of a large slide
TILES_PER_BATCH = 32  # tiles whose quality is measured together
BLOB_CHUNK_BYTES = 4 << 20  # bytes: a call of HDF5 takes as long as copying a hundred tiles
DAMAGED = "damaged"


def tile_table_path(folder: Path, number: int) -> Path:
    """The table; the shard is finished when this file exists."""
    return folder / f"{number:05d}.npz"


def count_tile_shards(tiles: int) -> int:
    """Number of shards of a slide."""
    return -(-tiles // TILES_PER_SHARD)


def tile_shard_rows(tiles: int, number: int) -> range:
    """The tiles of a shard, as rows of the plan."""
    return range(number * TILES_PER_SHARD, min((number + 1) * TILES_PER_SHARD, tiles))


def write_tile_shard(
    slide: Slide, plan: TilePlan, number: int, settings: TilingSettings, folder: Path, tick: Callable[[int], None]
) -> None:
    """Reads the tiles of a shard and writes it; the table is written last."""
    start_s = time.monotonic()
    table = TileTable()
    todo = tile_shard_rows(len(plan.x), number)
    with atomic_write(shard_pixels_path(folder, number)) as part, part.open("wb", buffering=1 << 20) as file:
        for start in range(todo.start, todo.stop, TILES_PER_BATCH):
            batch = range(start, min(start + TILES_PER_BATCH, todo.stop))
            tiles = read_tiles(slide, plan, batch, table)
            append_good_tiles(tiles, plan, settings, table, file)
            tick(len(batch))
    table.save(tile_table_path(folder, number), time.monotonic() - start_s)


def read_tiles(slide: Slide, plan: TilePlan, batch: range, table: "TileTable") -> list[NumberedTile]:
    """The tiles of a batch that can be read; the others are recorded as damaged."""
    tiles = []
    for i in batch:
        x, y = int(plan.x[i]), int(plan.y[i])
        try:
            tiles.append((i, plan.cut.read(slide, x, y)))
        except Unreadable as error:
            table.faults.setdefault(DAMAGED, []).append([x, y])
            table.damage_words.append(str(error))
        if words := slide.take_damage():
            table.accepted[i] = words
    return tiles


def append_good_tiles(tiles: list[NumberedTile], plan: TilePlan, settings: TilingSettings, table: "TileTable", file: BinaryIO) -> None:
    """Measures the quality of the tiles, and appends the good ones to the file and the table."""
    if not tiles:
        return
    from PIL import Image

    qualities, grays = measure_quality([shrink_tile(tile, plan.facts.get("tile_mpp", settings.mpp)) for _, tile in tiles], plan.glass)
    hashes = hash_signs_tiles(grays)  # of the small copies, which is cheaper: the hash is robust to resizing
    for (i, tile), measures, signs in zip(tiles, qualities, hashes, strict=True):
        if reason := measures.rejection_reason(settings):
            table.faults.setdefault(reason, []).append([int(plan.x[i]), int(plan.y[i])])
            continue
        if look := plan.facts.get("stain"):
            tile = Image.fromarray(normalise_stain(np.asarray(tile), look))
        pixels = np.asarray(tile)  # (H, W, 3)
        blob = encode_jpeg(tile) if settings.codec == "jpeg" else pixels.tobytes()
        file.write(blob)
        table.kept.append(i)
        table.sizes.append(len(blob))
        table.sha256.append(pixel_sha256(pixels))
        table.signs.append(signs)
        table.quality.append(measures)


@dataclass
class TileTable:
    """The table of a shard while it is written."""

    kept: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    signs: list[NDArray[np.uint8]] = field(default_factory=list)
    quality: list[TileQuality] = field(default_factory=list)
    faults: dict[str, Corners] = field(default_factory=dict)  # by reason
    damage_words: list[str] = field(default_factory=list)  # why each damaged tile cannot be read
    accepted: dict[int, str] = field(default_factory=dict)  # row in the plan of a damaged tile that is kept nevertheless, and its damage

    def save(self, path: Path, seconds: float) -> None:
        """Writes the table, with the time that the shard took."""
        table: dict[str, Any] = {
            "kept": np.array(self.kept, np.int64),
            "sizes": np.array(self.sizes, np.int64),
            "sha256": np.array(self.sha256, "U64"),
            "signs": np.array(self.signs, np.uint8).reshape(-1, 4, 32),
            "quality": np.array(self.quality, np.float32).reshape(-1, len(TileQuality._fields)),
            "seconds": np.array(seconds),
            "damage_words": np.array(self.damage_words, "U"),
            "accepted_damage": np.array([self.accepted.get(i, "") for i in self.kept], "U"),
            **{f"fault_{reason}": np.array(corners, np.int64) for reason, corners in self.faults.items()},
        }
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(file, **table)


def read_tile_table(folder: Path, number: int) -> dict[str, Array]:
    """Column name to values of a finished shard; see `TileTable.save`."""
    with np.load(tile_table_path(folder, number)) as file:
        if "signs" not in file:
            raise InputError(f"{folder} was started by an earlier version of isograft: remove it, and run again")
        return dict(file)


def read_tile_blobs(folder: Path, tables: Sequence[Mapping[str, Array]]) -> Iterator[bytes]:
    """The encoded tiles of a slide, in order."""
    for number, table in enumerate(tables):
        with shard_pixels_path(folder, number).open("rb") as file:
            for size in table["sizes"]:
                yield file.read(int(size))


def read_blob_chunks(folder: Path, tables: Sequence[Mapping[str, Array]]) -> Iterator[bytes]:
    """The encoded tiles of a slide, concatenated, in chunks of some megabytes."""
    for number in range(len(tables)):
        with shard_pixels_path(folder, number).open("rb") as file:
            while part := file.read(BLOB_CHUNK_BYTES):
                yield part
