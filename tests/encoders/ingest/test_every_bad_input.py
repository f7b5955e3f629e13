"""One folder with every kind of bad input, given to every ingest of folders: the counts are exact and add up to the number of inputs."""

import builtins
import csv
import io
import os
import re
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.uid import BasicTextSRStorage, MediaStorageDirectoryStorage
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.store.store import Store
from tests.encoders.ingest.dicom_files import build_dicom, compress_as_jpeg, ramp, save_dicom
from tests.encoders.ingest.image_files import flip_until_warned, jpeg_bytes, texture
from tests.encoders.ingest.nifti.volume_files import head, save_volume
from tests.encoders.ingest.wsi.slide_files import tissue_like, write_slide

BROKEN = {  # what no ingest can read, with a part of the reason
    "gone.png": "is a link to .*, which does not exist",
    "loop.dcm": "cannot be read: Too many levels",
    "folder_of_another_disk": "is a link to .*, which does not exist",
    "a.png.partial": "is an incomplete download",
    "b.svs.crdownload": "is an incomplete download",
    "c.nii.gz.part": "is an incomplete download",
    "d.dcm.tmp": "is an incomplete download",
    "pipe.png": "is neither a file nor a folder",
    "shut": "is a folder that cannot be read: Permission denied",
}
BAD_IMAGES = {
    "image/float.tif": "floating-point",
    "image/signed.tif": "signed pixels",
    "image/pages.tif": "2 pages",
    "image/cut.tif": "truncated",
    "image/damaged.jpg": "damaged JPEG",
    "image/cut.jpg": "is broken",
    "image/empty.png": "is empty",
    "image/text.png": "is not a PNG, JPEG or TIFF",
    "image/flat.png": "constant image",
    "image/locked.png": "cannot be read: Permission denied",
}
GOOD_IMAGES = ["image/white.tif", "image/twelve.tif", "image/deep.tif", "image/good.jpg", "x/1.png", "y/1.png", "slide/good.tiff"]
BAD_DICOM = {
    "dicom/report.dcm": "pixel",
    "dicom/cut.dcm": "is broken: the pixel data have .* bytes, .*: too few",
    "dicom/damaged.dcm": "damaged compressed pixels",
    "dicom/empty": "is empty",
}
OTHERS = {"notes.txt": ".txt", "labels.csv": ".csv", "README": "no suffix", "DICOMDIR": "no suffix"}
HIDDEN = [".DS_Store", "image/._good.jpg"]


def write_images(folder):
    deep, gray = texture(40, 48, top=65535, dtype=np.uint16), texture(40, 48)
    (folder / "image").mkdir(parents=True)
    tifffile.imwrite(folder / "image" / "white.tif", 65535 - deep, photometric="miniswhite", byteorder=">")
    tifffile.imwrite(folder / "image" / "twelve.tif", texture(40, 48, top=4095, dtype=np.uint16, seed=3))
    tifffile.imwrite(folder / "image" / "deep.tif", deep[:, ::-1])
    tifffile.imwrite(folder / "image" / "float.tif", deep / np.float32(65535))
    tifffile.imwrite(folder / "image" / "signed.tif", deep.astype(np.int32).astype(np.int16), photometric="minisblack")
    tifffile.imwrite(folder / "image" / "pages.tif", np.stack([gray, gray]), photometric="minisblack")
    contents = {
        "cut.tif": (folder / "image" / "deep.tif").read_bytes()[:-900],
        "good.jpg": jpeg_bytes(gray),
        "damaged.jpg": flip_until_warned(jpeg_bytes(gray[::-1])),
        "cut.jpg": jpeg_bytes(gray)[:-300],
        "empty.png": b"",
        "text.png": b"no image",
    }
    for name, data in contents.items():
        (folder / "image" / name).write_bytes(data)
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(folder / "image" / "flat.png")
    Image.fromarray(gray).save(folder / "image" / "locked.png")
    for seed, name in enumerate("xy"):
        (folder / name).mkdir()
        Image.fromarray(texture(40, 48, seed=seed + 5)).save(folder / name / "1.png")
    write_slide(folder / "slide" / "good.tiff", [tissue_like(512, 512)], mpp=0.5)


