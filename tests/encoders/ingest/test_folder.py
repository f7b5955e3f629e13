"""A folder of good and broken files becomes a store: right pixels, reasons for broken files, the same bytes after any interruption."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer.testing
from PIL import Image

from encoders.cli.ingest import ingest_app
from encoders.ingest.decode import read_image
from encoders.ingest.folder import FolderSource
from encoders.ingest.geometry import resize_to_square
from encoders.ingest.shards import ImageRow, Unreadable, ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Ten gray files in two folders and a table that names nine of them and one missing file."""
    src = tmp_path / "src"
    for k in range(10):
        write_png(src / "ab"[k % 2] / f"{k}.png", noise(20, 24, seed=k))
    lines = ["name,patient_id,finding,score,sex,split"]
    lines += [
        f"{'ab'[k % 2]}/{k}.png,p{k // 2},{'sick' if k % 3 else 'well'},{k / 2},{'FM'[k % 2]},{'train' if k < 6 else 'test'}"
        for k in range(9)
    ]
    (src / "labels.csv").write_text("\n".join([*lines, "a/99.png,p9,,,,train"]) + "\n")
    return src


def source(folder, **options):
    return FolderSource(folder, folder / "labels.csv", columns={"file": "name"}, **({"label": ["finding", "score"], "size": 0} | options))


def test_the_store_holds_pixels_columns_and_labels(folder, tmp_path):
    summary = ingest(source(folder), tmp_path / "o.h5")
    assert summary.quarantined == [("a/99.png", "there is no such file")]
    assert summary.exit_code == 1
    store = Store.open(tmp_path / "o.h5")
    assert store.column("key").tolist() == [f"a/{k}.png" for k in (0, 2, 4, 6, 8)] + [f"b/{k}.png" for k in (1, 3, 5, 7)]
    for i, k in enumerate([0, 2, 4, 6, 8, 1, 3, 5, 7]):
        np.testing.assert_array_equal(store.image(i)[..., 0], noise(20, 24, seed=k))
    assert store.column("patient").tolist() == ["p0", "p1", "p2", "p3", "p4", "p0", "p1", "p2", "p3"]
    assert store.column("split").tolist()[:4] == ["train", "train", "train", "test"]
    assert store.column("sex").tolist() == ["F"] * 5 + ["M"] * 4
    assert store.classes("finding") == ["sick", "well"]
    assert store.labels("finding").tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0]
    assert store.labels("score").tolist() == [0, 1, 2, 3, 4, 0.5, 1.5, 2.5, 3.5]
    assert store.attrs["channels"] == 1
    assert store.attrs["geometry"] == {"resize": "none", "size": None}
    assert str(tmp_path) not in json.dumps(store.attrs)
    assert not (tmp_path / "o.h5.shards").exists()


def test_guessed_and_unused_columns_are_noted(folder, tmp_path):
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("name,", "filename,").replace("finding", "label"))
    notes = " ".join(FolderSource(folder, folder / "labels.csv").notes)
    for part in (
        "patient = column 'patient_id'",
        "file = column 'filename'",
        "split = column 'split'",
        "label = column 'label'",
        "meta = column 'sex'",
    ):
        assert part in notes
    assert "not used: score" in notes
    assert "10 rows selected, 1 of them without a file; 1 images without a row" in notes


def test_the_table_may_be_in_the_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = FolderSource(folder, "labels.csv", columns={"file": "name"})
    assert len(inside.items()) == 10
    assert f"labels are read from {folder / 'labels.csv'}" in inside.notes


