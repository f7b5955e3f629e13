"""Merges the shards of a slide into its store.

Shapes: N tiles.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from encoders.ingest.damage import DAMAGE_COLUMN
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.quality import TileQuality
from encoders.ingest.wsi.records import Corners, SlideFacts, SlideRecord, facts_to_json
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_plan import TilePlan, count_by_reason
from encoders.ingest.wsi.tile_shard import count_tile_shards, read_blob_chunks, read_tile_blobs, read_tile_table
from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.json_types import Json
from encoders.similarity.perceptual_hash import hash_columns
from encoders.store.write import ColumnValues, full_range_unit, pixel_fingerprint, write_jpeg_store, write_store

TileTables = Sequence[Mapping[str, Array]]


def hash_recipe(recipe: Json) -> str:
    """SHA-256 of the recipe as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def write_slide_store(
    item: SlideItem, plan: TilePlan, settings: TilingSettings, attrs: Mapping[str, Json], folder: Path, out: Path
) -> SlideRecord:
    """Writes the store `out`; returns the record of the slide.  attrs: modality, dataset, recipe.

    Raises Unreadable with the number of tiles per reason if no tile is left."""
    tables = [read_tile_table(folder, number) for number in range(count_tile_shards(len(plan.x)))]
    rejected, seconds = count_rejected(plan, tables), float(sum(table["seconds"] for table in tables))
    kept = np.concatenate([np.empty(0, np.int64), *(table["kept"] for table in tables)]).astype(np.int64)
    if not len(kept):
        raise Unreadable(f"no tile is left of {rejected.total()}: {', '.join(f'{n} {why}' for why, n in rejected.most_common())}")
    index = build_index(item, plan, settings, tables, kept)
    measures = np.concatenate([table["quality"] for table in tables])
    meta, labels = build_meta_and_labels(item, {name: measures[:, i] for i, name in enumerate(TileQuality._fields)}, len(kept))
    accepted = np.concatenate([table.get("accepted_damage", np.full(len(table["kept"]), "")) for table in tables]).astype(str)
    if settings.accept_damaged:
        meta[DAMAGE_COLUMN] = accepted
    store_attrs: dict[str, Json] = {
        **attrs,
        "codec": settings.codec,
        "channels": 3,
        "unit": full_range_unit(np.uint8),
        "geometry": describe_tile_geometry(settings),
    }
    store_attrs |= {"fingerprint": pixel_fingerprint(index["sha256"].tolist()), "recipe_sha256": hash_recipe(attrs["recipe"])}
    read_rejected = np.setdiff1d(np.arange(len(plan.x)), kept)
    facts: SlideFacts = {**plan.facts, "non_glass_rejected": plan.facts["non_glass_rejected"] + float(plan.non_glass[read_rejected].sum())}
    store_attrs["slide"] = {**facts_to_json(facts), "tiles": len(kept), "rejected": dict(sorted(rejected.items()))}
    pictures = {"overview": plan.overview, "mask": plan.mask}
    if settings.codec == "jpeg":
        sizes = np.concatenate([table["sizes"] for table in tables])
        write_jpeg_store(out, read_blob_chunks(folder, tables), sizes, store_attrs, index, meta, labels, pictures)
    else:
        shape = settings.tile, settings.tile, 3
        images = (np.frombuffer(blob, np.uint8).reshape(shape) for blob in read_tile_blobs(folder, tables))
        write_store(out, images, shape, np.uint8, store_attrs, index, meta, labels, pictures)
    record: SlideRecord = {"tiles": len(kept), "rejected": dict(rejected), "read": len(plan.x), "seconds": seconds, "facts": facts}
    if refused := [str(words) for table in tables for words in table.get("damage_words", ())]:
        record["damage"] = refused
    if (accepted != "").any():
        record["accepted_damage"] = accepted[accepted != ""].tolist()
    return record


def describe_tile_geometry(settings: TilingSettings) -> dict[str, Json]:
    """The geometry that a store records, so that readers can compare it with the training data of an encoder."""
    size = [settings.tile, settings.tile]
    stained: dict[str, Json] = {"normalise": settings.normalise} if settings.normalise else {}
    return stained | {
        "resize": "mpp",
        "mpp": settings.mpp,
        "size": size,
        "interpolation": "area, then bicubic",
        "antialias": True,
        "fill": None,
    }


def build_index(item: SlideItem, plan: TilePlan, settings: TilingSettings, tables: TileTables, kept: IntArray) -> dict[str, Array]:
    """The index: one row per tile.  x, y: L0 pixels of the corner.  mpp: micrometres per pixel of the tile.  level: level that was read."""
    x, y = plan.x[kept], plan.y[kept]
    mpp = plan.cut.actual_mpp(plan.facts.get("tile_mpp", settings.mpp))
    numbers = {"mpp": np.full(len(kept), mpp), "level": np.full(len(kept), plan.cut.level, np.float64)}
    return {
        "key": np.array([f"{item.name}/{a}_{b}" for a, b in zip(x, y, strict=True)]),
        **constant_columns(item, plan.facts, len(kept)),
        **numbers,
        "x": x.astype(np.float64),
        "y": y.astype(np.float64),
        "tissue": plan.tissue[kept].astype(np.float64),
        "sha256": np.concatenate([table["sha256"] for table in tables]),
        **hash_columns(np.concatenate([table["signs"] for table in tables])),
    }


def constant_columns(item: SlideItem, facts: SlideFacts, rows: int) -> dict[str, Array]:
    """Columns of the index that are equal for all tiles, "" for unknown, so that all slides of a cohort have the same columns."""
    same = {
        "patient": item.name,
        "slide": item.name,
        **item.index_fields,
        "mpp_source": facts["mpp_source"],
        "quickhash": facts["quickhash"],
    }
    return {name: np.full(rows, str(value)) for name, value in same.items()}


def build_meta_and_labels(
    item: SlideItem, measures: Mapping[str, Array], rows: int
) -> tuple[dict[str, ColumnValues], dict[str, ColumnValues]]:
    """The columns of meta and of labels.  measures: the quality of each tile."""
    meta = {name: item.column(name, value, rows) for name, value in item.meta.items()}
    return {**measures, **meta}, {name: item.column(name, value, rows) for name, value in item.labels.items()}


def gather_faults(tables: TileTables) -> dict[str, Corners]:
    """Reason to L0 corners of the tiles that were read and rejected."""
    corners: dict[str, Corners] = {}
    for table in tables:
        for name in table:
            if name.startswith("fault_"):
                corners.setdefault(name.removeprefix("fault_"), []).extend(table[name].tolist())
    return corners


def count_rejected(plan: TilePlan, tables: TileTables) -> Counter[str]:
    """Number of tiles that were not kept, by reason."""
    return count_by_reason(plan.rejected) + count_by_reason(gather_faults(tables))
