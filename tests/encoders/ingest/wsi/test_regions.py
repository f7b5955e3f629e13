"""Files of regions: what they may hold and how, which classes give tiles, and what happens to files without an area."""

import codecs
import gzip
import io
import json
import zipfile

import pytest
import typer.testing

from encoders.cli.main import app
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.region_files import find_region_files
from encoders.ingest.wsi.regions import allowed_mask, read_region_file, read_regions, read_regions_to_apply
from encoders.store.store import Store
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide
from tests.encoders.ingest.wsi.test_asap_regions import asap
from tests.encoders.ingest.wsi.test_tissue import blank


def ring(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry, classification=None, **properties):
    named = {} if classification is None else {"classification": classification}
    return {"type": "Feature", "id": "PathAnnotationObject", "geometry": geometry, "properties": {"isLocked": False, **named, **properties}}


SQUARE = polygon(ring(320, 320, 640))  # 20 x 20 pixels of the overview of `blank`
HOLED = polygon(ring(320, 320, 640), ring(480, 480, 320))
TWO = {"type": "MultiPolygon", "coordinates": [[ring(0, 0, 320)], [ring(640, 640, 320), ring(736, 736, 64)]]}
POINT = {"type": "Point", "coordinates": [5, 5]}
LINE = {"type": "LineString", "coordinates": [[0, 0], [900, 900]]}
AREAS = {  # content -> pixels of its areas
    "collection": ({"type": "FeatureCollection", "features": [feature(SQUARE)]}, 400),
    "list": ([feature(SQUARE)], 400),
    "feature": (feature(SQUARE), 400),
    "geometry": (SQUARE, 400),
    "geometries": ([SQUARE, TWO], 400 + 100),
    "hole": (feature(HOLED), 300),
    "multi": (feature(TWO), 100 + 100 - 4),
    "geometry collection": ({"type": "GeometryCollection", "geometries": [HOLED, POINT, TWO]}, 300 + 100 + 25 - 4),
    "feature of a geometry collection": (feature({"type": "GeometryCollection", "geometries": [SQUARE, LINE]}), 400),
    "list of collections": ([{"type": "FeatureCollection", "features": [feature(SQUARE)]}, feature(POINT)], 400),
    "open ring": (feature(polygon(ring(320, 320, 640)[:-1])), 400),
    "heights": (feature(polygon([[*point, 0.5] for point in ring(320, 320, 640)])), 400),
    "no properties": ({"type": "Feature", "geometry": SQUARE}, 400),
    "null properties": ({"type": "Feature", "geometry": SQUARE, "properties": None}, 400),
}


@pytest.mark.parametrize("name", AREAS)
def test_every_layout_of_geojson_gives_its_areas(tmp_path, name):
    content, pixels = AREAS[name]
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    mask = allowed_mask(read_regions(tmp_path / "a.geojson"), [], [], blank(40, 40))
    assert mask.sum() == pixels, "overlapping areas are a union"