def test_a_table_finds_files_by_name_or_stem_if_only_one_has_it(folder):
    (folder / "labels.csv").write_text("file;patient\n4;x\n3.png;y\na/2.png;z\n./a/0.png;w\n")
    items = FolderSource(folder, folder / "labels.csv").items()
    assert [(item.name, item.row["patient"]) for item in items] == [("a/0.png", "w"), ("a/2.png", "z"), ("a/4.png", "x"), ("b/3.png", "y")]
    (folder / "labels.csv").write_text("file;patient\n4;x\na/4.png;y\n")
    with pytest.raises(InputError, match=r"rows of image a/4.png disagree on column 'patient': 'x' and 'y'"):
        FolderSource(folder, folder / "labels.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"file": "nmae"}}, "'nmae'; did you mean name"),
        ({"label": ["findings"]}, "'findings'; did you mean finding"),
        ({"meta": ["sx"]}, "did you mean sex"),
        ({"only": ["splt=train"]}, "did you mean split"),
        ({"only": ["split=val"]}, "no row has split=val; values of 'split': test, train"),
        ({"only": ["split"]}, "not column=value"),
    ],
)
def test_an_unknown_column_raises_with_the_nearest_name(folder, options, message):
    with pytest.raises(InputError, match=message):
        FolderSource(folder, folder / "labels.csv", **({"columns": {"file": "name"}} | options))


def test_only_keeps_the_selected_rows(folder, tmp_path):
    ingest(source(folder, only=["split=test", "sex=F"]), tmp_path / "o.h5")
    assert Store.open(tmp_path / "o.h5").column("key").tolist() == ["a/6.png", "a/8.png"]


def test_a_patient_in_two_splits_causes_a_warning(folder, tmp_path):
    text = (folder / "labels.csv").read_text().replace("a/8.png,p4", "a/8.png,p0")
    (folder / "labels.csv").write_text(text)
    summary = ingest(source(folder), tmp_path / "o.h5")
    assert any("1 patients are in more than one split (first: p0)" in note for note in summary.notes)


