"""Regions drawn by hand: GeoJSON as QuPath exports it, painted onto the grid of the tissue mask.

QuPath counts L0 pixels from the corner of what was scanned (the bounds, where the file has them).

Shapes: H, W of the mask.
"""

import json
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
        return [Region(class_of(feature), polygons) for feature in features(content) if (polygons := list(areas(feature["geometry"])))]
    except OSError as wrong:
        raise Unreadable(f"its regions {path.name} cannot be read: {wrong.strerror}") from wrong
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as wrong:
        raise Unreadable(f"its regions {path.name} are not GeoJSON with polygons as QuPath exports it ({wrong})") from wrong


def features(content: Any) -> list[Any]:
    """QuPath writes a FeatureCollection, a list of features, or a single one."""
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        return list(content["features"])
    return [content if content["type"] == "Feature" else {"geometry": content}]


def class_of(feature: Any) -> str:
    of = (feature.get("properties") or {}).get("classification") or {}
    return str(of.get("name") or ": ".join(of.get("names", ())))


def areas(geometry: Any) -> Iterator[Sequence[Ring]]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for each in geometry["geometries"]:
            yield from areas(each)
    elif kind in ("Polygon", "MultiPolygon"):
        for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
            yield [[(float(x), float(y)) for x, y, *_ in ring] for ring in polygon]


def allowed(regions: Sequence[Region], include: Sequence[str], exclude: Sequence[str], view: Overview) -> NDArray[np.bool_]:
    """(H, W): inside a region to include and in none to exclude. With no name in `include`, every class that is not excluded is included;
    a file that has nothing but what is excluded leaves the rest of the slide in."""
    inside = [r for r in regions if (r.name in include if include else r.name not in exclude)]
    keep = painted(inside, view) if inside or include else np.ones(view.image.shape[:2], bool)
    return keep & ~painted([r for r in regions if r.name in exclude], view)


def painted(regions: Sequence[Region], view: Overview) -> NDArray[np.bool_]:
    """(H, W): the union of the regions; a pixel belongs to it by its centre."""
    from PIL import Image, ImageDraw

    height, width = view.image.shape[:2]
    union = np.zeros((height, width), bool)
    for polygon in (p for region in regions for p in region.polygons):
        canvas = Image.new("1", (width, height))
        draw = ImageDraw.Draw(canvas)
        for number, ring in enumerate(polygon):
            draw.polygon([(x / view.scale[0] - 0.5, y / view.scale[1] - 0.5) for x, y in ring], fill=int(number == 0))
        union |= np.asarray(canvas)
    return union
