"""A folder with every kind of bad input: each file is stored, quarantined with its reason, or left out, and the counts add up."""

import csv
import re

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from pydicom.uid import BasicTextSRStorage, JPEG2000Lossless, JPEGBaseline8Bit, MediaStorageDirectoryStorage
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.ingest.quarantine import describe_balance, group_reasons
from encoders.store.store import Store
from tests.encoders.ingest.dicom_files import build_dicom, mixed_folder, ramp, save_dicom
from tests.encoders.ingest.image_files import flip_until_warned, gray_profile, jpeg_bytes, png_bytes, texture
from tests.encoders.ingest.test_dicom_streams import compressed


def write_images(folder):
    """Files by what should become of them: name -> part of the reason, "" if it is stored, None if it is left out."""
    deep, gray = texture(40, 48, top=65535, dtype=np.uint16), texture(40, 48)
    shallow, alpha = texture(40, 48, top=4095, dtype=np.uint16, seed=3), texture(40, 48, 2, top=65535, dtype=np.uint16)
    files: dict[str, str | None] = {}

    def blob(name, data, reason=""):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        files[name] = reason

    def tiff(name, pixels, reason="", **options):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, pixels, **options)
        files[name] = reason

    tiff("a/white_little.tif", 65535 - deep, photometric="miniswhite")
    tiff("a/white_big.tif", 65535 - deep[::-1], photometric="miniswhite", byteorder=">", compression="lzw", predictor=True)
    tiff("a/twelve.tif", shallow)
    tiff("a/signed.tif", deep.astype(np.int32).astype(np.int16), "signed pixels", photometric="minisblack")
    tiff("a/float.tif", deep / np.float32(65535), "floating-point")
    tiff("a/cmyk.tif", texture(16, 16, 4, top=65535, dtype=np.uint16), "SEPARATED", photometric="separated")
    tiff("a/pages.tif", np.stack([gray, gray]), "2 pages")
    tiff("a/whole.tif", deep[:, ::-1])
    blob("a/cut.tif", (folder / "a/whole.tif").read_bytes()[:-900], "truncated")
    blob("b/gray_alpha.png", png_bytes(alpha))
    blob("b/cut16.png", png_bytes(alpha)[:-400], "is broken")
    blob("b/good.jpg", jpeg_bytes(gray))
    blob("b/padded.jpg", jpeg_bytes(gray[::-1]) + b"\0" * 500)
    blob("b/damaged.jpg", flip_until_warned(jpeg_bytes(gray)), "damaged JPEG")
    blob("b/damaged_colour.jpg", flip_until_warned(jpeg_bytes(texture(40, 48, 3))), "damaged JPEG")
    blob("b/cut.jpg", jpeg_bytes(gray)[:-300], "is broken")
    blob("b/empty.jpg", b"", "is empty")
    blob("b/text.png", b"no image", "is not a PNG, JPEG or TIFF")
    Image.fromarray(gray[:, ::-1]).save(folder / "b" / "linear.png", icc_profile=gray_profile(1.0))
    files["b/linear.png"] = ""
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(folder / "b" / "flat.png")
    files["b/flat.png"] = "constant image"
    for name in ("notes.txt", "b/scan.dcm", "README"):
        blob(name, b"x", None)
    return files


def run(*arguments):
    return CliRunner().invoke(app, ["ingest", *map(str, arguments), "--workers", "1"])


def check_balance(output, stored, quarantined, left_out):
    found = re.search(r"([\d,]+) inputs: (\d+) stored, (\d+) quarantined, (\d+) left out", output)
    assert found, output
    assert [int(number) for number in found.groups()] == [stored + quarantined + left_out, stored, quarantined, left_out]


def test_a_folder_of_every_kind_of_image_file_adds_up(tmp_path):
    files = write_images(tmp_path / "in")
    result = run("folder", tmp_path / "in", tmp_path / "o.h5", "--size", "32")
    assert result.exit_code == 1, result.output
    good, bad = [n for n, why in files.items() if why == ""], {n: why for n, why in files.items() if why}
    assert sorted(Store.open(tmp_path / "o.h5").column("key")) == sorted(good)
    with (tmp_path / "o.h5.quarantine.csv").open() as file:
        reasons = {row["file"]: row for row in csv.DictReader(file)}
    assert reasons.keys() == bad.keys()
    for name, part in bad.items():
        assert part in reasons[name]["reason"], name
        assert reasons[name]["traceback"] == ""
    check_balance(result.output, len(good), len(bad), 3)
    assert len(good) + len(bad) + 3 == sum(path.is_file() for path in (tmp_path / "in").rglob("*"))
    flat = " ".join(result.output.split())
    assert "mixed bit depths: 1 images use 12 bits" in flat
    assert "1 images: an embedded ICC profile that differs from sRGB is not applied (first: b/linear.png" in flat

    accepted = run("folder", tmp_path / "in", tmp_path / "p.h5", "--size", "32", "--accept-damaged")
    check_balance(accepted.output, len(good) + 5, len(bad) - 5, 3)
    flat = " ".join(accepted.output.split())
    assert "5 images: damaged, and stored as decoded (--accept-damaged): 2 damaged JPEG: Corrupt JPEG data" in flat
    assert "1 damaged JPEG: Premature end of JPEG file (first: b/cut.jpg)" in flat
    damage = Store.open(tmp_path / "p.h5").column("damage")
    assert sorted(Store.open(tmp_path / "p.h5").column("key")[damage != ""]) == [
        "a/cut.tif",
        "b/cut.jpg",
        "b/cut16.png",
        "b/damaged.jpg",
        "b/damaged_colour.jpg",
    ]


