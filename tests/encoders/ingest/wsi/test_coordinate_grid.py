"""Coordinate files of CLAM and TRIDENT as the grid: tiles equal those that OpenSlide reads there, and every coordinate is counted."""

import csv
import re

import h5py
import numpy as np
import openslide
import pytest

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.wsi.command import run
from tests.encoders.ingest.wsi.slide_files import halve_image, jpeg_tile, tissue_like, write_jpeg_slide, write_slide

WIDTH, HEIGHT = 1400, 1100
CORNERS = [(0, 0), (37, 501), (700, 300), (701, 300), (900, 820)]


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Two slides of 0.25 um with levels of 1, 2 and 4."""
    folder = tmp_path_factory.mktemp("placed")
    for k, name in enumerate("ab"):
        base = tissue_like(HEIGHT, WIDTH, seed=k)
        write_slide(folder / f"{name}.tiff", [base, half := halve_image(base), halve_image(half)])
    return folder


def write_coords(path, corners=CORNERS, dtype=np.int64, file=None, **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as out:
        out.create_dataset("coords", data=np.array(corners, dtype)).attrs.update(attributes)
        out.attrs.update(file or {})
    return path


def clam(level, side, downsample, **more):
    dims = (WIDTH // downsample, HEIGHT // downsample)
    return {"patch_size": side, "patch_level": level, "downsample": (float(downsample),) * 2, "level_dim": dims,
            "downsampled_level_dim": dims, "name": "a", "save_path": "/x", **more}  # fmt: skip


def trident(side0, side=128, **more):
    return {"patch_size": side, "patch_size_level0": side0, "level0_magnification": 40, "target_magnification": 40 * side // side0,
            "overlap": 0, "name": "a", "level0_width": WIDTH, "level0_height": HEIGHT, **more}  # fmt: skip


def read_with_openslide(path, x, y, level, side):
    """(side, side, 3) on a white background, as the specification of OpenSlide's transparency asks for."""
    from PIL import Image

    region = openslide.OpenSlide(path).read_region((x, y), level, (side, side))
    out = Image.new("RGB", region.size, "white")
    out.paste(region, mask=region.getchannel("A"))
    return np.asarray(out)


@pytest.mark.parametrize(("level", "downsample", "dtype"), [(0, 1, np.int64), (1, 2, np.int32), (2, 4, np.float32)])
def test_tiles_at_coordinates_of_clam_are_those_of_openslide(slides, tmp_path, level, downsample, dtype):
    write_coords(tmp_path / "c" / "a.h5", dtype=dtype, **clam(level, 64, downsample))
    output = run(
        slides / "a.tiff", tmp_path / "out", "--coords", tmp_path / "c" / "a.h5", "--mpp", 0.25 * downsample, "--tile", 64,
        "--codec", "raw", "--workers", 1,
    )  # fmt: skip
    assert "coordinates: 5 of 1 slides: 5 taken, 0 outside the slide, 0 duplicate coordinate" in output
    store = Store.open(tmp_path / "out" / "a.h5")
    assert list(zip(store.column("x"), store.column("y"), strict=True)) == CORNERS
    for i, (x, y) in enumerate(CORNERS):
        np.testing.assert_array_equal(store.image(i), read_with_openslide(slides / "a.tiff", x, y, level, 64))
    assert set(store.column("level")) == {level}
    assert np.isnan(store.column("tissue")).all()
    assert store.attrs["recipe"]["tiles"] == "coordinates of files"
    assert store.attrs["slide"]["coords"]["side"] == [64 * downsample] * 2