@pytest.mark.parametrize(
    ("classification", "want"),
    [
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),  # QuPath 0.2 and 0.3
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),  # since 0.4
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive"),
        ("Tumor", "Tumor"),
        (["Tumor", "Positive"], "Tumor: Positive"),
        ({"name": {"name": "Tumor"}}, "Tumor"),
        ({"name": " Tumor "}, "Tumor"),
        ({"name": None}, ""),
        ({}, ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_class_of_a_region_is_read_however_it_is_written(tmp_path, classification, want):
    (tmp_path / "a.geojson").write_text(json.dumps([feature(SQUARE, classification, name="ROI 1")]))
    assert [region.name for region in read_regions(tmp_path / "a.geojson")] == [want]


@pytest.mark.parametrize(
    "classification", [{"name": {"a": 1}}, {"names": {}}, {"name": "", "names": {"label": "Tumor"}}, {"name": {"name": {}}}]
)
def test_a_class_that_would_be_lost_is_refused(tmp_path, classification):
    (tmp_path / "a.geojson").write_text(json.dumps([feature(SQUARE, classification)]))
    with pytest.raises(Unreadable, match=r"a class is .*, expected a text"):
        read_regions(tmp_path / "a.geojson")


def test_a_kind_of_objects_that_is_no_word_is_shown_in_one_line(tmp_path):
    point = {"type": "Feature", "geometry": {"type": "a\nb", "coordinates": []}, "properties": {}}
    (tmp_path / "a.geojson").write_text(json.dumps([point]))
    with pytest.raises(Unreadable, match=r"^its regions a\.geojson hold no area, only 1 'a\\nb'; draw polygons[^\n]*$"):
        read_regions_to_apply(tmp_path / "a.geojson", (), ())


TEXT = json.dumps(feature(SQUARE, {"name": "Tümör"}), ensure_ascii=False)
XML = asap(("Tümör", "Polygon", ring(320, 320, 640)[:4]))


def zipped(text, *names):
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, text)
    return blob.getvalue()


ENCODED = {
    "plain": TEXT.encode(),
    "byte order mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 big endian": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "windows": TEXT.encode("cp1252"),
    "gz": gzip.compress(TEXT.encode()),
    "gz with byte order mark": gzip.compress(codecs.BOM_UTF8 + TEXT.encode()),
    "zip": zipped(TEXT, "a.geojson", "readme.txt", "__MACOSX/._a.geojson"),
    "xml": XML.encode(),
    "xml byte order mark": codecs.BOM_UTF8 + XML.encode(),
    "xml line before": codecs.BOM_UTF8 + b"\r\n" + XML.split("\n", 1)[1].encode(),
    "xml utf-16": XML.replace("1.0", '1.0" encoding="UTF-16').encode("utf-16"),
    "xml latin-1": XML.replace("1.0", '1.0" encoding="ISO-8859-1').encode("latin-1"),
    "xml gz": gzip.compress(XML.encode()),
}


@pytest.mark.parametrize("name", ENCODED)
def test_byte_order_marks_encodings_and_compression_change_nothing(tmp_path, name):
    for file in ("a.geojson", "a.xml", "regions"):  # the content decides, not the suffix
        (tmp_path / file).write_bytes(ENCODED[name])
        assert [region.name for region in read_regions(tmp_path / file)] == ["Tümör"]
        assert allowed_mask(read_regions(tmp_path / file), [], [], blank(40, 40)).sum() == 400


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "a.geojson are empty"),
        (b" \n", "a.geojson are empty"),
        (gzip.compress(TEXT.encode())[:-12], "a.geojson are damaged"),
        (zipped(TEXT, "a.geojson")[:-30], "a.geojson are damaged"),
        (zipped(TEXT, "a.geojson", "b.geojson"), r"holds 2 files of regions \(a.geojson"),
        (zipped(TEXT, "a.txt"), "holds 0 files of regions"),
        (TEXT.encode()[:-4], "not GeoJSON"),
        (b'{"rois": []}', "not GeoJSON"),
        (b"[1, 2]", "not GeoJSON"),
        (b"null", "not GeoJSON"),
        (json.dumps(feature({"coordinates": []})).encode(), "not GeoJSON"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, data, why):
    (tmp_path / "a.geojson").write_bytes(data)
    with pytest.raises(Unreadable, match=why):
        read_region_file(tmp_path / "a.geojson")


