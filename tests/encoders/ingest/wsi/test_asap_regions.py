"""Regions in ASAP's XML, as CAMELYON16 has them."""

import numpy as np
import pytest

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.region_files import find_region_files
from encoders.ingest.wsi.regions import read_regions


def asap(*annotations):
    """annotations: (group, type, points)."""
    parts = ['<?xml version="1.0"?>\n<ASAP_Annotations>\n<Annotations>']
    for k, (group, kind, points) in enumerate(annotations):
        parts.append(f'<Annotation Name="Annotation {k}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>')
        parts += [f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in reversed(list(enumerate(points)))]
        parts.append("</Coordinates></Annotation>")
    return "\n".join(
        [*parts, "</Annotations>", '<AnnotationGroups><Group Name="_0" PartOfGroup="None" /></AnnotationGroups>', "</ASAP_Annotations>"]
    )


SQUARE = [(10.5, 20), (110.5, 20), (110.5, 80), (10.5, 80)]


def test_areas_become_regions_of_their_group_in_the_order_of_their_points(tmp_path):
    path = tmp_path / "tumor_001.xml"
    path.write_text(asap(("_0", "Polygon", SQUARE), ("_2", "Spline", SQUARE[:3]), ("_0", "Dot", SQUARE[:1]), ("None", "Rectangle", SQUARE)))
    regions = read_regions(path)
    assert [region.name for region in regions] == ["_0", "_2", "None"]
    np.testing.assert_allclose(regions[0].polygons[0][0], [*SQUARE, SQUARE[0]])


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"\xef\xbb\xbf" + asap(("Tumor", "Polygon", SQUARE)).encode())
    assert [region.name for region in read_regions(tmp_path / "a.xml")] == ["Tumor"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<ASAP_Annotations><Annotations>", "are no XML"),
        ("<Annotations MicronsPerPixel='0.25'></Annotations>", "with the root 'Annotations'"),
        (asap(("_0", "Polygon", SQUARE)).replace('X="10.5"', 'X="ten"'), "annotation without coordinates"),
    ],
)
def test_other_files_are_refused(tmp_path, text, why):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(Unreadable, match=why):
        read_regions(tmp_path / "a.xml")


def test_the_file_of_a_slide_is_found_by_its_name(tmp_path):
    for name in ("tumor_001", "tumor_002"):
        (tmp_path / f"{name}.xml").write_text(asap(("_0", "Polygon", SQUARE)))
    notes: list[str] = []
    found = find_region_files(tmp_path, {"tumor_001": "tumor/tumor_001.tif", "normal_001": "normal/normal_001.tif"}, notes)
    assert found == {"tumor_001": tmp_path / "tumor_001.xml"}
    assert "1 of 2 slides" in notes[0]
