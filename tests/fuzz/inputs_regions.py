"""Hand-drawn regions: GeoJSON as QuPath exports it and the XML of ASAP, with changed lines, bytes and values.

The truth is read from the changed text by another reader of JSON or XML, and painted pixel by pixel.
"""

import gzip
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any
from xml.dom import minidom

import numpy as np

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.regions import allowed_mask, read_region_file, read_regions_to_apply
from encoders.ingest.wsi.tissue import Overview
from encoders.runtime.errors import InputError
from tests.fuzz.harness import FuzzClass, SilentlyWrong, require_equal
from tests.fuzz.mutators import mutate_file, mutate_text_file, mutate_tree

Areas = list[tuple[str, list[list[list[tuple[float, float]]]]]]  # class, polygons
SQUARE, HOLE = [[10, 10], [90, 10], [90, 80], [10, 80], [10, 10]], [[30, 30], [50, 30], [50, 50], [30, 50], [30, 30]]
TREE = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": "1",
            "geometry": {"type": "Polygon", "coordinates": [SQUARE, HOLE]},
            "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
        },
        {
            "type": "Feature",
            "id": "2",
            "geometry": {"type": "MultiPolygon", "coordinates": [[[[5.5, 5], [20.25, 5], [20, 20], [5.5, 5]]]]},
            "properties": {"classification": {"names": ["Stroma", "inner"]}},
        },
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4]}, "properties": {}},
    ],
}
XML = """<?xml version="1.0"?>
<ASAP_Annotations>
  <Annotations>
    <Annotation Name="a" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58">
      <Coordinates>
        <Coordinate Order="0" X="10.5" Y="10" />
        <Coordinate Order="1" X="90" Y="10" />
        <Coordinate Order="2" X="90" Y="80" />
      </Coordinates>
    </Annotation>
    <Annotation Name="b" Type="Dot" PartOfGroup="None" Color="#F4FA58">
      <Coordinates>
        <Coordinate Order="0" X="1" Y="2" />
      </Coordinates>
    </Annotation>
  </Annotations>
  <AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#64FE2E" /></AnnotationGroups>
</ASAP_Annotations>
"""


class RegionText(FuzzClass):
    """A file of regions with changed lines or bytes."""

    def __init__(self, suffix: str, in_bytes: bool):
        self.suffix, self.in_bytes = suffix, in_bytes
        self.name = f"regions, {'GeoJSON' if suffix == 'geojson' else 'ASAP XML'}, {'bytes' if in_bytes else 'lines'}"

    def prepare(self, folder: Path) -> None:
        (folder / f"a.{self.suffix}").write_text(json.dumps(TREE, indent=1) if self.suffix == "geojson" else XML)

    def mutate(self, folder: Path, rng: Random) -> str:
        path = folder / f"a.{self.suffix}"
        if self.in_bytes:
            return mutate_file(path, rng)
        return mutate_text_file(path, rng)

    def check(self, folder: Path) -> None:
        compare_with_strict_reader(folder / f"a.{self.suffix}")


class RegionTree(FuzzClass):
    """GeoJSON with changed values."""

    name = "regions, GeoJSON, values"

    def prepare(self, folder: Path) -> None:
        (folder / "a.geojson").write_text(json.dumps(TREE))

    def mutate(self, folder: Path, rng: Random) -> str:
        changed, change = mutate_tree(TREE, rng)
        (folder / "a.geojson").write_text(json.dumps(changed))
        return change

    def check(self, folder: Path) -> None:
        compare_with_strict_reader(folder / "a.geojson")


class PackedRegions(FuzzClass):
    """Compressed GeoJSON with changed bytes, which the checksums tell."""

    name = "regions, GeoJSON in zip and gzip, bytes"

    def prepare(self, folder: Path) -> None:
        (folder / "a.geojson.gz").write_bytes(gzip.compress(json.dumps(TREE).encode()))
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.geojson", json.dumps(TREE))

    def check(self, folder: Path) -> None:
        truth = read_geojson(json.dumps(TREE).encode())
        for name in ("a.geojson.gz", "a.zip"):
            compare_areas(read_or_refuse(folder / name), truth)


def compare_with_strict_reader(path: Path) -> None:
    """Raises SilentlyWrong unless the areas of an accepted file are those that a strict reader finds."""
    found = read_or_refuse(path)
    try:
        truth = read_geojson(path.read_bytes()) if path.suffix == ".geojson" else read_asap(path.read_bytes())
    except Exception as error:
        raise SilentlyWrong(f"accepted, and a strict reader refuses it: {error!r}") from error
    compare_areas(found, truth)