def test_tiles_of_trident_are_read_at_the_nearest_level_and_files_are_found_by_their_names(slides, tmp_path):
    for name in "ab":
        write_coords(tmp_path / "job" / "patches" / f"{name}_patches.h5", **trident(256))
    write_coords(tmp_path / "job" / "patches" / "zzz_patches.h5", **trident(256))
    output = run(
        slides, tmp_path / "out", "--coords", tmp_path / "job", "--mpp", 0.5, "--tile", 128, "--codec", "raw", "--workers", 1
    )  # fmt: skip
    assert "coordinates: 2 of 2 slides have a file; 1 files belong to none of them (first: patches/zzz_patches.h5)" in output
    assert "coordinates: 10 of 2 slides: 10 taken" in output
    for name in "ab":
        store = Store.open(tmp_path / "out" / f"{name}.h5")
        for i, (x, y) in enumerate(CORNERS):
            np.testing.assert_array_equal(store.image(i), read_with_openslide(slides / f"{name}.tiff", x, y, 1, 128))


def test_tiles_between_pixels_of_a_level_of_jpeg_tiles_are_those_of_openslide(tmp_path):
    """A level that is 2.0014 times smaller: corners are no whole pixels of it, and its JPEG tiles are not read directly there."""
    sizes = [(1401, 1401), (700, 700)]
    pictures = [jpeg_tile(tissue_like(256, 256, seed=k)) for k in range(4)]
    write_jpeg_slide(
        tmp_path / "j.tiff", sizes, pictures, lambda level: np.arange(36 if level == 0 else 9).reshape((6, 6) if level == 0 else (3, 3)) % 4
    )
    ratio = openslide.OpenSlide(tmp_path / "j.tiff").level_downsamples[1]
    places = [(2, 4), (501, 300), (800, 802), (1000, 640)]
    write_coords(tmp_path / "j.h5", places, patch_size=64, patch_level=1, downsample=(ratio, ratio))
    run(tmp_path / "j.tiff", tmp_path / "out", "--coords", tmp_path / "j.h5", "--mpp", 0.5, "--tile", 64, "--codec", "raw", "--workers", 1)
    store = Store.open(tmp_path / "out" / "j.h5")
    for i, (x, y) in enumerate(places):
        np.testing.assert_array_equal(store.image(i), read_with_openslide(tmp_path / "j.tiff", x, y, 1, 64))


@pytest.mark.parametrize("unit", [{"unit": "um"}, {"unit": "\u00b5m"}, {}])
def test_micrometres_of_stamp_become_pixels_of_the_slide(slides, tmp_path, unit):
    """Tiles of 64 um, which are 256 pixels of 0.25 um; the corners are rounded in float32, as STAMP stores them."""
    corners = np.array(CORNERS[:3]) * 0.25
    write_coords(tmp_path / "a.h5", corners, np.float32, file={"tile_size_um": 64.0, "tile_size_px": 64, **unit})
    run(slides / "a.tiff", tmp_path / "out", "--coords", tmp_path / "a.h5", "--mpp", 1, "--tile", 64, "--codec", "raw", "--workers", 1)
    store = Store.open(tmp_path / "out" / "a.h5")
    assert list(zip(store.column("x"), store.column("y"), strict=True)) == CORNERS[:3]
    for i, (x, y) in enumerate(CORNERS[:3]):
        np.testing.assert_array_equal(store.image(i), read_with_openslide(slides / "a.tiff", x, y, 2, 64))


def test_every_coordinate_is_counted(slides, tmp_path):
    odd = [(0, 0), (WIDTH, 10), (5, -1), (10, HEIGHT + 5), (37, 501), (0, 0), (37, 501), (WIDTH - 20, HEIGHT - 30), (WIDTH, 10)]
    write_coords(tmp_path / "a.h5", odd, **clam(0, 64, 1))
    output = run(
        slides / "a.tiff", tmp_path / "out", "--coords", tmp_path / "a.h5", "--mpp", 0.25, "--tile", 64, "--codec", "raw", "--workers", 1
    )
    assert "coordinates: 9 of 1 slides: 3 taken, 4 outside the slide (first: a), 2 duplicate coordinate (first: a)" in output
    assert "1 tiles of 1 slides reach over the edge" in output
    store = Store.open(tmp_path / "out" / "a.h5")
    assert store.attrs["slide"]["rejected"] == {"duplicate coordinate": 2, "outside the slide": 4}
    np.testing.assert_array_equal(store.image(2), read_with_openslide(slides / "a.tiff", WIDTH - 20, HEIGHT - 30, 0, 64))
    row = next(csv.DictReader((tmp_path / "out" / "slides.csv").read_text().splitlines()))
    assert sum(int(row[name]) for name in ("tiles", "outside the slide", "duplicate coordinate")) == len(odd)