def test_a_table_and_a_pattern_leave_files_out_by_name(tmp_path):
    for k in range(6):
        (tmp_path / "in" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture(20, 20, seed=k)).save(tmp_path / "in" / "ab"[k % 2] / f"{k}.png")
    (tmp_path / "in" / "a" / "0.png").write_bytes(b"")
    (tmp_path / "in" / "x.txt").write_text("x")
    (tmp_path / "t.csv").write_text("file,score\na/0.png,1\na/2.png,2\nb/1.png,3\na/9.png,4\n")
    result = run("folder", tmp_path / "in", tmp_path / "o.h5", "--labels", tmp_path / "t.csv", "--pattern", "(?P<study>[ab])/")
    check_balance(result.output, 2, 2, 4)  # an empty and a missing file; a text and three images without a row
    assert "no row in the table 3" in " ".join(result.output.split())
    result = run("folder", tmp_path / "in", tmp_path / "p.h5", "--pattern", "(?P<label>a)/")
    check_balance(result.output, 2, 1, 4)


def test_a_folder_of_every_kind_of_dicom_file_adds_up(tmp_path):
    src = tmp_path / "in"
    names = mixed_folder(src)
    deep, gray = texture(96, 112, top=4095, dtype=np.uint16), texture(96, 112)
    stream = imagecodecs.jpeg2k_encode(deep, codecformat="j2k", level=0)
    save_dicom(compressed(stream + b"\0" * 999, JPEG2000Lossless, deep, PatientID="ANON"), src / "d" / "padded.dcm")
    save_dicom(compressed(flip_until_warned(jpeg_bytes(gray)), JPEGBaseline8Bit, gray, 8), src / "d" / "damaged.dcm")
    save_dicom(compressed(stream[: len(stream) // 2] + b"\0" * 999, JPEG2000Lossless, deep), src / "d" / "cut.dcm")
    index = build_dicom(ramp(), SOPClassUID=MediaStorageDirectoryStorage)
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del index.PixelData
    save_dicom(index, src / "DICOMDIR")
    save_dicom(build_dicom(ramp(), BitsStored=12, SOPClassUID=BasicTextSRStorage, PatientID="0"), src / "e" / "zero.dcm")
    (src / "e" / "empty.dcm").write_bytes(b"")
    result = run("dicom", src, tmp_path / "o.h5", "--size", "32")
    assert result.exit_code == 1, result.output
    good, bad = len(names["good"]) + 2, len(names["broken"]) + 3
    check_balance(result.output, good, bad, 2)  # notes.txt and the index
    assert good + bad + 2 == sum(path.is_file() for path in src.rglob("*"))
    assert "2 images have no PatientID" in " ".join(result.output.split())
    accepted = run("dicom", src, tmp_path / "p.h5", "--size", "32", "--accept-damaged")
    check_balance(accepted.output, good + 2, bad - 2, 2)
    flat = " ".join(accepted.output.split())
    assert "2 images: damaged, and stored as decoded (--accept-damaged): " in flat
    assert "1 damaged compressed pixels: Corrupt JPEG data" in flat
    assert "1 the pixel data have N bytes, and N x N pixels have N: too few (first: b/native_cut.dcm)" in flat


def test_reasons_are_grouped_by_kind():
    rows = [("a", "is broken: damaged JPEG: Corrupt JPEG data: 14 extraneous bytes; pass x"), ("b", "is broken: damaged JPEG: other")]
    rows += [("c", "holds 3 pages; expected one"), ("d", "holds 12 pages; expected one"), ("e", "is empty (0 bytes)")]
    groups = group_reasons(rows)
    assert groups == {"holds N pages": ["c", "d"], "is broken: damaged JPEG": ["a", "b"], "is empty (N bytes)": ["e"]}
    assert describe_balance(5, 2, 3, {"skipped: .txt": 2, "no row": 0}) == (
        "7 inputs: 2 stored, 3 quarantined, 2 left out (skipped: .txt 2)"
    )
    assert describe_balance(2, 9, 0, {}) == ""  # an item may be several rows