def read_or_refuse(path: Path) -> Areas:
    """The areas, also painted as the ingest of slides does."""
    try:
        drawn = read_regions_to_apply(path, (), ("Artefact",)) if path.stat().st_size % 2 else read_region_file(path)
    except Unreadable as error:
        raise InputError(str(error)) from error
    view = Overview(np.zeros((12, 12, 3), np.uint8), (0, 0), (8.0, 8.0), 2.0, np.zeros((12, 12), bool))
    areas = [
        (region.name, [[[tuple(point) for point in ring] for ring in polygon] for polygon in region.polygons]) for region in drawn.areas
    ]
    kept = [area for area in areas if not area[0].endswith("*")]
    if kept:
        require_equal(allowed_mask(drawn.areas, [area[0] for area in kept], (), view), paint(kept), "mask")
    return areas


def paint(areas: Areas) -> np.ndarray:
    """(12, 12): centres inside an odd number of rings of a polygon, each 8 pixels wide; edge by edge, in Python."""
    mask = np.zeros((12, 12), bool)
    for row, column in np.ndindex(12, 12):
        x, y = column + 0.5, row + 0.5
        for _, polygons in areas:
            for polygon in polygons:
                crossed = 0
                for ring in polygon:
                    for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
                        x0, y0, x1, y1 = x0 / 8, y0 / 8, x1 / 8, y1 / 8
                        crossed += (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x
                mask[row, column] |= crossed % 2 == 1
    return mask


def compare_areas(found: Areas, truth: Areas) -> None:
    require_equal([name for name, _ in found], [name for name, _ in truth], "classes")
    for (_, ours), (_, theirs) in zip(found, truth, strict=True):
        require_equal(repr(ours), repr(theirs), "polygons")


def read_geojson(data: bytes) -> Areas:
    """The areas by RFC 7946. Raises any exception for what is not as it says."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode(json.detect_encoding(data)) if b"\0" in data[:4] else data.decode("cp1252", "replace")
    content = json.loads(text)
    features: list[Any] = []
    stack = [content]
    while stack:
        one = stack.pop(0)
        if isinstance(one, list):
            stack = one + stack
        elif one["type"] == "FeatureCollection":
            stack = list(one["features"]) + stack if isinstance(one["features"], list) else [one["features"], *stack]
        else:
            features.append(one if one["type"] == "Feature" else {"geometry": one})
    areas = []
    for feature in features:
        polygons = [polygon for polygon in list_polygons(feature.get("geometry")) if polygon and spans_area(polygon[0])]
        if polygons:
            areas.append((name_class(feature), polygons))
    return areas


def list_polygons(geometry: Any) -> list[Any]:
    if geometry is None:
        return []
    kind = geometry["type"]
    assert isinstance(kind, str)
    if kind == "GeometryCollection":
        return [polygon for one in geometry["geometries"] for polygon in list_polygons(one)]
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    polygons = []
    for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
        polygons.append([[(point[0], point[1]) for point in ring] for ring in polygon])
        for ring in polygons[-1]:
            for point in ring:
                assert all(type(side) in (int, float) and abs(side) < 1e300 for side in point)
    return polygons


def spans_area(ring: list[tuple[float, float]]) -> bool:
    """Whether three of the points are not on one line."""
    return any((b[0] - ring[0][0]) * (c[1] - ring[0][1]) != (b[1] - ring[0][1]) * (c[0] - ring[0][0]) for b in ring for c in ring)


def name_class(feature: Any) -> str:
    value = (feature.get("properties") or {}).get("classification")
    if isinstance(value, dict):
        name = value.get("name")
        value = value.get("names") if name is None or name == [] or not str(name).strip() else name
    if isinstance(value, list):
        value = ": ".join(part.strip() for part in value if part.strip())
    return "" if value is None or value is False else str(value).strip()


def read_asap(data: bytes) -> Areas:
    """The areas of ASAP's XML by another reader."""
    areas = []
    for annotation in minidom.parseString(data).getElementsByTagName("Annotation"):
        points = [
            (node.getAttribute("Order"), node.getAttribute("X"), node.getAttribute("Y"))
            for node in annotation.getElementsByTagName("Coordinate")
        ]
        ring = [(float(x), float(y)) for order, x, y in sorted(points, key=lambda point: int(float(point[0])))]
        if annotation.getAttribute("Type") in ("Polygon", "Spline", "Rectangle") and ring and spans_area(ring):
            areas.append((annotation.getAttribute("PartOfGroup").strip(), [[[*ring, ring[0]]]]))
    return areas


CLASSES = [
    RegionText("geojson", False),
    RegionText("geojson", True),
    RegionTree(),
    PackedRegions(),
    RegionText("xml", False),
    RegionText("xml", True),
]