def write_dicom(folder):
    def save(name, number, **tags):
        return save_dicom(build_dicom(ramp(), f"1.2.{number}", SeriesInstanceUID=f"1.8.{number}", **tags), folder / "dicom" / name)

    save("good.dcm", 1)
    cut = save("cut.dcm", 2)
    cut.write_bytes(cut.read_bytes()[:-500])
    report = build_dicom(ramp(), "1.2.3", SOPClassUID=BasicTextSRStorage, Rows=None, Columns=None, SeriesInstanceUID="1.8.3")
    del report.PixelData
    save_dicom(report, folder / "dicom" / "report.dcm")
    damaged = compress_as_jpeg(build_dicom(gray := texture(96, 112), "1.2.4", SeriesInstanceUID="1.8.4"), gray)
    blob = bytes(damaged.PixelData)
    start = blob.index(b"\xff\xd8")
    damaged.PixelData = blob[:start] + flip_until_warned(blob[start:])
    save_dicom(damaged, folder / "dicom" / "damaged.dcm")
    (folder / "dicom" / "empty").touch()
    index = build_dicom(ramp(), "1.2.5", SOPClassUID=MediaStorageDirectoryStorage, Rows=None, Columns=None)
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del index.PixelData
    save_dicom(index, folder / "DICOMDIR")


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """The folder, and the number of its inputs as a walk of its own counts them: links, pipes and the closed folder count once."""
    folder = tmp_path / "in"
    write_images(folder)
    write_dicom(folder)
    save_volume(folder / "ct" / "good.nii", head(shape=(24, 24, 6)))
    good = save_volume(folder / "ct" / "cut.nii.gz", head(shape=(24, 24, 6), seed=1))
    good.write_bytes(good.read_bytes()[:-300])
    (folder / "ct" / "empty.nii").touch()
    for name in ("a.png.partial", "b.svs.crdownload", "c.nii.gz.part", "d.dcm.tmp", "notes.txt", "labels.csv", "README", *HIDDEN):
        (folder / name).write_bytes(b"x")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "loop.dcm").symlink_to("loop.dcm")
    (folder / "folder_of_another_disk").symlink_to(tmp_path / "unmounted")
    os.mkfifo(folder / "pipe.png")
    (folder / "shut").mkdir()
    (folder / "shut" / "inside.png").touch()
    inputs = 1 + sum(not name.startswith(".") for where, _, names in os.walk(folder) if os.path.basename(where) != "shut" for name in names)

    def deny(real):
        def call(path=".", *args, **options):
            if isinstance(path, str | os.PathLike) and os.path.basename(str(path)) in ("shut", "locked.png"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **options)

        return call

    for module, name in ((os, "scandir"), (io, "open"), (builtins, "open")):  # as root, permissions are not enforced
        monkeypatch.setattr(module, name, deny(getattr(module, name)))
    return folder, inputs


def run(*words):
    done = CliRunner().invoke(app, ["ingest", *map(str, words), "--workers", "1"])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1, done.output
    return " ".join(done.output.replace("│", " ").split())


