"""Real slides: JPEG and JPEG 2000, one without any resolution, DICOM, pyramids, broken files."""

import csv
import shutil

import numpy as np
import openslide
import pytest
from PIL import Image, ImageCms

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution, find_resolution
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_geometry import TileGeometry
from encoders.ingest.wsi.tile_plan import plan_tiles
from encoders.store.store import Store
from tests.encoders.ingest.wsi.test_cohort import run

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def wsi(request):
    from tests.conftest import DATA

    return DATA / "wsi"


def tissue_of(wsi):
    """The known (x, y, width, height) of the nine regions of real tissue on the synthetic array."""
    with (wsi / "derived" / "monuseg_tma_regions.csv").open() as file:
        return [tuple(int(row[name]) for name in "xywh") for row in csv.DictReader(file)]


def covered(x, y, side, regions):
    """The share of a square that lies in the regions."""
    return sum(max(0, min(x + side, a + w) - max(x, a)) * max(0, min(y + side, b + h) - max(y, b)) for a, b, w, h in regions) / side**2


@pytest.mark.parametrize("tile", [64, 128, 256])
def test_tiles_of_the_tissue_array_lie_on_its_tissue(wsi, tile):
    """Precision and recall of the tiles against the layout; missed tiles lie at the borders of the regions."""
    plan = plan_tiles(SlideItem("tma", wsi / "derived" / "monuseg_tma_pyramid.tiff", "tma"), TilingSettings(tile=tile))
    regions, side = tissue_of(wsi), tile * 2
    kept = set(zip(plan.x.tolist(), plan.y.tolist(), strict=True))
    every = kept | {tuple(at) for at in plan.rejected["little tissue"]}
    real = {at for at in every if covered(*at, side, regions) >= 0.5}
    found, missed, wrong = len(kept & real), sorted(real - kept), sorted(kept - real)
    print(f"tile {tile}: found {found} of {len(real)}, missed {missed}, without tissue {wrong}")
    assert found >= 0.95 * len(real)
    assert all(covered(*at, side, regions) < 1 for at in missed)
    assert all(covered(*at, side, regions) > 0.3 for at in wrong)
    assert all(any(covered(*at, side, [region]) for at in kept) for region in regions)


def test_half_a_micrometre_from_a_quarter_is_the_mean_of_four_pixels(wsi):
    """Exact for a file with L0 only; for a file with a second level, up to the compression of this level."""
    path = wsi / "derived" / "monuseg_tma_pyramid.tiff"
    slide, base = Slide(path), openslide.OpenSlide(path)
    cut = TileGeometry.for_resolution(slide.downsamples, find_resolution(slide.properties), 0.5, (256, 256))
    assert cut.level == 1
    for x, y in ((512, 512), (2048, 2560), (4096, 3600)):
        fine = np.asarray(base.read_region((x, y), 0, (512, 512)).convert("RGB")).astype(float)
        want = fine.reshape(256, 2, 256, 2, 3).mean((1, 3))
        apart = np.asarray(cut.read(slide, x, y)) - want  # level 1 is compressed separately, with chroma subsampling
        shifted = np.roll(np.asarray(cut.read(slide, x, y)), 1, axis=1) - want
        assert np.abs(apart).mean() < 0.5 * np.abs(shifted).mean()
        assert abs(apart.mean()) < 0.5
        single = TileGeometry.for_resolution((1.0,), Resolution(0.25, 0.25, "given"), 0.5, (256, 256))
        assert np.abs(np.asarray(single.read(slide, x, y)) - want).mean() < 0.5
    slide.close()
    base.close()


def test_a_slide_without_resolution_raises_and_with_one_uses_its_second_level(wsi):
    path = wsi / "tcga-cr-7395-01a-01-ts1.svs"
    with pytest.raises(Unreadable, match=r"pass --slide-mpp.*openslide\.quickhash-1=a07b51d4"):
        plan_tiles(SlideItem("a", path, "a"), TilingSettings())
    plan = plan_tiles(SlideItem("a", path, "a", mpp=0.25), TilingSettings())
    assert plan.cut.level == 1  # its downsample is 2.0005; OpenSlide would select level 0
    assert plan.facts["mpp_source"] == "given"
    assert len(plan.x) > 30


def test_a_profile_is_applied_on_request_and_recorded(wsi):
    path = wsi / "boxes.tiff"
    plain, managed = Slide(path), Slide(path, icc=True)
    assert (plain.icc, managed.icc, Slide(wsi / "small.svs", icc=True).icc) == ("not applied", "to sRGB", "no profile")
    pixels = plain.read(0, 0, 0, 64, 64)
    profile = openslide.OpenSlide(path).color_profile
    want = ImageCms.profileToProfile(Image.fromarray(np.asarray(pixels)), profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.array_equal(np.asarray(managed.read(0, 0, 0, 64, 64)), np.asarray(want))


def test_a_cohort_of_real_files_stores_good_slides_and_quarantines_bad_ones(wsi, tmp_path):
    for name in ("cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs", "broken.svs", "unreadable.svs", "small.svs", "boxes.tiff"):
        shutil.copy(wsi / name, tmp_path)
    (tmp_path / "dicom").mkdir()
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        shutil.copy(wsi / name, tmp_path / "dicom")
    output = run(
        tmp_path,
        tmp_path / "out",
        "--tile",
        16,
        "--mpp",
        0.499,
        "--min-tissue",
        0,
        "--max-tiles",
        8,
        "--min-sharpness",
        0,
        "--workers",
        1,
        code=1,
    )
    assert "of 3 of 7 slides" in output
    reasons = {row["file"]: row["reason"] for row in csv.DictReader((tmp_path / "out" / "slides.quarantine.csv").read_text().splitlines())}
    assert reasons.keys() == {"boxes.tiff", "broken.svs", "tcga-cr-7395-01a-01-ts1.svs", "unreadable.svs"}
    assert "marker" in reasons["unreadable.svs"]
    store = Store.open(f"{tmp_path}/out/*.h5")
    assert sorted(set(store.column("slide"))) == ["cmu-1-small-region", "dicom", "small"]
    dicom = np.flatnonzero(store.column("slide") == "dicom")
    assert len(dicom) == 1
    want = np.asarray(openslide.OpenSlide(wsi / "boxes_0.dcm").read_region((0, 0), 0, (16, 16)).convert("RGB")).astype(int)
    assert np.abs(store.image(int(dicom[0])).astype(int) - want).mean() < 12  # JPEG of small coloured boxes
