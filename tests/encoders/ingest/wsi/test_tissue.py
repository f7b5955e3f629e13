"""Tissue detection, quality of tiles, and hand-drawn regions."""

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFilter

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.glass import hsv_saturation
from encoders.ingest.wsi.mpp import Resolution
from encoders.ingest.wsi.quality import QUALITY_MPP, TileQuality, measure_quality, measure_sharpness, shrink_tile
from encoders.ingest.wsi.regions import Region, allowed_mask, paint_regions, read_regions
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide, scanned_bounds
from encoders.ingest.wsi.tile_geometry import TileGeometry
from encoders.ingest.wsi.tissue import MaskCoverage, Overview, read_overview, read_tissue_mask, tissue_mask
from tests.encoders.ingest.wsi.slide_files import draw_slide, tissue_like, write_slide


def test_saturation_is_that_of_hsv():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image[0, 0] = 0
    want = np.asarray(Image.fromarray(image).convert("HSV"))[..., 1].astype(int)
    assert np.abs(hsv_saturation(image).astype(int) - want).max() <= 1


def view_of(image, mpp=8.0):
    return Overview(image, (0, 0), (mpp / 0.25, mpp / 0.25), mpp, np.zeros(image.shape[:2], bool))


def test_tissue_is_found_specks_are_not_and_small_gaps_close():
    image = np.full((120, 120, 3), 242, np.uint8)
    image[20:80, 30:90] = (200, 120, 170)
    image[50:54, 60:64] = 242  # a gap of 32 um
    image[100:104, 100:104] = (200, 120, 170)  # a speck of 32 um
    found = tissue_mask(view_of(image))
    assert found[20:80, 30:90].all()
    assert found.sum() == 60 * 60
    image[20:80, 30:90] = 242
    assert not tissue_mask(view_of(image)).any()


def test_glass_alone_is_not_tissue():
    noise = np.random.default_rng(0).normal(242, 1.2, (100, 100, 3))
    assert not tissue_mask(view_of(np.clip(noise, 0, 255).astype(np.uint8))).any()


def test_the_overview_is_the_mean_of_its_pixels_across_blocks(tmp_path):
    base = tissue_like(1200, 2240)
    slide = Slide(write_slide(tmp_path / "a.tiff", [base], mpp=1.0))
    view = read_overview(slide, Resolution(1.0, 1.0, "given"), 8.0)
    want = base.reshape(150, 8, 280, 8, 3).mean((1, 3))
    assert view.image.shape == (150, 280, 3)
    assert np.abs(view.image - want).max() <= 1
    slide.close()


def test_share_is_the_area_of_the_mask_in_a_rectangle():
    mask = np.random.default_rng(0).random((30, 40)) < 0.4
    fine = np.kron(mask, np.ones((32, 32)))  # the mask at L0
    share = MaskCoverage(mask, blank(30, 40))
    x, y = np.array([0, 17, 333, 900]), np.array([0, 250, 77, 600])
    want = [fine[b : b + 200, a : a + 300].mean() for a, b in zip(x, y, strict=True)]
    assert share(x, y, (300.0, 200.0)) == pytest.approx(want, abs=1e-9)


def test_a_mask_may_have_any_size_but_not_any_aspect_ratio(tmp_path):
    view = blank(50, 100)
    Image.fromarray(np.repeat([[0, 255]], 20, 0).repeat(20, 1).astype(np.uint8)).save(tmp_path / "m.png")  # right half
    mask = read_tissue_mask(tmp_path / "m.png", view, (3200, 1600))
    assert not mask[:, :50].any()
    assert mask[:, 50:].all()
    with pytest.raises(Unreadable, match=r"is 3200 x 3200, its mask 40 x 20"):
        read_tissue_mask(tmp_path / "m.png", view, (3200, 3200))