FLAT = polygon([[0, 0], [10, 10], [20, 20], [0, 0]])
WITHOUT_AREA = {
    "points": (
        [feature(POINT), feature(POINT, "Tumor"), feature({"type": "MultiPoint", "coordinates": [[1, 2]]})],
        "2 Point, 1 MultiPoint",
    ),
    "lines": ([feature(LINE)], "1 LineString"),
    "flat": ([feature(FLAT), feature(polygon(ring(5, 5, 0))), feature(polygon())], "3 Polygon without area"),
    "null": ([{"type": "Feature", "geometry": None}], "1 without geometry"),
    "mixed": ({"type": "GeometryCollection", "geometries": [POINT, LINE]}, "1 Point, 1 LineString"),
    "asap": (
        asap(("_0", "Dot", [(1, 2)]), ("_0", "PointSet", [(1, 2), (3, 4)]), ("_0", "Polygon", [(1, 2)])),
        "1 Dot, 1 PointSet, 1 Polygon",
    ),
}


@pytest.mark.parametrize("name", WITHOUT_AREA)
def test_a_file_without_an_area_is_refused_with_what_it_holds(tmp_path, name):
    content, held = WITHOUT_AREA[name]
    (tmp_path / "a.geojson").write_text(content if isinstance(content, str) else json.dumps(content))
    for include, exclude in ((), ()), (("Tumor",), ()), ((), ("Tumor",)):
        with pytest.raises(Unreadable, match=f"its regions a.geojson hold no area, only {held}"):
            read_regions_to_apply(tmp_path / "a.geojson", include, exclude)
    assert read_regions(tmp_path / "a.geojson") == []


def test_a_bow_tie_has_an_area_and_others_beside_an_area_are_counted(tmp_path):
    tie = polygon([[0, 0], [640, 640], [640, 0], [0, 640], [0, 0]])  # its signed area is 0
    (tmp_path / "a.geojson").write_text(json.dumps([feature(tie), feature(POINT), feature(FLAT)]))
    drawn = read_regions_to_apply(tmp_path / "a.geojson", (), ())
    assert (drawn.count_classes(), dict(drawn.others)) == ({"": 1}, {"Point": 1, "Polygon without area": 1})


@pytest.mark.parametrize("text", ["[]", '{"type": "FeatureCollection", "features": []}', "<ASAP_Annotations/>"])
def test_a_file_with_nothing_drawn_is_refused_unless_there_is_only_something_to_exclude(tmp_path, text):
    (tmp_path / "a.geojson").write_text(text)
    for include, exclude in ((), ()), (("Tumor",), ()), (("Tumor",), ("Fold",)):
        with pytest.raises(Unreadable, match="its regions a.geojson hold no drawn object"):
            read_regions_to_apply(tmp_path / "a.geojson", include, exclude)
    drawn = read_regions_to_apply(tmp_path / "a.geojson", (), ("Fold",))
    assert allowed_mask(drawn.areas, (), ("Fold",), blank(4, 4)).all()


def test_classes_that_qupath_ignores_are_excluded_unless_they_are_included(tmp_path):
    inner, other = polygon(ring(480, 480, 320)), polygon(ring(0, 0, 160))
    drawn = [
        feature(SQUARE, "Tumor"),
        feature(inner, {"names": ["Tumor", "Boundary*"]}),
        feature(other, {"name": "Ignore*"}),
        feature(other),
    ]
    (tmp_path / "a.geojson").write_text(json.dumps(drawn))
    regions, view = read_regions(tmp_path / "a.geojson"), blank(40, 40)
    assert allowed_mask(regions, [], [], view).sum() == 400 - 100, "an ignored area cuts what other classes include"
    assert allowed_mask(regions, ["Tumor"], [], view).sum() == 400 - 100
    assert allowed_mask(regions, ["Tumor", "Tumor: Boundary*"], [], view).sum() == 400
    assert allowed_mask(regions, ["Ignore*"], [], view).sum() == 25
    alone = [region for region in regions if region.name == "Ignore*"]
    assert allowed_mask(alone, [], [], view).sum() == 1600 - 25, "only areas to exclude: the rest of the slide stays"


