"""Hand-drawn regions: GeoJSON as QuPath exports it, or the XML of ASAP, rasterised on the grid of the tissue mask.

QuPath counts L0 pixels from the corner of the scanned area (the bounds, if the file has them).

Shapes: H, W of the mask.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.asap_regions import read_asap_features
from encoders.ingest.wsi.tissue import Overview
from encoders.runtime.arrays import BoolArray, FloatArray

REGION_SUFFIXES = (".geojson", ".json", ".xml")
Ring = Sequence[Sequence[float]]
Feature = Mapping[str, Any]  # an object of GeoJSON, whose structure is checked while it is read


@dataclass(frozen=True)
class Region:
    """One drawn object: its class ("" for none) and its polygons, each a list of rings: the outline, then the holes."""

    name: str
    polygons: Sequence[Sequence[Ring]]


def read_regions(path: Path) -> list[Region]:
    """Every area of the file, without points and lines. Raises Unreadable if the file is neither GeoJSON nor ASAP's XML."""
    try:
        text = path.read_text(encoding="utf-8")
        content = read_asap_features(text, path.name) if path.suffix.lower() == ".xml" else json.loads(text)
        return [
            Region(region_class(feature), polygons)
            for feature in list_geojson_features(content)
            if (polygons := list(read_polygons(feature["geometry"])))
        ]
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(f"its regions {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Unreadable(f"its regions {path.name} are not GeoJSON with polygons as QuPath exports it ({error})") from error


def list_geojson_features(content: Any) -> list[Feature]:
    """The features of a file. QuPath writes a FeatureCollection, a list of features, or a single feature."""
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        return list(content["features"])
    return [content if content["type"] == "Feature" else {"geometry": content}]


def region_class(feature: Feature) -> str:
    """The class of a region; "" for none."""
    classification = (feature.get("properties") or {}).get("classification") or {}
    return str(classification.get("name") or ": ".join(classification.get("names", ())))


def read_polygons(geometry: Feature | None) -> Iterator[Sequence[Ring]]:
    """The polygons of a geometry, also of a collection. Raises ValueError for coordinates that are not finite."""
    if geometry is None:  # GeoJSON: a feature without a location
        return
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for each in geometry["geometries"]:
            yield from read_polygons(each)
    elif kind in ("Polygon", "MultiPolygon"):
        for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
            rings = [[(float(x), float(y)) for x, y, *_ in ring] for ring in polygon]
            if not all(math.isfinite(side) for ring in rings for point in ring for side in point):
                raise ValueError("a coordinate is NaN or infinite")
            yield rings


def allowed_mask(regions: Sequence[Region], include: Sequence[str], exclude: Sequence[str], view: Overview) -> BoolArray:
    """(H, W): pixels inside a region to include, and outside all regions to exclude.

    With an empty `include`, every class that is not excluded is included. If a file has only regions to exclude, the rest of the slide is
    included."""
    inside = [r for r in regions if (r.name in include if include else r.name not in exclude)]
    keep = paint_regions(inside, view) if inside or include else np.ones(view.image.shape[:2], bool)
    return keep & ~paint_regions([r for r in regions if r.name in exclude], view)


def paint_regions(regions: Sequence[Region], view: Overview) -> BoolArray:
    """(H, W): the union of the regions. A pixel belongs to a region if its centre is inside."""
    union = np.zeros(view.image.shape[:2], bool)
    for polygon in (p for region in regions for p in region.polygons):
        fill_polygon([np.asarray(ring, np.float64) / view.scale for ring in polygon if len(ring)], union)
    return union


def fill_polygon(rings: Sequence[FloatArray], out: BoolArray) -> None:
    """Sets the pixels of `out` (H, W) whose centres lie inside an odd number of the rings, each (n, 2) of x and y in pixels.

    This is exact. Pillow also paints the outline: half a pixel (4 um) more on every side, and less in a hole."""
    if not rings:
        return
    height, width = out.shape
    low, high = (np.clip(np.ceil(f([f(r, axis=0) for r in rings], axis=0) - 0.5), 0, (width, height)).astype(int) for f in (np.min, np.max))
    (left, top), (rows, columns) = low, (high - low)[::-1]  # pixels whose centres lie in the bounding box of the rings
    crossed = np.zeros((rows, columns + 1), np.int32)  # edges that cross the row of a pixel centre between the last centre and this one
    for ring in rings:
        (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
        first, last = (np.clip(np.ceil(f(y0, y1) - 0.5), top, top + rows).astype(int) for f in (np.minimum, np.maximum))
        each = last - first  # number of rows of centres that an edge crosses
        edge = np.repeat(np.arange(len(ring)), each)
        row = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each) + first[edge]
        x = x0[edge] + (row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
        np.add.at(crossed, (row - top, np.clip(np.ceil(x - 0.5) - left, 0, columns).astype(int)), 1)
    out[top : top + rows, left : left + columns] |= np.cumsum(crossed, axis=1)[:, :columns] % 2 == 1
