"""The pieces of a slide become its store.

Shapes: N tiles.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.quality import TileQuality
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_plan import TilePlan, count_by_reason
from encoders.ingest.wsi.tile_shard import count_tile_shards, read_blob_chunks, read_tile_blobs, read_tile_table
from encoders.store.write import full_range_unit, pixel_fingerprint, write_jpeg_store, write_store

TileTables = Sequence[Mapping[str, NDArray[Any]]]


def hash_recipe(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def write_slide_store(
    item: SlideItem, plan: TilePlan, settings: TilingSettings, attrs: Mapping[str, Any], folder: Path, out: Path
) -> dict[str, Any]:
    """Writes the store `out`; returns the record of the slide. attrs: modality, dataset, recipe.

    Raises Unreadable when no tile is left, saying where they went."""
    tables = [read_tile_table(folder, number) for number in range(count_tile_shards(len(plan.x)))]
    rejected, seconds = count_rejected(plan, tables), float(sum(table["seconds"] for table in tables))
    kept = np.concatenate([np.empty(0, np.int64), *(table["kept"] for table in tables)]).astype(np.int64)
    if not len(kept):
        raise Unreadable(f"no tile is left of {rejected.total()}: {', '.join(f'{n} {why}' for why, n in rejected.most_common())}")
    index = build_index(item, plan, settings, tables, kept)
    measures = np.concatenate([table["quality"] for table in tables])
    meta, labels = build_meta_and_labels(item, {name: measures[:, i] for i, name in enumerate(TileQuality._fields)}, len(kept))
    whole = {
        **attrs,
        "codec": settings.codec,
        "channels": 3,
        "unit": full_range_unit(np.uint8),
        "geometry": describe_tile_geometry(settings),
    }
    whole |= {"fingerprint": pixel_fingerprint(index["sha256"].tolist()), "recipe_sha256": hash_recipe(attrs["recipe"])}
    whole["slide"] = {**plan.facts, "tiles": len(kept), "rejected": dict(sorted(rejected.items()))}
    pictures = {"overview": plan.overview, "mask": plan.mask}
    if settings.codec == "jpeg":
        sizes = np.concatenate([table["sizes"] for table in tables])
        write_jpeg_store(out, read_blob_chunks(folder, tables), sizes, whole, index, meta, labels, pictures)
    else:
        shape = settings.tile, settings.tile, 3
        images = (np.frombuffer(blob, np.uint8).reshape(shape) for blob in read_tile_blobs(folder, tables))
        write_store(out, images, shape, np.uint8, whole, index, meta, labels, pictures)
    return {"tiles": len(kept), "rejected": dict(rejected), "read": len(plan.x), "seconds": seconds, "facts": plan.facts}


def describe_tile_geometry(settings: TilingSettings) -> dict[str, Any]:
    """As other stores say it: every reader may compare it with what an encoder was trained on."""
    size = [settings.tile, settings.tile]
    stained = {"normalise": settings.normalise} if settings.normalise else {}
    return stained | {
        "resize": "mpp",
        "mpp": settings.mpp,
        "size": size,
        "interpolation": "area, then bicubic",
        "antialias": True,
        "fill": None,
    }


def build_index(item: SlideItem, plan: TilePlan, settings: TilingSettings, tables: TileTables, kept: NDArray[np.int64]) -> dict[str, Any]:
    """The index: a row a tile. x, y: L0 pixels of the corner.  mpp: um a pixel of the tile.  level: what it was read from."""
    x, y = plan.x[kept], plan.y[kept]
    numbers = {"mpp": np.full(len(kept), plan.cut.stored(settings.mpp)), "level": np.full(len(kept), plan.cut.level, np.float64)}
    return {
        "key": [f"{item.name}/{a}_{b}" for a, b in zip(x, y, strict=True)],
        **constant_columns(item, plan.facts, len(kept)),
        **numbers,
        "x": x.astype(np.float64),
        "y": y.astype(np.float64),
        "tissue": plan.tissue[kept].astype(np.float64),
        "sha256": np.concatenate([table["sha256"] for table in tables]),
        "phash": np.concatenate([table["phash"] for table in tables]),
    }


def constant_columns(item: SlideItem, facts: Mapping[str, Any], rows: int) -> dict[str, NDArray[Any]]:
    """Columns of the index that are the same for all tiles, "" where nothing is known: a cohort lacks a column that one slide lacks."""
    same = {"patient": item.name, "slide": item.name, **item.said, "mpp_source": facts["mpp_source"], "quickhash": facts["quickhash"]}
    return {name: np.full(rows, str(value)) for name, value in same.items()}


def build_meta_and_labels(item: SlideItem, measures: Mapping[str, NDArray[Any]], rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of meta and of labels; measures: the quality of each tile."""
    meta = {name: item.column(name, value, rows) for name, value in item.meta.items()}
    return {**measures, **meta}, {name: item.column(name, value, rows) for name, value in item.labels.items()}


def gather_faults(tables: TileTables) -> dict[str, list[list[int]]]:
    """Reason to L0 corners of the tiles that were read and rejected."""
    found: dict[str, list[list[int]]] = {}
    for table in tables:
        for name in table:
            if name.startswith("fault_"):
                found.setdefault(name.removeprefix("fault_"), []).extend(table[name].tolist())
    return found


def count_rejected(plan: TilePlan, tables: TileTables) -> Counter[str]:
    """Every tile that was not kept, by reason."""
    return count_by_reason(plan.rejected) + count_by_reason(gather_faults(tables))