def test_glass_is_kept_unless_a_limit_is_given(tmp_path):
    image = np.full((512, 512, 3), 243, np.uint8)
    image[:256] = tissue_like(256, 512)
    write_slide(tmp_path / "g.tiff", [image])
    write_coords(tmp_path / "g.h5", [(0, 0), (0, 300)], **clam(0, 128, 1) | {"level_dim": (512, 512), "downsampled_level_dim": (512, 512)})
    given = [tmp_path / "g.tiff", "--coords", tmp_path / "g.h5", "--mpp", 0.25, "--tile", 128, "--workers", 1]
    run(given[0], tmp_path / "all", *given[1:])
    assert len(Store.open(tmp_path / "all" / "g.h5")) == 2
    run(given[0], tmp_path / "tiny", "--coords", write_coords(tmp_path / "t.h5", [(0, 0)]), "--mpp", 0.25, "--tile", 16, "--workers", 1)
    assert len(Store.open(tmp_path / "tiny" / "g.h5")) == 1
    output = run(given[0], tmp_path / "some", *given[1:], "--max-white", 0.9)
    assert "rejected: 1 white" in output
    assert len(Store.open(tmp_path / "some" / "g.h5")) == 1


def test_the_size_of_the_file_decides_and_differing_options_name_those_that_fit(slides, tmp_path):
    """128 pixels of 0.2527 um: 0.2527 um per pixel at --tile 128, whatever --mpp 0.25 says; 0.5 is refused."""
    write_slide(tmp_path / "in" / "s.tiff", [tissue_like(HEIGHT, WIDTH)], mpp=0.2527)
    write_coords(tmp_path / "s.h5", **trident(128))
    given = [tmp_path / "in", tmp_path / "out", "--coords", tmp_path / "s.h5", "--tile", 128, "--codec", "raw", "--workers", 1]
    run(*given, "--mpp", 0.25)
    store = Store.open(tmp_path / "out" / "s.h5")
    np.testing.assert_array_equal(store.image(1), read_with_openslide(tmp_path / "in" / "s.tiff", *CORNERS[1], 0, 128))
    assert store.column("mpp")[0] == pytest.approx(0.2527, abs=1e-4)
    output = " ".join(run(*given, "--mpp", 0.5, "--overwrite", code=1).replace("│", " ").split())
    assert "pass --mpp 0.2527, or --tile 65" in output


def test_a_file_without_a_size_takes_it_from_the_options(slides, tmp_path):
    write_coords(tmp_path / "a.h5", patch_size=256)  # of which level or magnification is not stated
    output = run(
        slides / "a.tiff", tmp_path / "out", "--coords", tmp_path / "a.h5", "--mpp", 0.5, "--tile", 64, "--codec", "raw", "--workers", 1
    )
    assert "the coordinates of 1 slides state no size of tiles: it is that of --tile and --mpp (first: a)" in output
    store = Store.open(tmp_path / "out" / "a.h5")
    np.testing.assert_array_equal(store.image(2), read_with_openslide(slides / "a.tiff", *CORNERS[2], 1, 64))


