"""Regions drawn by hand: GeoJSON as QuPath exports it, painted onto the grid of the tissue mask.

QuPath counts L0 pixels from the corner of what was scanned (the bounds, where the file has them).

Shapes: H, W of the mask.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.tissue import Overview

Ring = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Region:
    """One drawn object: its class ("" when it has none) and polygons, each a list of rings, the first outside, the others holes."""

    name: str
    polygons: Sequence[Sequence[Ring]]


def read_regions(path: Path) -> list[Region]:
    """Every area in the file; points and lines have none and are left out. Raises Unreadable when it is no GeoJSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Region(region_class(feature), polygons)
            for feature in list_geojson_features(content)
            if (polygons := list(read_polygons(feature["geometry"])))
        ]
    except OSError as wrong:
        raise Unreadable(f"its regions {path.name} cannot be read: {wrong.strerror}") from wrong
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as wrong:
        raise Unreadable(f"its regions {path.name} are not GeoJSON with polygons as QuPath exports it ({wrong})") from wrong


def list_geojson_features(content: Any) -> list[Any]:
    """QuPath writes a FeatureCollection, a list of features, or a single one."""
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        return list(content["features"])
    return [content if content["type"] == "Feature" else {"geometry": content}]


def region_class(feature: Any) -> str:
    of = (feature.get("properties") or {}).get("classification") or {}
    return str(of.get("name") or ": ".join(of.get("names", ())))


def read_polygons(geometry: Any) -> Iterator[Sequence[Ring]]:
    if geometry is None:  # as GeoJSON writes a feature without a place
        return
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for each in geometry["geometries"]:
            yield from read_polygons(each)
    elif kind in ("Polygon", "MultiPolygon"):
        for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
            rings = [[(float(x), float(y)) for x, y, *_ in ring] for ring in polygon]
            if not all(math.isfinite(side) for ring in rings for point in ring for side in point):
                raise ValueError("a coordinate is no number")
            yield rings


def allowed_mask(regions: Sequence[Region], include: Sequence[str], exclude: Sequence[str], view: Overview) -> NDArray[np.bool_]:
    """(H, W): inside a region to include and in none to exclude. With no name in `include`, every class that is not excluded is included;
    a file that has nothing but what is excluded leaves the rest of the slide in."""
    inside = [r for r in regions if (r.name in include if include else r.name not in exclude)]
    keep = paint_regions(inside, view) if inside or include else np.ones(view.image.shape[:2], bool)
    return keep & ~paint_regions([r for r in regions if r.name in exclude], view)


def paint_regions(regions: Sequence[Region], view: Overview) -> NDArray[np.bool_]:
    """(H, W): the union of the regions; a pixel belongs to it by its centre."""
    union = np.zeros(view.image.shape[:2], bool)
    for polygon in (p for region in regions for p in region.polygons):
        fill_polygon([np.asarray(ring, np.float64) / view.scale for ring in polygon if len(ring)], union)
    return union


def fill_polygon(rings: Sequence[NDArray[np.float64]], onto: NDArray[np.bool_]) -> None:
    """Sets the pixels of `onto` (H, W) whose centres lie inside an odd number of the rings, each (n, 2) of x and y in pixels.

    Exact, where Pillow paints the outline as well: half a pixel (4 um) more on every side, and less in a hole."""
    if not rings:
        return
    height, width = onto.shape
    low, high = (np.clip(np.ceil(f([f(r, axis=0) for r in rings], axis=0) - 0.5), 0, (width, height)).astype(int) for f in (np.min, np.max))
    (left, top), (rows, columns) = low, (high - low)[::-1]  # pixels whose centres the rings' rectangle holds
    crossed = np.zeros((rows, columns + 1), np.int32)  # edges that cross the row of a pixel's centre between the last centre and this one
    for ring in rings:
        (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
        first, last = (np.clip(np.ceil(f(y0, y1) - 0.5), top, top + rows).astype(int) for f in (np.minimum, np.maximum))
        each = last - first  # rows whose centres an edge crosses
        edge = np.repeat(np.arange(len(ring)), each)
        row = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each) + first[edge]
        x = x0[edge] + (row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
        np.add.at(crossed, (row - top, np.clip(np.ceil(x - 0.5) - left, 0, columns).astype(int)), 1)
    onto[top : top + rows, left : left + columns] |= np.cumsum(crossed, axis=1)[:, :columns] % 2 == 1
