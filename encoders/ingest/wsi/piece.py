"""Some hundred tiles of a slide, read, judged and encoded: pixels end to end in one file, and a table beside it.

A slide is cut into pieces of fixed size, whatever the number of workers; a piece is finished when its table stands under its name. So
work that was killed goes on at the last piece, and the store is the same.

Shapes: N tiles kept.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.duplicates import phash256, pixel_sha256
from encoders.ingest.shard import encoded, pixels_path
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.plan import Plan
from encoders.ingest.wsi.quality import Quality, quality, small
from encoders.ingest.wsi.settings import Settings
from encoders.ingest.wsi.slide import Slide
from encoders.runtime.files import atomic

PIECE = 512  # tiles: seconds of work, and a thousandth of a large slide
DAMAGED = "damaged"


def table_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def count(tiles: int) -> int:
    """The number of pieces of a slide."""
    return -(-tiles // PIECE)


def rows(tiles: int, number: int) -> range:
    """The tiles of a piece."""
    return range(number * PIECE, min((number + 1) * PIECE, tiles))


def write_piece(slide: Slide, plan: Plan, number: int, settings: Settings, folder: Path, done: Callable[[int], None]) -> None:
    """Reads the tiles of a piece; the table is written last."""
    kept: list[int] = []
    sizes: list[int] = []
    hashes: list[str] = []
    near: list[NDArray[np.uint8]] = []
    found: list[Quality] = []
    faults: dict[str, list[list[int]]] = {}
    begun = time.monotonic()
    with atomic(pixels_path(folder, number)) as part, part.open("wb", buffering=1 << 20) as file:
        for i in rows(len(plan.x), number):
            x, y = int(plan.x[i]), int(plan.y[i])
            done(1)
            try:
                tile = plan.cut.read(slide, x, y)
            except Unreadable:
                faults.setdefault(DAMAGED, []).append([x, y])
                continue
            little = small(tile, settings.mpp)
            gray = np.asarray(little.convert("L"))  # (h, w)
            judged = quality(little, gray)
            if fault := judged.fault(settings):
                faults.setdefault(fault, []).append([x, y])
                continue
            pixels = np.asarray(tile)  # (H, W, 3)
            blob = encoded(tile) if settings.codec == "jpeg" else pixels.tobytes()
            file.write(blob)
            kept.append(i)
            sizes.append(len(blob))
            hashes.append(pixel_sha256(pixels))
            near.append(phash256(gray[..., None]))  # of the small copy: the hash stands resizing, and this is cheaper
            found.append(judged)
    table: dict[str, Any] = {
        "kept": np.array(kept, np.int64),
        "sizes": np.array(sizes, np.int64),
        "sha256": np.array(hashes, "U64"),
        "phash": np.array(near, np.uint8).reshape(-1, 32),
        "quality": np.array(found, np.float32).reshape(-1, len(Quality._fields)),
        "seconds": np.array(time.monotonic() - begun),
        **{f"fault_{reason}": np.array(where, np.int64) for reason, where in faults.items()},
    }
    with atomic(table_path(folder, number)) as part, part.open("wb") as file:
        np.savez(file, **table)


def read_table(folder: Path, number: int) -> dict[str, NDArray[Any]]:
    with np.load(table_path(folder, number)) as file:
        return dict(file)


def blobs(folder: Path, tables: Sequence[Mapping[str, NDArray[Any]]]) -> Iterator[bytes]:
    """The encoded tiles of a slide in order."""
    for number, table in enumerate(tables):
        with pixels_path(folder, number).open("rb") as file:
            for size in table["sizes"]:
                yield file.read(int(size))
