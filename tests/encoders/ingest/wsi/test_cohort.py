"""A folder of good and bad slides becomes a folder of stores: exact rows, reasons for bad slides, the same bytes after any interruption."""

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer.testing
from PIL import Image

from encoders.cli.main import app
from encoders.ingest.workers import WorkerDied, WorkerPool
from encoders.ingest.wsi.discover import discover_slides
from encoders.similarity.hash_search import find_near_pairs
from encoders.similarity.perceptual_hash import phash256, pixel_sha256
from encoders.store.store import Store
from tests.encoders.ingest.wsi.slide_files import draw_slide, halve_image, tissue_like, write_slide

BOXES = [(0, 0, 1024, 1024), (1024, 1536, 1024, 512)]  # at 0.25 um: 2 x 2 and 2 x 1 tiles of 512 pixels


def run(*arguments, code=0):
    done = typer.testing.CliRunner().invoke(app, ["ingest", "wsi", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def pyramid(path, boxes=BOXES, seed=0, mpp=0.25):
    base = draw_slide(2048, 2560, boxes, seed)
    return write_slide(path, [base, halve_image(base)], mpp)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two slides and their stores, shared by the tests, which must not write there."""
    root = tmp_path_factory.mktemp("cohort")
    pyramid(root / "slides" / "p1" / "a.tiff")
    pyramid(root / "slides" / "p2" / "b.tiff", [(512, 512, 1024, 1024)], seed=7)
    output = run(root / "slides", root / "out", "--pattern", "^(?P<patient>p[0-9])/", "--workers", 1)
    return root, output


def test_the_stores_hold_rows_pixels_and_attributes(cohort):
    root, output = cohort
    assert "10 tiles of 2 of 2 slides, 256 x 256 px at 0.5 um per pixel, jpeg" in output
    store = Store.open(f"{root}/out/*.h5")
    assert len(store) == 10
    a = store.column("slide") == "p1__a"
    corners = set(zip(store.column("x")[a], store.column("y")[a], strict=True))
    assert corners == {(0, 0), (512, 0), (0, 512), (512, 512), (1536, 1024), (1536, 1536)}
    assert set(store.column("patient")) == {"p1", "p2"}
    assert set(store.column("mpp")) == {0.5}
    assert set(store.column("level")) == {1}
    assert set(store.column("mpp_source")) == {"metadata"}
    assert (store.column("tissue") > 0.9).all()
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in store.column("quickhash"))
    assert (store.column("sharpness") > 100).all()
    assert store.attrs["geometry"]["mpp"] == 0.5
    assert store.attrs["slide"]["rejected"] == {"little tissue": 14}
    assert re.fullmatch("[0-9a-f]{64}", store.attrs["recipe_sha256"])
    base = halve_image(draw_slide(2048, 2560, BOXES))
    i = int(np.flatnonzero(store.column("key") == "p1__a/512_0")[0])
    want = base[:256, 256:512]
    assert np.abs(store.image(i).astype(int) - want).mean() < 6  # JPEG
    assert store.column("sha256")[i] == pixel_sha256(want)  # of the pixels before JPEG
    assert len(find_near_pairs(store.column("phash")[i : i + 1], phash256(want)[None])[0]) == 1
    assert Image.open(io.BytesIO(store.parts[0].picture("overview"))).size == (80, 64)
    assert b"4:4:4" in subsampling(store, i)


def subsampling(store, i):
    part, j = store.locate(i)
    blob = part.path.read_bytes()[part.offsets[j] : part.offsets[j + 1]]
    with Image.open(io.BytesIO(blob)) as picture:
        return b"4:4:4" if all(layer[1:3] == (1, 1) for layer in picture.layer) else b"subsampled"


def test_raw_tiles_are_lossless(cohort, tmp_path):
    run(cohort[0] / "slides" / "p1" / "a.tiff", tmp_path / "out", "--codec", "raw", "--workers", 1)
    store = Store.open(tmp_path / "out" / "a.h5")
    assert store.shape == (256, 256, 3)
    base = halve_image(draw_slide(2048, 2560, BOXES))
    for i in range(len(store)):
        x, y = int(store.column("x")[i]) // 2, int(store.column("y")[i]) // 2
        assert np.array_equal(store.image(i), base[y : y + 256, x : x + 256])


def test_two_workers_write_the_same_bytes_as_one(cohort, tmp_path):
    root, _ = cohort
    run(root / "slides", tmp_path / "out", "--pattern", "^(?P<patient>p[0-9])/", "--workers", 2)
    for path in (root / "out").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_a_second_run_does_nothing_and_a_changed_recipe_raises_or_is_rebuilt(cohort, tmp_path):
    root, _ = cohort
    given = [root / "slides" / "p1", tmp_path / "out", "--workers", 1]
    run(*given)
    before = (tmp_path / "out" / "a.h5").stat().st_mtime_ns
    run(*given)
    assert (tmp_path / "out" / "a.h5").stat().st_mtime_ns == before
    with pytest.raises(Exception, match=r"mpp was 0\.5 and is 1\.0.*--overwrite"):
        run(*given, "--mpp", "1.0", code=2)
    run(*given, "--mpp", "1.0", "--overwrite", "--min-tissue", "0.2")
    assert set(Store.open(tmp_path / "out" / "a.h5").column("mpp")) == {1.0}
    Image.fromarray(np.full((64, 80), 255, np.uint8)).save(tmp_path / "a.png")
    run(*given, "--mpp", "1.0", "--min-tissue", "0.2", "--masks", tmp_path)  # a new mask: only its slide is tiled again
    assert set(Store.open(tmp_path / "out" / "a.h5").column("tissue")) == {1.0}


def test_stores_of_other_commands_raise(cohort, tmp_path):
    (tmp_path / "b.h5").touch()
    with pytest.raises(Exception, match="that `encoders ingest wsi` did not write"):
        run(cohort[0] / "slides", tmp_path, code=2)


def write_bad_slides(folder):
    pyramid(folder / "good.tiff")
    whole = (folder / "good.tiff").read_bytes()
    (folder / "cut.tiff").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.svs").touch()
    (folder / "text.ndpi").write_text("no slide")
    (folder / "broken.dcm").write_bytes(whole[:5000])
    Image.fromarray(tissue_like(300, 300)).save(folder / "plain.tif")
    write_slide(folder / "tiny.tiff", [tissue_like(256, 256)])
    write_slide(folder / "unsaid.tiff", [draw_slide(2048, 2560, BOXES)], mpp=None)
    pyramid(folder / "glass.tiff", boxes=[])
    pyramid(folder / "wide_pixels.tiff", mpp=2.0)
    (folder / "notes.txt").write_text("x")


def test_every_kind_of_bad_slide_is_quarantined_and_the_others_are_stored(tmp_path):
    write_bad_slides(tmp_path / "in")
    output = run(tmp_path / "in", tmp_path / "out", "--workers", 1, code=1)
    assert "1 files skipped: .txt" in output
    assert "6 tiles of 1 of 10 slides" in output
    with (tmp_path / "out" / "slides.quarantine.csv").open() as file:
        reasons = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    expected = {
        "broken.dcm": "truncated, or has a format", "cut.tiff": "truncated|damaged|cannot be opened",
        "empty.svs": "empty", "glass.tiff": "no tile is left of 20: 20 little tissue", "plain.tif": "vips tiffsave",
        "text.ndpi": "truncated, or has a format", "tiny.tiff": "smaller than one tile: 64 x 64 um", "unsaid.tiff": "--slide-mpp",
        "wide_pixels.tiff": r"4\.00 times too coarse",
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    assert [name for name, why in expected.items() if not re.search(why, reasons[name])] == []
    assert [p.name for p in (tmp_path / "out").glob("*.h5")] == ["good.h5"]
    html = (tmp_path / "out" / "overview.html").read_text()
    assert not any(name in html for name in expected)  # a slide is called by its row in slides.csv
    lines = (tmp_path / "out" / "slides.csv").read_text().splitlines()
    numbers = {Path(row["source"]).name: i for i, row in enumerate(csv.DictReader(lines), 1)}
    assert f">slide {numbers['good.tiff']}</h3>" in html
    told = {int(number): why for number, why in re.findall(r'>slide (\d+)</th><td class="bad">([^<]*)</td>', html)}
    assert told.keys() == {numbers[name] for name in expected}
    # A name is hidden also where it is a word of the sentence.
    hidden = {"empty.svs": re.escape("is (slide) (0 bytes)"), "plain.tif": r"convert a \(slide\) image to a slide with `vips tiffsave"}
    assert [name for name, why in (expected | hidden).items() if not re.search(why, told[numbers[name]])] == []
    rows = {row["slide"]: row for row in csv.DictReader(lines)}
    assert (rows["good"]["tiles"], rows["good"]["little tissue"], rows["good"]["trouble"]) == ("6", "14", "")
    output = run(tmp_path / "in", tmp_path / "out", "--workers", 1, code=1)  # failed slides are tried again, finished ones are kept
    assert "6 tiles of 1 of 10 slides" in output


def test_an_unreadable_tile_is_the_only_tile_that_is_lost(tmp_path):
    """One compressed tile of the file is overwritten: OpenSlide needs a new handle after the error."""
    path = tmp_path / "in" / "a.tiff"
    base = draw_slide(1024, 1024, [(0, 0, 1024, 1024)])
    write_slide(path, [base, halve_image(halve_image(halve_image(halve_image(halve_image(base)))))], compression="zlib")
    content = bytearray(path.read_bytes())
    import tifffile

    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[5], file.pages[0].databytecounts[5]  # row 1, column 1 of 4 x 4
    content[start + 10 : start + length] = bytes(length - 10)
    path.write_bytes(content)
    output = run(tmp_path / "in", tmp_path / "out", "--mpp", 0.25, "--workers", 1, code=1)
    assert "damaged: 1 of its tiles cannot be read; the store holds the others" in " ".join(output.replace("│", " ").split())
    store = Store.open(tmp_path / "out" / "a.h5")
    assert len(store) == 15
    assert (256, 256) not in set(zip(store.column("x"), store.column("y"), strict=True))
    assert all(store.image(i).min() < 200 for i in range(15))


KILLED = """
import sys
from encoders.cli.main import app
app(["ingest", "wsi", sys.argv[1], sys.argv[2], "--mpp", "0.25", "--tile", "64", "--workers", sys.argv[3]])
"""


@pytest.mark.slow
def test_an_ingest_killed_four_times_resumes_to_the_same_bytes(tmp_path):
    rng = random.Random(4)
    pyramid(tmp_path / "in" / "a.tiff")
    pyramid(tmp_path / "in" / "b.tiff", [(0, 0, 2048, 2048)], seed=3)
    (tmp_path / "in" / "bad.svs").write_text("no slide")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])}

    def command(out, workers):
        return [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / out), str(workers)]

    begun = time.monotonic()
    assert subprocess.run(command("whole", 1), env=environment, capture_output=True).returncode == 1
    whole_s = time.monotonic() - begun
    killed = 0
    while killed < 4:
        process = subprocess.Popen(command("out", 1 + killed % 2), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=whole_s * rng.uniform(0.3, 0.9))
            shutil.rmtree(tmp_path / "out")  # it finished: start again
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert subprocess.run(command("out", 1), env=environment, capture_output=True).returncode == 1
    names = sorted(p.name for p in (tmp_path / "whole").glob("*.h5"))
    assert names == ["a.h5", "b.h5"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.h5")) == names
    assert all((tmp_path / "out" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)
    assert not (tmp_path / "out" / ".work").exists()


def test_max_tiles_are_sampled_by_the_seed(cohort, tmp_path):
    source, keys = cohort[0] / "slides" / "p1", {}
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        run(source, tmp_path / name, "--max-tiles", 3, "--seed", seed, "--workers", 1)
        store = Store.open(tmp_path / name / "a.h5")
        keys[name] = store.column("key").tolist()
        assert store.attrs["slide"]["rejected"] == {"little tissue": 14, "not drawn": 3}
    assert keys["x"] == keys["y"] != keys["z"]


def test_regions_masks_and_tables_belong_to_their_slides(cohort, tmp_path):
    box = [[0, 0], [1024, 0], [1024, 512], [0, 512], [0, 0]]
    drawn = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [box]}, "properties": {"classification": {"name": "Tumor"}}}
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "a.geojson").write_text(json.dumps(drawn))
    (tmp_path / "t.csv").write_text("file,patient_id,mpp,grade,site\na.tiff,K7,0.2500,high,north\nother.tiff,K8,,low,south\n")
    given = ["--regions", tmp_path / "regions", "--labels", tmp_path / "t.csv", "--label-column", "grade", "--workers", 1]
    run(cohort[0] / "slides" / "p1", tmp_path / "in", *given, "--include", "Tumor")
    store = Store.open(tmp_path / "in" / "a.h5")
    assert sorted(zip(store.column("x"), store.column("y"), strict=True)) == [(0, 0), (512, 0)]
    assert store.attrs["slide"]["rejected"] == {"little tissue": 14, "outside the regions": 4}
    assert set(store.column("mpp_source")) == {"given"}
    assert set(store.column("patient")) == {"K7"}
    assert set(store.column("site")) == {"north"}
    assert store.classes("grade") == ["high"]
    run(cohort[0] / "slides" / "p1", tmp_path / "ex", *given, "--exclude", "Tumor")
    assert len(Store.open(tmp_path / "ex" / "a.h5")) == 4
    with pytest.raises(Exception, match="pass --regions"):
        run(cohort[0] / "slides", tmp_path / "none", "--include", "Tumor", code=2)
    with pytest.raises(Exception, match="for none of the 1 slides: it holds 1 files of regions, e.g. a.geojson; expected e.g. b.geojson"):
        run(cohort[0] / "slides" / "p2", tmp_path / "no", "--regions", tmp_path / "regions", "--exclude", "Tumor", code=2)
    (tmp_path / "regions" / "p1").mkdir()
    (tmp_path / "regions" / "a.geojson").rename(tmp_path / "regions" / "p1" / "a.tiff.geojson")  # by the path of the slide
    output = run(cohort[0] / "slides", tmp_path / "both", "--regions", tmp_path / "regions", "--include", "Tumor", "--workers", 1, code=1)
    assert "regions: 1 of 2 slides have a file" in output
    assert "has no p2__b.geojson" in " ".join(output.replace("│", " ").split())


def test_regions_apply_also_without_a_tissue_limit(cohort, tmp_path):
    box = [[0, 0], [1024, 0], [1024, 512], [0, 512], [0, 0]]
    drawn = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [box]}, "properties": {"classification": {"name": "Tumor"}}}
    (tmp_path / "a.geojson").write_text(json.dumps(drawn))
    given = ["--regions", tmp_path / "a.geojson", "--min-tissue", 0, "--min-sharpness", 0, "--max-white", 1, "--workers", 1]
    with pytest.raises(Exception, match="no class of regions called 'Tumour'; did you mean Tumor"):
        run(cohort[0] / "slides" / "p1" / "a.tiff", tmp_path / "x", *given, "--exclude", "Tumour", code=2)
    with pytest.raises(Exception, match="no class of regions called 'Stroma'; known: Tumor"):
        run(cohort[0] / "slides" / "p1" / "a.tiff", tmp_path / "x", *given, "--include", "Stroma", code=2)
    assert not (tmp_path / "x").exists()
    lists = ["--exclude", "Tumor", "--exclude", "Tumour", "--exclude", "Fold"]  # both spellings, and a class that no slide has
    assert "no region has the class 'Fold'; known classes: 'Tumor'" in run(
        cohort[0] / "slides" / "p1" / "a.tiff", tmp_path / "ok", *given, *lists
    )
    for option, kept in (("--include", 2), ("--exclude", 18)):
        run(cohort[0] / "slides" / "p1" / "a.tiff", tmp_path / option, *given, option, "Tumor")
        store = Store.open(tmp_path / option / "a.h5")
        assert len(store) == kept
        assert ((store.column("y") < 512) & (store.column("x") < 1024)).sum() == (2 if option == "--include" else 0)


def test_columns_have_the_same_type_in_every_slide(cohort, tmp_path):
    for name in "abc":
        pyramid(tmp_path / "in" / f"{name}.tiff", [(0, 0, 1024, 1024)])
    rows = ["slide,patient,split,her2,size,age", "a,p1,train,0,3.5,45", "b,p2,,1+,,adult", "c,p3,test,,7,"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    columns = ["--label-column", "her2", "--label-column", "size", "--meta-column", "age"]
    run(tmp_path / "in", tmp_path / "out", "--labels", tmp_path / "t.csv", *columns, "--workers", 1)
    store = Store.open(f"{tmp_path}/out/*.h5")
    first = [int(np.flatnonzero(store.column("slide") == name)[0]) for name in "abc"]
    assert store.classes("her2") == ["0", "1+"]
    np.testing.assert_array_equal(store.labels("her2")[first], [0, 1, np.nan])
    np.testing.assert_array_equal(store.labels("size")[first], [3.5, np.nan, 7])
    assert store.column("split")[first].tolist() == ["train", "", "test"]
    assert store.column("age")[first].tolist() == ["45", "adult", ""], "text stays as written, not 45.0"
    (tmp_path / "t.csv").write_text("\n".join([*rows[:2], "b,p2,,1,,50", rows[3]]))  # now her2 and age are numbers in all slides
    run(tmp_path / "in", tmp_path / "out", "--labels", tmp_path / "t.csv", *columns, "--workers", 1)
    store = Store.open(f"{tmp_path}/out/*.h5")
    assert store.classes("her2") is None
    np.testing.assert_array_equal(store.column("age")[first], [45, 50, np.nan])
    for wrong in ("nan%", "-0.25", "1e9"):
        (tmp_path / "t.csv").write_text(f"slide,mpp\na,{wrong}\n")
        with pytest.raises(Exception, match="expected micrometres per pixel"):
            run(tmp_path / "in", tmp_path / "x", "--labels", tmp_path / "t.csv", code=2)


@pytest.mark.parametrize("codec", ["jpeg", "raw"])
def test_a_changed_table_is_written_without_tiling_again(cohort, tmp_path, monkeypatch, codec):
    root, given = cohort[0] / "slides", ["--codec", codec, "--workers", 1, "--labels", tmp_path / "t.csv", "--dataset", "d"]
    first, later = "slide,patient\na,p1\nb,p2\n", "slide,patient,split,label,age\na,p1,train,ill,45\nb,p9,test,well,\n"
    (tmp_path / "t.csv").write_text(first)
    run(root, tmp_path / "out", *given)
    (tmp_path / "t.csv").write_text(later)
    run(root, tmp_path / "anew", *given)
    monkeypatch.setattr("encoders.ingest.wsi.ingest_slides.write_tile_shard", None)
    output = run(root, tmp_path / "out", *given)
    assert "tiled again" not in output
    for name in ("p1__a.h5", "p2__b.h5"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()
    store = Store.open(f"{tmp_path}/out/*.h5")
    assert store.classes("label") == ["ill", "well"]
    assert set(store.column("patient")) == {"p1", "p9"}
    assert all(store.image(i).shape == (256, 256, 3) for i in range(len(store)))
    run(root, tmp_path / "out", *given, "--label-column", "label", "--label-column", "age")  # from meta to labels
    assert "age" in Store.open(f"{tmp_path}/out/*.h5").label_names()
    monkeypatch.undo()
    broken = tmp_path / "out" / "p1__a.h5"
    broken.write_bytes(broken.read_bytes()[:3000])
    run(root, tmp_path / "out", *given)  # a slide whose store is damaged is tiled again
    assert broken.read_bytes() == (tmp_path / "anew" / "p1__a.h5").read_bytes()
    with pytest.raises(Exception, match="the column 'pen' .* has the name of a measure"):
        (tmp_path / "t.csv").write_text("slide,patient,pen\na,p1,yes\n")
        run(root, tmp_path / "x", *given, "--meta-column", "pen", code=2)
    (tmp_path / "t.csv").write_text(later)
    output = run(root, tmp_path / "out", *given, "--slide-mpp", 0.26)
    assert "2 finished slides are tiled again (first: p1__a): a file of theirs, the mask, the regions or the resolution has" in output


def test_identical_slides_conflicting_resolutions_and_missing_masks_are_reported(cohort, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        shutil.copy(cohort[0] / "slides" / "p1" / "a.tiff", tmp_path / "in" / f"{name}.tiff")
    output = run(tmp_path / "in", tmp_path / "out", "--slide-mpp", 0.23, "--workers", 1)
    assert "warning: a and b are the same slide; its tiles are duplicated, as tiles of 2 slides" in output
    assert "warning: the metadata of 2 slides have another resolution than the given one (first: a, 0.25 um per pixel)" in output
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((64, 80), 255, np.uint8)).save(tmp_path / "masks" / "a.png")
    output = run(tmp_path / "in", tmp_path / "masked", "--masks", tmp_path / "masks", "--workers", 1, code=1)
    assert "its mask b.png in the folder of --masks: there is no such file" in " ".join(output.replace("│", " ").split())
    with pytest.raises(Exception, match="name the folder with NAME.png"):
        run(tmp_path / "in", tmp_path / "x", "--masks", tmp_path / "masks" / "a.png", code=2)


def test_columns_and_unmatched_rows_of_a_table_are_reported(cohort, tmp_path):
    (tmp_path / "t.csv").write_text("slide,patient,grade,mpp\na,p1,high,0.25\nz,p9,low,\n")
    output = run(cohort[0] / "slides", tmp_path / "out", "--labels", tmp_path / "t.csv", "--workers", 1)
    assert "mpp = column 'mpp'; not used: grade; no label is stored, choose one with --label-column" in output
    assert "2 rows, 1 of them without a slide (first: z); 1 slides without a row (first: p2__b)" in output
    (tmp_path / "t.csv").write_text("name;patient\na;p1\n")
    with pytest.raises(Exception, match="call it file or slide; columns: name, patient"):
        run(cohort[0] / "slides", tmp_path / "out", "--labels", tmp_path / "t.csv", code=2)


def test_tiles_too_small_for_sharpness_raise_unless_it_is_off(cohort, tmp_path):
    given = [cohort[0] / "slides" / "p1", tmp_path / "out", "--mpp", 0.25, "--tile", 16, "--workers", 1, "--max-tiles", 40]
    with pytest.raises(Exception, match="a tile of 4 um is too small to measure its sharpness"):
        run(*given, code=2)
    run(*given, "--min-sharpness", 0)
    assert np.isfinite(Store.open(tmp_path / "out" / "a.h5").column("sharpness")).all()


def test_ctrl_c_ends_workers_and_prints_how_to_resume(tmp_path):
    pyramid(tmp_path / "in" / "a.tiff")
    code = 'import sys; from encoders.cli.main import main; sys.argv[1:] = ["ingest", "wsi", *sys.argv[1:]]; main()'
    tiling = ["--mpp", "0.25", "--tile", "64", "--overlap", "48"]  # enough tiles that it has not finished when it is interrupted
    words = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "out"), *tiling, "--workers", "2"]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it in what it starts in the background
    )  # fmt: skip
    while process.poll() is None and not list((tmp_path / "out").glob(".work/a/plan.npz")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal: to every process of the command
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert output.strip().endswith("interrupted; rerun the same command to resume")
    assert "Traceback" not in output
    run(tmp_path / "in", tmp_path / "out", *tiling, "--dataset", "in", "--workers", 1)


def test_stores_of_removed_slides_raise_or_are_pruned(cohort, tmp_path):
    root, out = cohort[0] / "slides", tmp_path / "out"
    run(root, out, "--workers", 1)
    given = [root, out, "--pattern", "(?P<patient>p1)", "--workers", 1]
    with pytest.raises(Exception, match=r"1 stores of slides that are not among these 1 \(first: p2__b\).*--prune"):
        run(*given, code=2)
    assert (out / "p2__b.h5").exists()
    with pytest.raises(Exception, match="--prune would remove all 1 stores .*check the folder"):
        (out / "p1__a.h5").rename(tmp_path / "kept.h5")
        run(*given, "--prune", code=2)
    (tmp_path / "kept.h5").rename(out / "p1__a.h5")
    (out / "features.h5").touch()
    with pytest.raises(Exception, match=r"features\.h5 is not a store of this command"):
        run(*given, "--prune", code=2)
    (out / "features.h5").unlink()
    run(*given, "--prune")
    assert [path.name for path in out.glob("*.h5")] == ["p1__a.h5"]
    assert not list((out / "slides").glob("p2__b.*"))


def test_overwrite_replaces_a_store_without_record(cohort, tmp_path):
    root, out = cohort[0] / "slides", tmp_path / "out"
    run(root, out, "--workers", 1)
    (out / "slides" / "p2__b.json").unlink()
    (out / ".work" / "p2__b").mkdir(parents=True)
    run(root, out, "--tile", 128, "--overwrite", "--workers", 1)
    assert {path.name for path in out.glob("*.h5")} == {"p1__a.h5", "p2__b.h5"}
    assert Store.open(out / "p2__b.h5").attrs["geometry"]["size"] == [128, 128]


def test_an_interrupted_overwrite_keeps_its_new_stores(cohort, tmp_path, monkeypatch):
    from encoders.ingest.wsi import ingest_slides

    root, out, real = cohort[0] / "slides", tmp_path / "out", ingest_slides.write_slide_store
    run(root, out, "--workers", 1)
    made = []

    def interrupted(item, *rest):
        if made:
            raise KeyboardInterrupt
        made.append(item.name)
        return real(item, *rest)

    monkeypatch.setattr(ingest_slides, "write_slide_store", interrupted)
    run(root, out, "--workers", 1, "--overwrite", code=130)
    monkeypatch.undo()
    before = (out / f"{made[0]}.h5").stat().st_mtime_ns
    run(root, out, "--workers", 1, "--overwrite")
    assert (out / f"{made[0]}.h5").stat().st_mtime_ns == before
    run(root, out, "--workers", 1, "--overwrite")
    assert (out / f"{made[0]}.h5").stat().st_mtime_ns > before, "a finished overwrite is repeated"


def test_a_damaged_overview_is_read_from_another_level_or_costs_its_tiles(tmp_path):
    import tifffile

    base = draw_slide(1024, 1024, [(0, 0, 1024, 1024)])
    path = write_slide(tmp_path / "in" / "a.tiff", [base, halve_image(base)], compression="zlib")
    for page, kept in ((1, 16), (0, 15)):  # the smaller level, from which the overview is read; then the same position of the larger level
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            level = file.pages[page]
            start, length = level.dataoffsets[0], level.databytecounts[0]
        content[start + 10 : start + length] = bytes(length - 10)
        path.write_bytes(content)
        run(tmp_path / "in", tmp_path / f"out{page}", "--mpp", 0.25, "--workers", 1, code=int(kept < 16))
        store = Store.open(tmp_path / f"out{page}" / "a.h5")
        assert len(store) == kept
        assert store.attrs["slide"]["rejected"] == ({} if kept == 16 else {"damaged": 1})


def test_the_page_escapes_names_and_shows_the_thumbnails(cohort, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "<b>x.svs").write_text("no slide")
    pyramid(tmp_path / "in" / "good.tiff", BOXES[:1])
    run(tmp_path / "in", tmp_path / "out", "--dataset", "<i>set", "--workers", 1, code=1)
    html = (tmp_path / "out" / "overview.html").read_text()
    assert "<b>x" not in html
    assert "<i>set" not in html
    assert html.count("data:image/jpeg;base64,") == 1
    assert str(tmp_path) not in html


def test_slides_are_found_once_and_get_unique_names(tmp_path):
    for name in ("x/a.svs", "y/a.svs", "y/a.tif", "m/s.mrxs", "m/s/Data0000.dat", ".hidden/b.svs", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, others, _ = discover_slides(tmp_path)
    assert list(found) == ["m__s", "x__a", "y__a.svs", "y__a.tif"]
    assert others == {".txt": 1}


def test_linked_folders_are_searched_once_and_keep_their_own_names(tmp_path):
    for name in ("real/a.svs", "in/b.svs", "in/p2/c.svs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "case").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "case2").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "p2")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "in")
    assert list(discover_slides(tmp_path / "in")[0]) == ["b", "case__a", "p2__c"]


def boom(shared, job, tick):
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    tick(1)
    return shared * job


def test_a_job_that_kills_its_process_is_reported_and_the_others_finish():
    with WorkerPool(10, 2) as pool:
        answers = dict(pool.run_jobs(boom, list(range(6)), lambda n: None))
        again = dict(pool.run_jobs(boom, [4, 5], lambda n: None))
    assert isinstance(answers.pop(3), WorkerDied)
    assert answers == {k: k * 10 for k in (0, 1, 2, 4, 5)}
    assert again == {4: 40, 5: 50}, "the pool works after a process died"


def test_one_job_that_kills_its_process_does_not_kill_this_one():
    for number in (1, 2):
        with WorkerPool(10, number) as pool:
            ((job, answer),) = pool.run_jobs(boom, [3], lambda n: None)
        assert job == 3
        assert isinstance(answer, WorkerDied)


def process(shared, job, tick):
    tick(job)
    return os.getpid()


def test_workers_stay_from_round_to_round_and_progress_starts_again():
    counted = [0, 0]

    def count(turn):
        def tick(n):
            counted[turn] += n

        return tick

    with WorkerPool(None, 2) as pool:
        rounds = [{pid for _, pid in pool.run_jobs(process, [1, 2, 3, 4], count(turn))} for turn in (0, 1)]
    assert len(rounds[0] | rounds[1]) <= 2
    assert os.getpid() not in rounds[0] | rounds[1]
    assert counted == [10, 10]