def test_sharpness_equals_its_definition_and_falls_with_blur():
    tile = Image.fromarray(tissue_like(256, 256))
    little = np.asarray(shrink_tile(tile, 0.5).convert("L")).astype(float)
    laplacian = [
        little[i - 1, j] + little[i + 1, j] + little[i, j - 1] + little[i, j + 1] - 4 * little[i, j]
        for i in range(1, 63)
        for j in range(1, 63)
    ]
    gray = measure_quality([shrink_tile(tile, 0.5)])[1]
    assert gray.shape == (1, 64, 64)
    assert measure_sharpness(gray)[0] == pytest.approx(np.var(laplacian), rel=1e-4)
    both, _ = measure_quality([shrink_tile(tile.rotate(90), 0.5), shrink_tile(tile, 0.5)])
    assert both[1] == measure_one(shrink_tile(tile, 0.5))  # alone or in a batch
    blurred = [measure_one(shrink_tile(tile.filter(ImageFilter.GaussianBlur(r)), 0.5)).sharpness for r in (0, 2, 4, 8)]
    assert all(a > 2 * b for a, b in pairwise(blurred))


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.7, 1.0])
def test_quality_is_measured_at_one_resolution_for_all_tiles(mpp):
    width = round(256 * 0.25 / mpp)
    tile = Image.fromarray(tissue_like(1024, 1024)).resize((4 * width, 4 * width), Image.Resampling.BOX)
    assert shrink_tile(tile, mpp).size == pytest.approx((128, 128), abs=1)  # 256 um
    assert QUALITY_MPP == 2.0


def blank(height, width):
    """A black overview with 32 L0 pixels per pixel."""
    return Overview(np.zeros((height, width, 3), np.uint8), (0, 0), (32.0, 32.0), 8.0, np.zeros((height, width), bool))


def measure_one(picture):
    return measure_quality([picture])[0][0]


def test_a_nearly_integer_reduction_is_averaged_without_resampling():
    tile = Image.fromarray(tissue_like(256, 256))
    assert shrink_tile(tile, 0.499) == tile.reduce(4)  # 1.996 um: within the accuracy of scanners
    assert shrink_tile(tile, 0.49).size == (63, 63)
    assert shrink_tile(tile, 1.3).size == (166, 166)  # not a whole number of pixels: resampled


def test_each_rejection_has_its_reason():
    limits = TilingSettings()
    faults = {(250, 249, 250): "white", (8, 8, 8): "black", (20, 80, 200): "pen", (30, 150, 60): "pen", (200, 120, 170): "blurred"}
    assert {colour: measure_one(Image.new("RGB", (64, 64), colour)).rejection_reason(limits) for colour in faults} == faults
    assert measure_one(shrink_tile(Image.fromarray(tissue_like(256, 256)), 0.5)).rejection_reason(limits) == ""
    assert TileQuality(99.0, 0, 0, 0).rejection_reason(limits) == "blurred"
    assert TileQuality(99.0, 0, 0, 0).rejection_reason(TilingSettings(min_sharpness=90)) == ""


def feature(name, rings, kind="Polygon"):
    properties = {"objectType": "annotation"} | ({"classification": {"name": name, "color": [1, 2, 3]}} if name else {})
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": rings}, "properties": properties}


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def test_regions_as_qupath_writes_them_with_holes_parts_and_classes(tmp_path):
    hole = feature("Tumor", [square(320, 320, 1600), square(960, 960, 320)])
    parts = feature("Artefact", [[square(320, 320, 160)], [square(1600, 1600, 320)]], "MultiPolygon")
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    view = blank(80, 80)
    for content in ({"type": "FeatureCollection", "features": [hole, parts, point]}, [hole, parts, point]):
        path = tmp_path / "r.geojson"
        path.write_text(json.dumps(content))
        regions = read_regions(path)
        assert [r.name for r in regions] == ["Tumor", "Artefact"]
        tumour = allowed_mask(regions, ["Tumor"], [], view)
        assert tumour.sum() == pytest.approx(50 * 50 - 10 * 10, rel=0.05)
        assert not tumour[35, 35]
        assert not allowed_mask(regions, [], ["Artefact"], view)[11, 11]
        assert allowed_mask(regions, [], ["Artefact"], view)[25, 25]
        assert not allowed_mask(regions, ["Stroma"], [], view).any()
        assert allowed_mask(regions, [], ["Tumor", "Artefact"], view)[75, 75]  # no region to include: the rest of the slide stays
    path.write_text("{]")
    with pytest.raises(Unreadable, match="not GeoJSON"):
        read_regions(path)


def inside(x, y, ring):
    """Whether a point lies in a polygon: edges crossed by a ray to the right, one at a time."""
    crossed = 0
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        crossed += (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0)
    return crossed % 2 == 1


