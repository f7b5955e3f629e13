"""Hand-drawn regions: GeoJSON as QuPath exports it, or the XML of ASAP, rasterised on the grid of the tissue mask.

QuPath counts L0 pixels from the corner of the scanned area (the bounds, if the file has them).

Shapes: H, W of the mask.
"""

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.asap_regions import read_asap_features
from encoders.ingest.wsi.region_bytes import read_region_bytes
from encoders.ingest.wsi.tissue import Overview
from encoders.runtime.arrays import BoolArray, FloatArray
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

MAX_COORDINATE = 1e9  # pixels; the largest slides have some 1e6 a side
MAX_SHOWN = 40  # characters of a wrong value in a message
IGNORED_MARK = "*"  # QuPath ignores classes whose name ends so: Ignore*, Artefact*, Background*
XML_LEAD = b"".join({codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}) + b" \t\r\n\0"  # bytes that may stand before the first <
Ring = Sequence[Sequence[float]]
Feature = Mapping[str, Any]  # an object of GeoJSON, whose structure is checked while it is read


@dataclass(frozen=True)
class Region:
    """One drawn object: its class ("" for none) and its polygons, each a list of rings: the outline, then the holes."""

    name: str
    polygons: Sequence[Sequence[Ring]]


@dataclass(frozen=True)
class RegionFile:
    """The content of a file of regions."""

    areas: list[Region]
    others: Counter[str]  # drawn objects without an area, by kind: Point, LineString, ...

    def count_classes(self) -> dict[str, int]:
        """Class to number of areas."""
        return dict(Counter(region.name for region in self.areas))


def read_regions(path: Path) -> list[Region]:
    """Every area of the file, without points and lines. Raises Unreadable if the file is neither GeoJSON nor ASAP's XML."""
    return read_region_file(path).areas


def read_region_file(path: Path) -> RegionFile:
    """The drawn objects of a file. Raises Unreadable if the file is neither GeoJSON nor ASAP's XML, plain, as .gz or as .zip."""
    data = read_region_bytes(path)
    areas, others = [], Counter[str]()
    try:
        for feature in list_region_features(data, path.name):
            parts = list(read_drawn_parts(feature.get("geometry")))
            if polygons := [part for part in parts if not isinstance(part, str)]:
                areas.append(Region(region_class(feature), polygons))
            others.update(part for part in parts if isinstance(part, str))
    except Unreadable:
        raise
    except READ_ERRORS as error:
        raise Unreadable(
            f"its regions {path.name} are not GeoJSON with polygons as QuPath exports it ({describe_fault(error)}); export them again"
        ) from error
    return RegionFile(areas, others)


def describe_fault(error: BaseException) -> str:
    """What is wrong with a file, in a few words."""
    return f"an object has no {error.args[0]!r}" if isinstance(error, KeyError) and error.args else describe_reason(error)


def read_regions_to_apply(path: Path, include: Sequence[str], exclude: Sequence[str]) -> RegionFile:
    """The drawn objects of a file. Raises Unreadable if none has an area, because the whole slide would be tiled.

    Nothing drawn is an answer to the question what to exclude: a file without any object is accepted if there is only --exclude."""
    drawn = read_region_file(path)
    if drawn.areas or (exclude and not include and not drawn.others):
        return drawn
    kinds = {kind: kind if kind.replace(" ", "").isalnum() else repr(kind[:MAX_SHOWN]) for kind in drawn.others}
    held = ", ".join(f"{n} {kinds[kind]}" for kind, n in drawn.others.most_common())
    content = f"hold no area, only {held}" if held else "hold no drawn object"
    raise Unreadable(f"its regions {path.name} {content}; draw polygons, or remove the file to tile the whole slide")


def list_region_features(data: bytes, name: str) -> list[Feature]:
    """The features of GeoJSON or of ASAP's XML in any Unicode encoding, with or without a byte order mark.  name: for messages."""
    if data.lstrip(XML_LEAD)[:1] == b"<":
        return list(read_asap_features(data, name))
    try:
        text = data.decode(json.detect_encoding(data))
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")  # scripts on Windows
    return list(list_geojson_features(json.loads(text, object_pairs_hook=refuse_repeated_keys)))


def refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON. Raises ValueError for a key that stands in it twice: one of the two values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def list_geojson_features(content: Any) -> Iterator[Feature]:
    """The features of a file: of a FeatureCollection, of a list, a single feature, or a geometry alone."""
    if isinstance(content, list):
        for each in content:
            yield from list_geojson_features(each)
    elif content["type"] == "FeatureCollection":
        yield from list_geojson_features(content["features"])
    else:
        yield content if content["type"] == "Feature" else {"geometry": content}


def region_class(feature: Feature) -> str:
    """The class of a region; "" for none."""
    properties = feature.get("properties")
    return "" if properties is None else class_name(as_mapping(properties, "properties").get("classification"))


def as_mapping(value: object, what: str) -> Feature:
    """The value. Raises ValueError if it is no object of JSON."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is {str(value)[:MAX_SHOWN]!r}, expected an object")
    return value


def class_name(value: object) -> str:
    """The name of a class as QuPath writes it: a text, {"name": ...} or {"names": [...]}, whose parts are joined.

    Raises ValueError for anything else: a region would lose its class."""
    if isinstance(value, Mapping):
        inner = [value.get("name"), value.get("names")]
        if (found := class_name(inner[0]) or class_name(inner[1])) or not any(isinstance(one, Mapping) for one in inner):
            return found
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ": ".join(filter(None, map(class_name, value)))
    if value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return "" if value is None else str(value).strip()
    raise ValueError(f"a class is {str(value)[:MAX_SHOWN]!r}, expected a text")


def read_drawn_parts(geometry: Feature | None) -> Iterator[Sequence[Ring] | str]:
    """The polygons of a geometry, also of a collection; for what has no area, its kind.

    Raises ValueError for coordinates that are not numbers, or lie beyond any slide."""
    if geometry is None:  # GeoJSON: a feature without a location
        yield "without geometry"
        return
    kind = as_mapping(geometry, "geometry")["type"]
    if not isinstance(kind, str):
        raise ValueError(f"the type of a geometry is {str(kind)[:MAX_SHOWN]!r}, expected a text such as Polygon")
    if kind == "GeometryCollection":
        for each in geometry["geometries"]:
            yield from read_drawn_parts(each)
    elif kind in ("Polygon", "MultiPolygon"):
        for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
            rings = [[(x, y) for x, y, *_ in ring] for ring in polygon]
            for side in (side for ring in rings for point in ring for side in point):
                if type(side) not in (int, float) or not -MAX_COORDINATE <= side <= MAX_COORDINATE:
                    raise ValueError(f"a coordinate is {str(side)[:MAX_SHOWN]!r}, expected pixels of the slide")
            yield rings if rings and has_area(rings[0]) else f"{kind} without area"
    else:
        yield kind[:MAX_SHOWN]


def has_area(ring: Ring) -> bool:
    """Whether the points of a ring span an area: there are at least three, and they are not on one line."""
    points = np.asarray(ring, np.float64).reshape(-1, 2)
    away = points - points[:1]
    far = away[np.argmax(np.abs(away).sum(axis=1))] if len(away) else np.zeros(2)
    return bool((np.abs(away[:, 0] * far[1] - away[:, 1] * far[0]) > 0).any())


def is_excluded(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether regions of the class give no tiles: it is in `exclude`, or QuPath ignores it and it is not in `include`."""
    return name in exclude or (name.endswith(IGNORED_MARK) and name not in include)


def is_included(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether tiles are taken from regions of the class, where no excluded region covers them."""
    return name in include if include else not is_excluded(name, include, exclude)


def allowed_mask(regions: Sequence[Region], include: Sequence[str], exclude: Sequence[str], view: Overview) -> BoolArray:
    """(H, W): pixels inside a region to include, and outside all regions to exclude.

    With an empty `include`, every class that is not excluded is included. If a file has only regions to exclude, the rest of the slide is
    included. Classes that QuPath ignores are excluded, see `is_excluded`."""
    inside = [r for r in regions if is_included(r.name, include, exclude)]
    keep = paint_regions(inside, view) if inside or include else np.ones(view.image.shape[:2], bool)
    return keep & ~paint_regions([r for r in regions if is_excluded(r.name, include, exclude)], view)


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
