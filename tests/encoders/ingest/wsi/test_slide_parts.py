"""A slide is all of its files: one whose data file was repaired is tiled again."""

import os

import pytest
import typer.testing

from encoders.cli.main import app
from encoders.ingest.wsi.find_slides import list_slide_items
from encoders.ingest.wsi.slide_parts import list_slide_parts, stamp_parts
from encoders.store.store import Store
from tests.encoders.ingest.wsi.multifile_slides import write_dicom_series, write_mirax, write_vms, write_vmu
from tests.encoders.ingest.wsi.slide_files import draw_slide, halve_image, write_slide

IMAGE = draw_slide(512, 1024, [(0, 0, 512, 1024)])
SLIDES = {  # name -> how it is written, its main file, and one of its data files
    "mirax": (lambda folder: write_mirax(folder / "a.mrxs", [IMAGE, halve_image(IMAGE)]), "a.mrxs", "a/Data0000.dat"),
    "vms": (lambda folder: write_vms(folder / "a.vms", IMAGE), "a.vms", "a (0,0).jpg"),
    "vmu": (lambda folder: write_vmu(folder / "a.vmu", IMAGE), "a.vmu", "a.ngr"),
    "dicom": (lambda folder: write_dicom_series(folder / "a", [IMAGE, halve_image(IMAGE)], largest="z"), "a/level_1.dcm", "a/z.dcm"),
}


def ingest(folder, out):
    options = ["--mpp", "0.25", "--min-sharpness", "0", "--max-black", "1", "--max-white", "1", "--min-tissue", "0", "--workers", "1"]
    done = typer.testing.CliRunner().invoke(app, ["ingest", "wsi", str(folder), str(out), *options])
    assert done.exit_code in (0, 1), done.output
    return done.output


def damage(path):
    """Overwrites the middle third of a file with zeros; returns the whole content."""
    whole = path.read_bytes()
    third = len(whole) // 3
    path.write_bytes(whole[:third] + bytes(third) + whole[2 * third :])
    return whole


def later(path):
    """Sets the time of a file as a copy finished a second later has it: two writes of a test may share a tick of the clock."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


@pytest.mark.parametrize("kind", ["mirax", "dicom", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("vms", "vmu"))])
def test_a_slide_with_a_repaired_data_file_is_tiled_again(tmp_path, kind):
    write, main, data = SLIDES[kind]
    folder = tmp_path / "in"
    write(folder)
    assert "skipped" not in ingest(folder, tmp_path / "whole"), "files of a slide are not other files"
    whole = damage(folder / data)
    ingest(folder, tmp_path / "out")
    stores = list((tmp_path / "out").glob("*.h5"))
    before = sorted(Store.open(stores[0]).column("sha256")) if stores else []
    unchanged = (folder / main).stat()
    (folder / data).write_bytes(whole)
    later(folder / data)
    assert (folder / main).stat().st_mtime_ns == unchanged.st_mtime_ns
    output = ingest(folder, tmp_path / "out")
    assert ("1 finished slides are tiled again (first: a)" in output) == bool(stores)
    after, want = Store.open(tmp_path / "out" / "a.h5"), Store.open(tmp_path / "whole" / "a.h5")
    assert sorted(after.column("sha256")) == sorted(want.column("sha256")) != before
    assert "tiled again" not in ingest(folder, tmp_path / "out")


@pytest.mark.parametrize("kind", SLIDES)
def test_the_stamp_covers_every_file_of_the_slide_and_no_other(tmp_path, kind):
    write, main, data = SLIDES[kind]
    write(tmp_path / "in")
    files = sorted(path for path in (tmp_path / "in").rglob("*") if path.is_file())
    (item,) = list_slide_items(tmp_path / "in", None, None, None, None, (), (), None, (), ())[0]
    assert {item.path, *item.parts} == set(files)
    first = item.content_stamp()
    for path in files:
        whole = path.read_bytes()
        later(path)
        assert item.content_stamp() != first, f"{path.name} has another time"
        first = item.content_stamp()
        path.write_bytes(whole + b" ")
        assert item.content_stamp() != first, f"{path.name} is longer"
        first = item.content_stamp()
    (tmp_path / "in" / data).unlink()
    assert item.content_stamp() != first, "a data file is missing"
    first = item.content_stamp()
    for other in ("a/Thumbs.db", "a/.DS_Store", "notes.txt"):
        (tmp_path / "in" / "a").mkdir(exist_ok=True)
        (tmp_path / "in" / other).touch()
    (item,) = list_slide_items(tmp_path / "in", None, None, None, None, (), (), None, (), ())[0]
    if item.path == tmp_path / "in" / main and kind != "dicom":  # a missing file of a series is unknown to the others
        assert item.content_stamp() == first, "files of the system are no parts"


def test_a_slide_of_one_file_has_the_stamp_of_earlier_versions(tmp_path):
    path = write_slide(tmp_path / "a.tiff", [IMAGE])
    (item,) = list_slide_items(tmp_path, None, None, None, None, (), (), None, (), ())[0]
    status = path.stat()
    assert item.content_stamp() == f"{status.st_size}:{status.st_mtime_ns}|-|-|mpp=None"


def test_a_series_has_its_own_files_and_a_file_added_later_is_one_of_them(tmp_path):
    first = write_dicom_series(tmp_path, [IMAGE, halve_image(IMAGE)], series="1.2.1")
    other = write_dicom_series(tmp_path, [IMAGE], series="1.2.2", largest="other")
    parts = list_slide_parts([first, other])
    assert parts == {first: (tmp_path / "level_1.dcm",), other: ()}
    assert list_slide_parts([tmp_path / "level_1.dcm"]) == {tmp_path / "level_1.dcm": (first,)}, "named by another of its files"
    stamp = stamp_parts(first, parts[first])
    write_dicom_series(tmp_path, [halve_image(IMAGE)], mpp=0.5, series="1.2.1", largest="level_2")
    assert stamp_parts(first, list_slide_parts([first])[first]) != stamp


def test_the_other_images_of_a_mosaic_and_names_in_any_encoding_are_parts(tmp_path):
    lines = ["[Virtual Microscope Specimen]", "NoJpegColumns=2", "ImageFile=é.jpg", "ImageFile(1,0) = é(1,0).jpg", "MapFile=m.jpg"]
    lines += ["OptimisationFile=o.opt", "AuthCode=x", "Sections=", "MacroImage=macro.jpg"]
    (tmp_path / "a.vms").write_bytes(os.fsencode("\r\n".join(lines)))
    parts = list_slide_parts([tmp_path / "a.vms"])[tmp_path / "a.vms"]
    assert {part.name for part in parts} == {"é.jpg", "é(1,0).jpg", "m.jpg", "o.opt", "macro.jpg"}
    before = stamp_parts(tmp_path / "a.vms", parts)
    (tmp_path / "é(1,0).jpg").write_bytes(b"there now")
    assert stamp_parts(tmp_path / "a.vms", parts) != before