def test_a_pixel_belongs_to_a_region_by_its_centre():
    view, rng = blank(24, 30), np.random.default_rng(0)
    exact = paint_regions([Region("", [[square(64, 64, 512)]])], view)
    assert exact.sum() == 256, "16 x 16 pixels, and no outline"
    hole = paint_regions([Region("", [[square(0, 0, 640), square(64, 64, 320)]])], view)
    assert hole.sum() == 400 - 100
    for _ in range(20):
        rings = [
            rng.uniform(-200, 1100, (n, 2)) for n in rng.integers(3, 9, rng.integers(1, 4))
        ]  # they intersect themselves and the border
        got = paint_regions([Region("", [[ring.tolist() for ring in rings]])], view)
        want = [[sum(inside(32 * (c + 0.5), 32 * (r + 0.5), ring.tolist()) for ring in rings) % 2 for c in range(30)] for r in range(24)]
        assert np.array_equal(got, np.array(want, bool))
    assert paint_regions([Region("", [[square(0, 0, 64)], [square(32, 32, 64)]])], view).sum() == 7, "two polygons that overlap are a union"


def test_a_feature_without_geometry_is_left_out(tmp_path):
    (tmp_path / "r.geojson").write_text(json.dumps([feature("Tumor", [square(0, 0, 64)]), {"type": "Feature", "geometry": None}]))
    assert [region.name for region in read_regions(tmp_path / "r.geojson")] == ["Tumor"]
    for odd in (float("nan"), float("inf")):
        (tmp_path / "r.geojson").write_text(json.dumps(feature("Artefact", [[[0, 0], [64, odd], [64, 64]]])))
        with pytest.raises(Unreadable, match=f"a coordinate is '{odd}', expected pixels of the slide"):
            read_regions(tmp_path / "r.geojson")


def test_transparent_pixels_get_the_background_of_the_slide(tmp_path):
    base = np.concatenate([tissue_like(512, 512), np.full((512, 512, 1), 255, np.uint8)], axis=2)
    base[:, 256:, 3] = 0
    base[:, 256:, :3] = 0  # unscanned areas are black under the alpha channel
    slide = Slide(write_slide(tmp_path / "a.tiff", [base]))
    image = np.asarray(slide.read(0, 0, 0, 512, 512))
    outside = np.asarray(slide.read(480, 480, 0, 64, 64))
    assert np.array_equal(image[:, :256], base[:, :256, :3])
    assert (image[:, 256:] == 255).all()
    assert (outside[40:, 40:] == 255).all()
    slide.background = "#f0e8f4"
    assert (np.asarray(slide.read(5000, 5000, 0, 8, 8)) == (0xF0, 0xE8, 0xF4)).all()
    slide.close()


def test_a_missing_level_raises(tmp_path):
    slide = Slide(write_slide(tmp_path / "a.tiff", [tissue_like(512, 512)]))
    with pytest.raises(ValueError, match="level 7 of 1"):
        slide.read(0, 0, 7, 8, 8)
    slide.close()


def test_the_grid_starts_and_ends_at_the_bounds():
    said = {"openslide.bounds-x": "1000", "openslide.bounds-y": "300", "openslide.bounds-width": "5000", "openslide.bounds-height": "700"}
    assert scanned_bounds(said, (9000, 900)) == (1000, 300, 5000, 600)
    assert scanned_bounds({}, (9000, 900)) == (0, 0, 9000, 900)
    cut = TileGeometry.for_resolution((1.0,), Resolution(0.5, 0.5, "given"), 0.5, (256, 256))
    assert cut.positions(1000, 600, 0, 0) == [1000, 1256]


def test_the_tissue_mask_covers_the_drawn_tissue(tmp_path):
    boxes = [(512, 256, 1024, 1024), (256, 2048, 768, 1280)]
    slide = Slide(write_slide(tmp_path / "a.tiff", [draw_slide(2048, 4096, boxes)], mpp=1.0))
    found = tissue_mask(read_overview(slide, Resolution(1.0, 1.0, "given"), 8.0))
    want = np.zeros((256, 512), bool)
    for top, left, h, w in boxes:
        want[top // 8 : (top + h) // 8, left // 8 : (left + w) // 8] = True
    assert (found & want).sum() / (found | want).sum() > 0.97
    slide.close()