def check(store, expected):
    """The quarantine has exactly these files, each with its reason and, because the reason is known, without a traceback."""
    with store.with_name(store.name + ".quarantine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(expected)
    assert [row for row in rows if not re.search(expected[row["file"]], row["reason"]) or row["traceback"]] == []


def balance(output):
    """The numbers of the last line: inputs, stored, quarantined, left out, and the reasons of the last."""
    found = re.search(r"([\d,]+) inputs: (\d+) stored, (\d+) quarantined, (\d+) left out(?: \((.*?)\))?", output)
    assert found, output
    reasons = dict(re.findall(r"([^,]+?) (\d+)(?:, |$)", found[5] or ""))
    return *(int(number) for number in found.groups()[:4]), {reason.strip(): int(n) for reason, n in reasons.items()}


def skipped(folder, read):
    """Suffix -> number of files that are neither broken nor read.  read: suffixes that the ingest reads."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.parent.name != "shut"]
    others = [p for p in files if p.relative_to(folder).as_posix() not in BROKEN and not p.name.endswith(read)]
    return Counter(f"skipped: {p.suffix or 'no suffix'}" for p in others)


def test_ingest_folder(mixed, tmp_path):
    folder, inputs = mixed
    output = run("folder", folder, tmp_path / "s.h5", "--size", "32")
    check(tmp_path / "s.h5", BROKEN | BAD_IMAGES)
    others = skipped(folder, (".png", ".jpg", ".tif", ".tiff"))
    assert others == Counter(
        {"skipped: .txt": 1, "skipped: .csv": 1, "skipped: no suffix": 3, "skipped: .dcm": 4, "skipped: .nii": 2, "skipped: .gz": 1}
    )
    assert balance(output) == (inputs, len(GOOD_IMAGES), len(BROKEN | BAD_IMAGES), others.total(), dict(others))
    assert sorted(Store.open(tmp_path / "s.h5").column("key")) == sorted(GOOD_IMAGES)
    assert "mixed bit depths: 1 images use 12 bits" in output


def test_ingest_folder_with_a_table(mixed, tmp_path):
    folder, inputs = mixed
    rows = ["image/white.tif,1", "twelve,2", "/data/image/good.jpg,3", "good.jpg,3", "damaged.jpg,4", "gone.png,5", "a.png,6"]
    rows += ["1.png,7", "missing.png,8", ",9"]  # a name in two folders, a row without a file, a row without a name
    (tmp_path / "t.csv").write_text("file,patient\n" + "\n".join(rows) + "\n,\n")
    output = run("folder", folder, tmp_path / "s.h5", "--size", "32", "--labels", tmp_path / "t.csv")
    bad = {name: why for name, why in BROKEN.items() if name not in ("a.png.partial",)}
    bad |= {"a.png": "a.png.partial is an incomplete download", "gone.png": "is a link to nowhere.png"}
    bad |= {
        "1.png": "two files are called 1.png: x/1.png, y/1.png",
        "missing.png": "there is no such file",
        "image/damaged.jpg": "damaged JPEG",
    }
    check(tmp_path / "s.h5", bad)
    without_row = len([*GOOD_IMAGES, *BAD_IMAGES]) - 4  # white, twelve, good and damaged have rows
    others = skipped(folder, (".png", ".jpg", ".tif", ".tiff")) + Counter({"no row in the table": without_row})
    assert balance(output) == (inputs + 2, 3, len(bad), others.total(), dict(others))  # two rows name no file
    assert sorted(Store.open(tmp_path / "s.h5").column("key")) == ["image/good.jpg", "image/twelve.tif", "image/white.tif"]
    assert "1 rows have no value in column 'file'" in output
    assert "1 empty rows left out" in output
    assert "repeated rows merged (1 images have several)" in output


def test_ingest_dicom(mixed, tmp_path):
    folder, inputs = mixed
    output = run("dicom", folder, tmp_path / "s.h5", "--size", "32")
    skip = {"skipped: .txt": 1, "skipped: .csv": 1, "skipped: DICOMDIR": 1}
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.parent.name != "shut"}
    no_dicom = files - {*BROKEN, *BAD_DICOM, *HIDDEN, "dicom/good.dcm", "notes.txt", "labels.csv", "DICOMDIR"}
    bad = BROKEN | BAD_DICOM | dict.fromkeys(no_dicom, "is not a DICOM file|is empty|cannot be read")
    check(tmp_path / "s.h5", bad)
    assert balance(output) == (inputs, 1, len(bad), 3, skip)


def test_ingest_nifti(mixed, tmp_path):
    folder, inputs = mixed
    output = run("nifti", folder, tmp_path / "s.h5", "--size", "16")
    bad = BROKEN | {"ct/cut.nii.gz": "truncated|end|cannot be read", "ct/empty.nii": "is empty"}
    check(tmp_path / "s.h5", bad)
    others = skipped(folder, (".nii", ".nii.gz"))
    assert balance(output) == (inputs, 1, len(bad), others.total(), dict(others))
    planned, stored, left, lost = map(int, re.search(r"(\d+) slices: (\d+) stored, (\d+) left out .* (\d+) in quarantine", output).groups())
    assert planned == stored + left + lost


def test_ingest_wsi(mixed, tmp_path):
    folder, inputs = mixed
    output = run("wsi", folder, tmp_path / "out")
    slides = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in (".tif", ".tiff")} - {"slide/good.tiff"}
    bad = BROKEN | dict.fromkeys(slides | {"dicom/good.dcm", "dicom/cut.dcm", "dicom/damaged.dcm"}, "")
    check(tmp_path / "out" / "slides", bad)
    assert f"4 tiles of 1 of {len(bad) + 1} slides" in output
    skip = {kind: int(n) for n, kind in re.findall(r"(\d+) files skipped: (DICOM without pixels \([^)]*\)|no suffix|\.\w+)", output)}
    assert skip["DICOM without pixels (Basic Text SR Storage)"] == 1
    assert skip["DICOM without pixels (Media Storage Directory Storage)"] == 1
    assert 1 + len(bad) + sum(skip.values()) == inputs