def test_unknown_values_are_counted_with_their_texts(tmp_path):
    """Images of patients `nan`, `NA`, ... are not of one person, and a class named none is not unknown."""
    patients = ["p1", "p1", "nan", "NA", "None", "ANONYMOUS", "7", "007"]
    findings, ages = ["none", "mass", "none", "N/A", "", "mass", "N/A", "mass"], ["none", "4", "5", "6", "7", "8", "9", "10"]
    for k in range(8):
        write_png(tmp_path / "src" / f"{k}.png", noise(20, 24, seed=k))
    lines = [f"{k}.png,{patients[k]},{findings[k]},{ages[k]}" for k in range(8)]
    (tmp_path / "l.csv").write_text("\n".join(["file,patient,label,age", *lines]))
    made = FolderSource(tmp_path / "src", tmp_path / "l.csv", size=0)
    summary = ingest(made, tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("patient").tolist() == ["p1", "p1", "2.png", "3.png", "4.png", "5.png", "7", "007"]
    assert summary.patients == 7
    assert store.classes("label") == ["mass", "none"]
    np.testing.assert_array_equal(store.column("age"), [np.nan, 4, 5, 6, 7, 8, 9, 10])
    own = "each of these images counts as a patient of its own"
    assert f"column 'patient': 4 unknown: 'ANONYMOUS' 1, 'NA' 1, 'None' 1, 'nan' 1 (of 8 images); {own}" in summary.notes
    assert "column 'label': 3 unknown: 'N/A' 2, '' 1 (of 8 images)" in summary.notes
    assert "meta: column 'age': 1 unknown: 'none' 1 (of 8 images)" in summary.notes
    assert any("1 groups of patient ids are nearly equal, e.g. '007' ~ '7'" in note for note in summary.notes)
    assert any("data set 'src', after the files" in note for note in made.notes)
    assert not any("after the files" in note for note in FolderSource(tmp_path / "src", dataset="d").notes)


def broken_folder(src):
    write_png(src / "good.png", noise(20, 20))
    write_png(src / "flat.png", np.full((20, 20), 7, np.uint8))
    (src / "empty.jpg").touch()
    (src / "text.png").write_text("not an image")
    Image.fromarray(noise(80, 80, seed=1)).save(src / "whole.jpg")
    (src / "torn.jpg").write_bytes((src / "whole.jpg").read_bytes()[:-1500])
    (src / "torn.png").write_bytes((src / "good.png").read_bytes()[:-150])
    Image.fromarray(noise(20, 20)).save(src / "pages.tif", save_all=True, append_images=[Image.fromarray(noise(20, 20))])
    Image.fromarray(noise(20, 20).astype(np.float32)).save(src / "float.tif")
    (src / "notes.txt").write_text("x")
    return src


REASONS = {
    "empty.jpg": "is empty (0 bytes)",
    "flat.png": "constant image: every value is 7",
    "float.tif": "floating-point",
    "pages.tif": "2 pages",
    "text.png": "not a PNG, JPEG or TIFF",
    "torn.jpg": "is broken",
    "torn.png": "is broken",
}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_broken_files_are_quarantined_with_their_reasons_and_exit_status_1(tmp_path, workers):
    src, out = broken_folder(tmp_path / "src"), tmp_path / "o.h5"
    result = typer.testing.CliRunner().invoke(ingest_app, ["folder", str(src), str(out), "--size", "16", "--workers", workers])
    assert result.exit_code == 1, result.output
    assert Store.open(out).column("key").tolist() == ["good.png", "whole.jpg"]
    with (tmp_path / "o.h5.quarantine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(REASONS)
    for row in rows:
        assert REASONS[row["file"]] in row["reason"]
        assert row["traceback"] == ""  # all of these reasons are known
    assert "7 quarantined" in result.output
    assert "1 files skipped: .txt" in result.output
    clean = typer.testing.CliRunner().invoke(ingest_app, ["folder", str(src), str(out), "--size", "16", "--overwrite"])
    assert clean.exit_code == 1
    for name in REASONS:
        (src / name).unlink()
    clean = typer.testing.CliRunner().invoke(ingest_app, ["folder", str(src), str(out), "--size", "16", "--overwrite"])
    assert clean.exit_code == 0, clean.output
    assert not (tmp_path / "o.h5.quarantine.csv").exists()


def test_without_any_readable_image_only_the_quarantine_is_written(tmp_path):
    write_png(tmp_path / "src" / "a.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"none of the 1 images.*constant image"):
        ingest(FolderSource(tmp_path / "src"), tmp_path / "o.h5")
    assert not (tmp_path / "o.h5").exists()
    assert (tmp_path / "o.h5.quarantine.csv").exists()


def test_an_unexpected_failure_keeps_its_traceback(tmp_path):
    class Odd(FolderSource):
        def read(self, item):
            if item.name == "a.png":
                raise ZeroDivisionError("odd")
            return super().read(item)

    for name in "ab":
        write_png(tmp_path / "src" / f"{name}.png", noise(9, 9))
    summary = ingest(Odd(tmp_path / "src", size=0), tmp_path / "o.h5")
    assert summary.quarantined == [("a.png", "ZeroDivisionError: odd")]
    assert "in read" in (tmp_path / "o.h5.quarantine.csv").read_text()


def test_an_item_that_fails_half_way_leaves_none_of_its_rows(tmp_path):
    class Slides(FolderSource):
        def read(self, item):
            for k in range(3):
                if item.name == "a.png" and k == 2:
                    raise Unreadable("torn")
                yield ImageRow(noise(4, 4, 1, seed=k + ord(item.name[0])), {"key": f"{item.name}/{k}"})

    for name in "abc":
        write_png(tmp_path / "src" / f"{name}.png", noise(9, 9))
    ingest(Slides(tmp_path / "src", size=0), tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("key").tolist() == [f"{n}.png/{k}" for n in "bc" for k in range(3)]
    np.testing.assert_array_equal(store.image(3), noise(4, 4, 1, seed=ord("c")))


# --- pixels


def test_eight_and_sixteen_bits_are_kept(tmp_path):
    deep = write_png(tmp_path / "deep.png", noise(12, 12, dtype=np.uint16))
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    Image.fromarray(deep).save(tmp_path / "packed.tif", compression="tiff_lzw")
    for name in ("deep.png", "deep.tif", "packed.tif"):
        got = read_image(tmp_path / name)
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(got[..., 0], deep)
    shallow = write_png(tmp_path / "shallow.tif", noise(12, 12))
    np.testing.assert_array_equal(read_image(tmp_path / "shallow.tif")[..., 0], shallow)
    (tmp_path / "big.tif").write_bytes(big_endian_tiff(deep))
    np.testing.assert_array_equal(read_image(tmp_path / "big.tif")[..., 0], deep)


def big_endian_tiff(pixels):
    import io

    import tifffile

    blob = io.BytesIO()
    tifffile.imwrite(blob, pixels, byteorder=">")
    return blob.getvalue()


def test_palette_alpha_cmyk_bilevel_and_orientation(tmp_path):
    colour = noise(10, 14, 3)
    Image.fromarray(colour).quantize(256).save(tmp_path / "palette.png")
    want = np.asarray(Image.fromarray(colour).quantize(256).convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), want)
    alpha = np.dstack([colour, np.full((10, 14), 255, np.uint8)])
    alpha[0, 0, 3] = 0
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    got = read_image(tmp_path / "alpha.png")
    assert got[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(got[1:], colour[1:])
    Image.new("CMYK", (6, 6), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    assert (abs(read_image(tmp_path / "cmyk.jpg").astype(int)[2, 2] - [255, 0, 0]) < 12).all()
    Image.fromarray(noise(8, 8) > 127).save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png"))) == {0, 255}
    picture = Image.fromarray(colour)
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(colour, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_resize_rule_keeps_its_contract(dtype, channels):
    top = np.iinfo(dtype).max
    image = np.full((30, 60, channels), top, dtype)
    padded = resize_to_square(image, 32, "pad")
    assert padded.shape == (32, 32, channels)
    assert padded.dtype == dtype
    assert (padded[8:24] == top).all()
    assert not padded[:8].any()
    assert not padded[24:].any()
    ramp = np.broadcast_to(np.linspace(0, top, 60).astype(dtype)[None, :, None], image.shape)
    cropped = resize_to_square(np.ascontiguousarray(ramp), 30, "crop")
    np.testing.assert_array_equal(cropped, ramp[:, 15:45])
    squashed = resize_to_square(np.ascontiguousarray(ramp), 20, "squash")
    assert squashed.shape == (20, 20, channels)
    np.testing.assert_allclose(squashed[10, 2:-2, 0], np.linspace(0, top, 60).reshape(20, 3).mean(axis=1)[2:-2], atol=0.01 * top)
    fine = np.indices((96, 96)).sum(axis=0)[..., None].repeat(channels, axis=2) % 2 * top
    assert (
        np.ptp(resize_to_square(fine.astype(dtype), 24, "squash")[2:-2, 2:-2].astype(int)) < 0.05 * top
    )  # antialiased: a fine pattern becomes gray
    portrait = resize_to_square(np.full((61, 30, channels), top, dtype), 32, "pad")
    assert portrait.shape == (32, 32, channels)
    assert resize_to_square(image, 0, "pad") is image


def test_channels_are_decided_by_the_whole_set(tmp_path):
    src = tmp_path / "src"
    gray = noise(16, 16)
    write_png(src / "a.png", np.dstack([gray] * 3))
    write_png(src / "b.png", noise(16, 16, seed=5))
    summary = ingest(FolderSource(src, size=0), tmp_path / "gray.h5")
    assert any("all 2 images are gray in every pixel" in note for note in summary.notes)
    np.testing.assert_array_equal(Store.open(tmp_path / "gray.h5").image(0)[..., 0], gray)
    colour = write_png(src / "c.png", noise(16, 16, 3))
    summary = ingest(FolderSource(src, size=0), tmp_path / "rgb.h5")
    assert any("1 of 3 images have colour" in note for note in summary.notes)
    store = Store.open(tmp_path / "rgb.h5")
    np.testing.assert_array_equal(store.images([0, 2]), [np.dstack([gray] * 3), colour])
    from encoders.similarity.perceptual_hash import pixel_sha256

    assert store.column("sha256").tolist() == [pixel_sha256(store.image(i)) for i in range(3)]
    ingest(FolderSource(src, size=0, channels=1), tmp_path / "one.h5")
    np.testing.assert_array_equal(
        Store.open(tmp_path / "one.h5").image(2)[..., 0], np.asarray(Image.fromarray(colour).convert("L")).astype(int), strict=False
    )


def test_eight_and_sixteen_bit_files_share_a_store_and_keep_their_brightness(tmp_path):
    src = tmp_path / "src"
    a, b = write_png(src / "a.png", noise(16, 16)), write_png(src / "b.png", noise(16, 16, dtype=np.uint16))
    summary = ingest(FolderSource(src, size=0), tmp_path / "o.h5")
    assert any("1 images have 8 bits and 1 have 16" in note for note in summary.notes)
    unit = Store.open(tmp_path / "o.h5").unit_images([0, 1])
    np.testing.assert_allclose(unit[..., 0], [a / 255, b / 65535], atol=1e-6)


def test_twelve_bits_in_sixteen_cause_a_warning_and_are_mapped_on_request(tmp_path):
    src = tmp_path / "src"
    pixels = write_png(src / "a.png", noise(16, 16, dtype=np.uint16) // 16)
    assert any("--bits 12" in note for note in ingest(FolderSource(src, size=0), tmp_path / "o.h5").notes)
    ingest(FolderSource(src, size=0, bits=12), tmp_path / "p.h5")
    np.testing.assert_allclose(Store.open(tmp_path / "p.h5").unit_images([0])[0, ..., 0], pixels / 4095, atol=1e-6)


def test_the_jpeg_codec_keeps_sizes_and_approximates_the_pixels(tmp_path):
    src = tmp_path / "src"
    ramp = np.indices((40, 60)).sum(axis=0).astype(np.uint8)
    write_png(src / "a.png", np.dstack([ramp, ramp // 2, 200 - ramp]))
    write_png(src / "b.png", np.dstack([ramp[:20]] * 3))
    ingest(FolderSource(src, size=0, codec="jpeg"), tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert [store.image(i).shape for i in (0, 1)] == [(40, 60, 3), (20, 60, 3)]
    assert abs(store.image(0).astype(int) - np.dstack([ramp, ramp // 2, 200 - ramp])).mean() < 2


# --- interruption


def arguments(src, out):
    return [
        sys.executable,
        "-c",
        "from encoders.cli.ingest import ingest_app; ingest_app()",
        "folder",
        str(src),
        str(out),
        "--size",
        "96",
        "--workers",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_and_resumed_ingest_writes_the_same_bytes(tmp_path, workers):
    src = tmp_path / "src"
    for k in range(300):
        write_png(src / f"{k:03d}.png", noise(160, 160, seed=k))
    (src / "bad.png").write_text("no image")
    want = ingest(FolderSource(src, size=96), tmp_path / "whole.h5")
    assert want.rows == 300
    out, kills = tmp_path / "o.h5", 0
    for reached in (1, 4, 8, 12, 10**6):  # kill at this number of finished shards; the last time while merging, or not at all
        process = subprocess.Popen([*arguments(src, out), workers], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while (
            process.poll() is None
            and len(list(tmp_path.glob("o.h5.shards/[0-9]*.json"))) < reached
            and not list(tmp_path.glob(".o.h5.*.part"))
        ):
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3
    final = subprocess.run([*arguments(src, out), workers, *(["--overwrite"] if out.exists() else [])], capture_output=True, text=True)
    assert final.returncode == 1, final.stderr  # bad.png
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"src", "whole.h5", "whole.h5.quarantine.csv", "o.h5", "o.h5.quarantine.csv"}


def test_workers_end_when_their_parent_is_killed(tmp_path):
    src = tmp_path / "src"
    for k in range(60):
        write_png(src / f"{k:03d}.png", noise(64, 64, seed=k))
    script = "import time, encoders.ingest.folder as f; from encoders.ingest.shards import ingest\n"
    script += "class S(f.FolderSource):\n    def read(self, item):\n        time.sleep(1); return super().read(item)\n"
    script += f"if __name__ == '__main__':\n    ingest(S({str(src)!r}), {str(tmp_path / 'o.h5')!r}, workers=2)\n"
    (tmp_path / "run.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py")], env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    )
    children: list[int] = []
    begun = time.time()
    while len(children) < 3 and time.time() - begun < 60:  # two workers and the resource tracker
        time.sleep(0.1)
        children = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    time.sleep(1.5)
    process.kill()
    process.wait()
    begun = time.time()
    while any(os.path.exists(f"/proc/{pid}") for pid in children) and time.time() - begun < 20:
        time.sleep(0.1)
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def interrupt_ingest(folder, out, **options):
    """Leaves an ingest that stopped before its last step."""

    class Stop(Exception):
        pass

    def tick(n):
        raise Stop

    with pytest.raises(Stop):
        ingest(source(folder, **options), out, tick=tick)


def test_another_recipe_or_other_files_raise_with_the_reason(folder, tmp_path):
    out = tmp_path / "o.h5"
    interrupt_ingest(folder, out)
    with pytest.raises(InputError, match=r"geometry was .*none.* and is .*64"):
        ingest(source(folder, size=64), out)
    write_png(folder / "a" / "0.png", noise(20, 24, seed=77))
    os.utime(folder / "a" / "0.png", (1, 1))
    with pytest.raises(InputError, match=r"1 files of the source is changed on disk \(first: a/0.png\)"):
        ingest(source(folder), out)
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("b/3.png,p1,", "b/3.png,p2,"))
    with pytest.raises(InputError, match=r"2 files of the source are changed"):
        ingest(source(folder), out)
    ingest(source(folder), out, overwrite=True)
    assert Store.open(out).image(0)[0, 0, 0] == noise(20, 24, seed=77)[0, 0]


def test_an_existing_store_is_replaced_only_with_overwrite(folder, tmp_path):
    ingest(source(folder), tmp_path / "o.h5")
    before = (tmp_path / "o.h5").read_bytes()
    with pytest.raises(InputError, match="exists; write to another name, or pass --overwrite"):
        ingest(source(folder), tmp_path / "o.h5")
    ingest(source(folder), tmp_path / "o.h5", overwrite=True, workers=2)
    assert (tmp_path / "o.h5").read_bytes() == before


def test_a_second_ingest_to_the_same_store_raises(folder, tmp_path):
    from encoders.ingest.shards import lock_shard_folder

    with lock_shard_folder(tmp_path / "o.h5", False), pytest.raises(InputError, match="another ingest is writing"):
        ingest(source(folder), tmp_path / "o.h5")


def test_a_folder_that_cannot_be_written_or_read_raises(folder, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        FolderSource(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        ingest(source(folder), tmp_path / "file" / "o.h5")
    with pytest.raises(InputError, match="cannot read the labels"):
        FolderSource(folder, tmp_path / "none.csv")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="holds no PNG, JPEG or TIFF"):
        FolderSource(tmp_path / "bare")


@pytest.mark.real
def test_kermany_files_of_a_table_have_the_pixels_that_pillow_reads(data_dir, tmp_path):
    src = data_dir / "cxr_kermany224"
    ingest(FolderSource(src, src / "labels.csv", only=["patient_id=person1"], size=0), tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.shape == (224, 224, 1)
    assert store.classes("label") == ["pneumonia"]
    assert set(store.column("split")) == {"train", "test"}
    for i, key in enumerate(store.column("key")):
        np.testing.assert_array_equal(store.image(i)[..., 0], np.asarray(Image.open(src / key))[..., 0])


def test_an_empty_split_column_is_left_out_and_an_empty_patient_becomes_the_key(folder, tmp_path):
    (folder / "labels.csv").write_text("file,patient,split\na/0.png,,\na/2.png,p,\n")
    ingest(FolderSource(folder, folder / "labels.csv"), tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert not store.has_column("split")
    assert store.column("patient").tolist() == ["a/0.png", "p"]


def test_a_pattern_reads_columns_from_the_paths(tmp_path):
    src = tmp_path / "src"
    for k, (kind, who) in enumerate([("TUM", "p1"), ("TUM", "p2"), ("STR", "p1")]):
        write_png(src / "train" / kind / f"{who}_{k}.png", noise(20, 24, seed=k))
    write_png(src / "other.png", noise(20, 24, seed=9))
    tree = FolderSource(src, size=0, pattern=r"(?P<split>train|test)/(?P<label>[A-Z]+)/(?P<patient>p\d+)_")
    assert "1 files do not match --pattern and are left out (first: other.png)" in tree.notes
    ingest(tree, tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("patient").tolist() == ["p1", "p1", "p2"]
    assert set(store.column("split")) == {"train"}
    assert [store.classes("label")[int(v)] for v in store.labels("label")] == ["STR", "TUM", "TUM"]


def test_patients_from_the_path_combine_with_labels_from_a_table(folder, tmp_path):
    options = {"columns": {"file": "name", "patient": "", "split": ""}, "label": ["finding"], "size": 0}
    tree = FolderSource(folder, folder / "labels.csv", pattern=r"(?P<patient>[ab])/", **options)
    ingest(tree, tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert set(store.column("patient")) == {"a", "b"}
    assert store.label_names() == ["finding"]
    assert not any("patient of its own" in note for note in tree.notes)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<label>", "not a regular expression"),
        ("[ab]/", "names no group"),
        ("(?P<pateint>[ab])/", "did you mean patient"),
        ("(?P<label>z)/", "matches none of the"),
        ("(?P<patient>[ab])/", "in --pattern and in a column"),
    ],
)
def test_a_wrong_pattern_raises(folder, pattern, message):
    with pytest.raises(InputError, match=message):
        source(folder, pattern=pattern)


def test_a_tree_of_tiles_gives_patient_slide_and_position_and_the_mpp_as_stored(tmp_path):
    for patient, slide, x, y in (("p1", "s1", 0, 512), ("p1", "s2", 512, 0), ("p2", "s3", 1024, 1536)):
        write_png(tmp_path / "in" / patient / f"{slide}_{x}_{y}.png", noise(64, 64, 3, seed=x))
    pattern = "(?P<patient>[^/]+)/(?P<slide>[^/_]+)_(?P<x>[0-9]+)_(?P<y>[0-9]+)[.]png$"
    source = FolderSource(tmp_path / "in", pattern=pattern, modality="histology", codec="jpeg", mpp=0.25, size=32)
    ingest(source, tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("slide").tolist() == ["s1", "s2", "s3"]
    assert store.column("patient").tolist() == ["p1", "p1", "p2"]
    assert (store.column("x").tolist(), store.column("y").tolist()) == ([0, 512, 1024], [512, 0, 1536])
    assert store.column("mpp").tolist() == [0.5] * 3  # 64 pixels of 0.25 um became 32
    assert store.attrs["geometry"]["mpp"] == 0.5
    assert store.attrs["recipe"]["mpp"] == 0.25
    write_png(tmp_path / "in" / "p3" / "s4_0_0.png", noise(40, 64, 3))
    with pytest.raises(InputError, match="not square"):
        FolderSource(tmp_path / "in", resize="squash", mpp=0.25, size=32).stored_mpp((40, 64, 3))
