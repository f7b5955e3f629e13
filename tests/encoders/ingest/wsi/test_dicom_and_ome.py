"""DICOM objects among slides, patients of DICOM slides, and resolutions in OME-XML."""

import pytest
import tifffile
from pydicom.uid import (
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    MediaStorageDirectoryStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from encoders.ingest.dicom.header import pseudonym
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.discover import discover_slides
from encoders.ingest.wsi.find_slides import list_slide_items
from encoders.ingest.wsi.mpp import find_resolution
from encoders.ingest.wsi.slide import Slide
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide


def slide_file(path, series, **tags):
    return save_dicom(build_dicom(ramp(), series, SOPClassUID=VLWholeSlideMicroscopyImageStorage, SeriesInstanceUID=series, **tags), path)


def object_file(path, kind):
    ds = build_dicom(ramp(), "1.9", SOPClassUID=kind, SeriesInstanceUID="1.9")
    ds.file_meta.MediaStorageSOPClassUID = kind
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(ds, tag)
    return save_dicom(ds, path)


def test_dicom_objects_without_pixels_are_no_slides_and_are_counted(tmp_path):
    slide_file(tmp_path / "a" / "1.dcm", "1.1")
    slide_file(tmp_path / "b" / "1", "1.2")
    object_file(tmp_path / "DICOMDIR", MediaStorageDirectoryStorage)
    object_file(tmp_path / "a" / "report.dcm", BasicTextSRStorage)
    object_file(tmp_path / "b" / "report", ComprehensiveSRStorage)
    object_file(tmp_path / "b" / "key", KeyObjectSelectionDocumentStorage)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "broken.dcm").write_text("no DICOM")
    found, others, _ = discover_slides(tmp_path)
    assert list(found) == ["a__1", "b__1", "c__broken"]
    assert others == {
        "DICOM without pixels (Media Storage Directory Storage)": 1,
        "DICOM without pixels (Basic Text SR Storage)": 1,
        "DICOM without pixels (Comprehensive SR Storage)": 1,
        "DICOM without pixels (Key Object Selection Document Storage)": 1,
    }


def items_of(folder, table=None, pattern=None):
    items, notes, _ = list_slide_items(folder, None, None, None, table, (), (), pattern, (), (), "set")
    return {item.name: item.index_fields.get("patient") for item in items}, notes


def test_the_patient_of_a_dicom_slide_is_a_pseudonym_unless_it_is_a_placeholder(tmp_path):
    for k, patient in enumerate(["P1", "P1", "ANONYMOUS", "0", "Anonymized^Patient", None]):
        slide_file(tmp_path / "in" / f"{k}.dcm", f"1.{k}", PatientID=patient)
    patients, notes = items_of(tmp_path / "in")
    assert patients == {"0": pseudonym("set", "P1"), "1": pseudonym("set", "P1"), **dict.fromkeys("2345")}
    assert any("pseudonyms of PatientID" in note for note in notes)
    (tmp_path / "t.csv").write_text("file,patient\n0.dcm,X\n1.dcm,\n2.dcm,Y\n3.dcm,0\n")
    patients, _ = items_of(tmp_path / "in", tmp_path / "t.csv")
    assert patients == {"0": "X", "1": pseudonym("set", "P1"), "2": "Y", "3": None}  # a lone zero is a placeholder
    assert set(items_of(tmp_path / "in", pattern=r"(?P<patient>\d)[.]dcm")[0].values()) == set("012345")  # numbered from zero


OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'
IMAGE = '<Image ID="Image:{n}"><Description>{text}</Description><Pixels SizeX="{w}" SizeY="{h}" {size}/></Image>'


@pytest.mark.parametrize(
    ("size", "want"),
    [
        ('PhysicalSizeX="0.2527" PhysicalSizeY="0.2531"', (0.2527, 0.2531)),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="µm" PhysicalSizeY="0.25" PhysicalSizeYUnit="&#181;m"', (0.25, 0.25)),
        ('PhysicalSizeX="252.7" PhysicalSizeXUnit="nm" PhysicalSizeY="0.0002527" PhysicalSizeYUnit="mm"', (0.2527, 0.2527)),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="Å" PhysicalSizeY="2.5e-5" PhysicalSizeYUnit="cm"', (0.25, 0.25)),
    ],
)
@pytest.mark.parametrize("name", ["openslide.comment", "tiff.ImageDescription"])
def test_the_resolution_of_ome_xml_is_read(size, want, name):
    label = IMAGE.format(n=0, text="label", w=300, h=200, size='PhysicalSizeX="4" PhysicalSizeY="4"')
    text = OME.format(label + IMAGE.format(n=1, text="x" * 500, w=9000, h=8000, size=size))
    found = find_resolution({name: text, "openslide.level[0].width": "9000", "openslide.level[0].height": "8000"})
    assert (found.x, found.y, found.source) == (pytest.approx(want[0]), pytest.approx(want[1]), "OME-XML")


@pytest.mark.parametrize("size", ["", 'PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"'])
def test_ome_xml_without_a_resolution_is_shown_whole(size):
    text = OME.format(IMAGE.format(n=0, text="y" * 300 + " scanned at 0.4 um", w=1, h=1, size=size))
    with pytest.raises(Unreadable, match="scanned at 0.4 um"):
        find_resolution({"openslide.comment": text})
    with pytest.raises(Unreadable, match="no resolution"):
        find_resolution({"openslide.comment": "<OME broken"})


def test_openslide_gives_the_ome_xml_of_a_tiff(tmp_path):
    text = OME.format(IMAGE.format(n=0, text="a", w=600, h=512, size='PhysicalSizeX="0.5" PhysicalSizeY="0.5"'))
    image = draw_slide(512, 600, [(50, 50, 300, 300)])
    write_slide(tmp_path / "a.tif", [image], mpp=None, description=text.encode(), software="made")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].description.startswith("<?xml")
    slide = Slide(tmp_path / "a.tif")
    assert (find_resolution(slide.properties).x, find_resolution(slide.properties).source) == (0.5, "OME-XML")
    slide.close()
