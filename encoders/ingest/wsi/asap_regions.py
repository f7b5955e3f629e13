"""Hand-drawn regions in the XML of ASAP, as CAMELYON16 and CAMELYON17 have them, as features of GeoJSON.

Coordinates are L0 pixels. The group of an annotation is its class: in CAMELYON16 `Tumor`, `_0` and `_1` (tumour) and `_2` or `Exclusion`
(an area inside that is no tumour). Dots, point sets and measurements have no area.
"""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from encoders.ingest.source import Unreadable
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

AREA_TYPES = ("Polygon", "Spline", "Rectangle")  # ASAP draws a spline through its points; the polygon of these points is taken


def read_asap_features(content: bytes, name: str) -> list[dict[str, Any]]:
    """One feature of GeoJSON per annotation; those without an area have ASAP's type as their geometry.

    content: in the encoding that it declares, or with a byte order mark.  name: of the file, for messages.
    Raises Unreadable if it is not ASAP's XML."""
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, *READ_ERRORS) as error:
        raise Unreadable(f"its regions {name} are no XML: {describe_reason(error)}; export them again") from error
    if root.tag != "ASAP_Annotations":
        raise Unreadable(f"its regions {name} are XML with the root {root.tag!r}; expected ASAP_Annotations, or GeoJSON")
    try:
        return list(_list_annotations(root))
    except READ_ERRORS as error:
        raise Unreadable(
            f"its regions {name} have an annotation without coordinates ({describe_reason(error)}); export them again"
        ) from error


def _list_annotations(root: ElementTree.Element) -> Iterator[dict[str, Any]]:
    for annotation in root.iter("Annotation"):
        points = sorted(annotation.iter("Coordinate"), key=lambda point: int(float(point.attrib["Order"])))
        ring = [(float(point.attrib["X"]), float(point.attrib["Y"])) for point in points]
        kind = annotation.get("Type") or "annotation without a type"
        yield {
            "type": "Feature",
            "properties": {"classification": {"name": annotation.get("PartOfGroup") or ""}},
            "geometry": {"type": "Polygon" if kind in AREA_TYPES else kind, "coordinates": [[*ring, *ring[:1]]]},
        }