def test_files_of_regions_are_found_by_every_usual_name(tmp_path):
    sources = {"p1__a": "p1/a.svs", "p2__a": "p2/a.svs", "p2__b": "p2/b.ome.tif", "c": "c.svs", "d": "d.svs", "e": "e.svs"}
    for name in ("p1__a.geojson", "p2/a.svs.GeoJSON.gz", "b.ome.zip", "c.json", "c.xml", "a.geojson", "d.txt", "x.geojson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(TEXT)
    notes: list[str] = []
    found = {name: path.relative_to(tmp_path).as_posix() for name, path in find_region_files(tmp_path, sources, notes).items()}
    assert found == {"p1__a": "p1__a.geojson", "p2__a": "p2/a.svs.GeoJSON.gz", "p2__b": "b.ome.zip", "c": "c.json"}, (
        "a.geojson is ambiguous"
    )
    assert notes == [
        "regions of c: c.json is used, not c.xml",
        "regions: 4 of 6 slides have a file; 2 have none (first: d); 3 files are not used (first: a.geojson)",
    ], "a.geojson may belong to two slides"


def run(*arguments):
    done = typer.testing.CliRunner().invoke(app, ["ingest", "wsi", *map(str, arguments), "--workers", "1", "--mpp", "0.25"])
    return done.exit_code, " ".join(done.output.replace("│", " ").split())


def write_drawn_slides(folder, names):
    """Two slides without a problem (a, d), and those of `names` among b (points) and c (nothing drawn); the options of the command."""
    drawn = {
        "a": [feature(polygon(ring(0, 0, 512)), "Tumor"), feature(polygon(ring(0, 0, 256)), "Ignore*")],
        "b": [feature(POINT), feature(POINT)],
        "c": [],
        "d": [feature(polygon(ring(0, 0, 512)))],
    }
    (folder / "regions").mkdir()
    for name in names:
        write_slide(folder / "in" / f"{name}.tiff", [draw_slide(512, 768, [(0, 0, 512, 768)], seed=ord(name))])
        (folder / "regions" / f"{name}.geojson").write_bytes(codecs.BOM_UTF8 + json.dumps(drawn[name]).encode())
    (folder / "t.csv").write_bytes(codecs.BOM_UTF8 + b"file,patient\na.tiff,P1\nb.tiff,P2\nc.tiff,P3\nd.tiff,P4\n")
    return [folder / "in", folder / "out", "--regions", folder / "regions", "--labels", folder / "t.csv"]


def test_the_command_lists_the_classes_and_names_files_without_an_area(tmp_path):
    code, output = run(*write_drawn_slides(tmp_path, "abcd"))
    assert code == 1
    assert (
        "classes of regions in 2 slides, with the number of areas: 'Ignore*' 1 (excluded), 'Tumor' 1 (included), no class 1 (included)"
        in output
    )
    assert "b.tiff its regions b.geojson hold no area, only 2 Point" in output.replace("│ ", "")
    assert "c.tiff its regions c.geojson hold no drawn object" in output
    a = Store.open(tmp_path / "out" / "a.h5")
    assert sorted(zip(a.column("x"), a.column("y"), strict=True)) == [(0, 256), (256, 0), (256, 256)]
    assert set(a.column("patient")) == {"P1"}
    assert "&#x27;Ignore*&#x27; 1 (excluded)" in (tmp_path / "out" / "overview.html").read_text()


@pytest.mark.slow
def test_include_and_exclude_decide_about_ignored_classes_and_files_with_nothing_drawn(tmp_path):
    given = write_drawn_slides(tmp_path, "ac")
    code, output = run(*given, "--exclude", "Tumor")
    assert code == 0, output
    assert "the regions of 1 slides hold no drawn object, so nothing is excluded (first: c)" in output
    assert len(Store.open(tmp_path / "out" / "c.h5")) == 6
    code, output = run(*given, "--include", "Ignore*", "--overwrite")
    assert (code, "'Ignore*' 1 (included), 'Tumor' 1 (not in --include)" in output) == (1, True)
    assert len(Store.open(tmp_path / "out" / "a.h5")) == 1