BAD = {
    "unit": ({"corners": [(1, 2)], "file": {"unit": "inch"}}, "not level-0 pixels: micrometres"),
    "fractions": ({"corners": [(1.5, 2.0)], "dtype": np.float64}, r"`coords` has \(1\.5, 2\); expected whole pixels"),
    "shape": ({"corners": [(1, 2, 3)]}, r"has shape \(1, 3\)"),
    "none": ({"corners": np.zeros((0, 2))}, "holds no coordinates"),
    "outside": ({"corners": [(9000, 9000)]}, r"all 1 coordinates of x\.h5 are outside, e\.g\. \(9000, 9000\)"),
    "other": (clam(0, 64, 1) | {"level_dim": (9000, 8000)}, r"x\.h5 was made for a slide of 9000 x 8000"),
    "two": (trident(256, patch_level=0), "contradict each other: patch_size_level0 is 256, and patch_size and downsample give 128"),
    "level": ({"patch_size": 64, "patch_level": 7}, "patch_level is 7, and the slide has 3 levels"),
}


def test_a_bad_file_costs_its_slide_and_says_why(slides, tmp_path):
    for name, (options, _) in BAD.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.tiff").symlink_to(slides / "a.tiff")
        write_coords(tmp_path / "c" / name / "x.h5", **options)
    for name in ("missing", "text", "twice", "good"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.tiff").symlink_to(slides / "a.tiff")
    (tmp_path / "c" / "text").mkdir()
    (tmp_path / "c" / "text" / "x.h5").write_text("no HDF5")
    for name in ("twice/x", "twice/x_patches", "good/x"):
        write_coords(tmp_path / "c" / f"{name}.h5", **clam(0, 64, 1))
    output = run(tmp_path / "in", tmp_path / "out", "--coords", tmp_path / "c", "--mpp", 0.25, "--tile", 64, "--workers", 1, code=1)
    assert "5 tiles of 1 of 12 slides" in output
    with (tmp_path / "out" / "slides.quarantine.csv").open() as file:
        reasons = {row["file"].split("/")[0]: row["reason"] for row in csv.DictReader(file)}
    expected = {name: why for name, (_, why) in BAD.items()} | {
        "missing": "has no coordinates: .* holds no missing__x.h5 or missing__x_patches.h5",
        "text": "not a readable HDF5 file",
        "twice": r"has 2 files of coordinates in .*: twice/x\.h5 and twice/x_patches\.h5",
    }
    assert reasons.keys() == expected.keys()
    for name, why in expected.items():
        assert re.search(why, reasons[name]), reasons[name]


def test_options_that_contradict_coordinates_are_refused(slides, tmp_path):
    write_coords(tmp_path / "c" / "a.h5")
    given = [slides, tmp_path / "out", "--coords", tmp_path / "c"]
    for more in (["--min-tissue", 0.2], ["--overlap", 16], ["--tissue-threshold", 10]):
        with pytest.raises(InputError, match="--coords takes the tiles of a file; do not pass"):
            run(*given, *more)
    with pytest.raises(InputError, match="pass --masks or --coords"):
        run(*given, "--masks", tmp_path)
    with pytest.raises(InputError, match="is one file for 2 slides"):
        run(slides, tmp_path / "out", "--coords", tmp_path / "c" / "a.h5")
    with pytest.raises(InputError, match=r"has coordinates for none of the 2 slides: it holds 1 HDF5 files, e\.g\. q\.h5"):
        write_coords(tmp_path / "d" / "q.h5")
        run(slides, tmp_path / "out", "--coords", tmp_path / "d")
    with pytest.raises(InputError, match="does not exist"):
        run(slides, tmp_path / "out", "--coords", tmp_path / "nowhere")


def test_changed_coordinates_are_tiled_again(slides, tmp_path):
    path = write_coords(tmp_path / "a.h5", **clam(0, 64, 1))
    given = [slides / "a.tiff", tmp_path / "out", "--coords", path, "--mpp", 0.25, "--tile", 64, "--workers", 1]
    run(*given)
    write_coords(path, CORNERS[:2], **clam(0, 64, 1))
    assert "1 finished slides are tiled again" in run(*given)
    assert len(Store.open(tmp_path / "out" / "a.h5")) == 2
