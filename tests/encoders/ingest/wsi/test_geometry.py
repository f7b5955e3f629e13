"""Tiles have the requested field of view and resolution for any levels of the slide."""

import numpy as np
import pytest
from PIL import Image

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.mpp import Resolution, find_resolution
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.tile_geometry import TileGeometry, TooCoarse, best_level
from tests.encoders.ingest.wsi.slide_files import halve_image, tissue_like, write_slide

PERIOD = 97.3  # L0 pixels


def waves(width, height, downsample):
    """A level of a slide that shows vertical waves of PERIOD L0 pixels."""
    middle = (np.arange(width) + 0.5) * downsample
    row = np.rint(128 + 100 * np.sin(2 * np.pi * middle / PERIOD)).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def field_seen(tile):
    """Width of a tile of waves in L0 pixels: the frequency that fits its middle row best."""
    row = tile[tile.shape[0] // 2, :, 0].astype(float)
    place = np.arange(len(row)) + 0.5

    def misfit(width):
        turn = 2 * np.pi * place * width / len(row) / PERIOD
        basis = np.stack([np.sin(turn), np.cos(turn), np.ones_like(turn)], 1)
        return np.linalg.lstsq(basis, row, rcond=None)[1][0]

    widths = np.linspace(600, 1400, 8001)
    return widths[np.argmin([misfit(w) for w in widths])]


@pytest.mark.parametrize(("sizes", "downsample", "mpp", "want"), [
    ([(4001, 1199), (1001, 300)], 3.997, 1.0, 1024),
    ([(4001, 1201), (2000, 600)], 2.0011, 0.5, 1024 * 0.5),
    ([(4001, 4001), (2000, 2000)], 2.0005, 0.5, 1024 * 0.5),
    ([(4001, 1199), (1001, 300)], 3.997, 0.8, 1024 * 0.8),
])  # fmt: skip
def test_the_field_of_view_is_right_whatever_the_downsample(tmp_path, sizes, downsample, mpp, want):
    levels = [waves(w, h, sizes[0][0] / w) for w, h in sizes]
    slide = Slide(write_slide(tmp_path / "a.tiff", levels))
    assert slide.downsamples[1] == pytest.approx(downsample, rel=2e-4)
    tile = 256 if mpp != 0.5 else 512
    cut = TileGeometry.for_resolution(slide.downsamples, Resolution(0.25, 0.25, "given"), mpp, (tile, 256))
    assert cut.level == (0 if mpp == 0.8 else 1)
    seen = field_seen(np.asarray(cut.read(slide, 100, 40)))
    assert seen == pytest.approx(tile * mpp / 0.25, rel=0.005)
    slide.close()


def test_a_level_may_be_one_percent_too_coarse_but_not_two():
    assert best_level((1.0, 2.0005), 2.0) == 1
    assert best_level((1.0, 2.04), 2.0) == 0
    assert best_level((1.0, 4.0, 16.0), 15.9) == 2
    assert best_level((1.0, 4.0), 0.5) is None
    with pytest.raises(TooCoarse, match=r"is 2\.00 times too coarse for --mpp 0\.25: it has 0\.5 um per pixel") as error:
        TileGeometry.for_resolution((1.0, 4.0), Resolution(0.5, 0.45, "given"), 0.25, (256, 256))
    assert error.value.mpp == 0.5


@pytest.mark.parametrize(("slide_mpp", "max_upscale", "fits"), [
    (0.2527, 1.02, True), (0.2551, 1.02, False), (0.2527, 1.01, False), (0.2506, 1.0, True), (0.251, 1.0, False), (0.3, 1.2, True),
])  # fmt: skip
def test_only_the_finest_level_may_be_coarser_by_max_upscale(slide_mpp, max_upscale, fits):
    wanted = 0.25 / slide_mpp
    assert best_level((1.0, 4.0), wanted, max_upscale) == (0 if fits else None)
    assert best_level((1.0, 2 * slide_mpp / 0.25 * 1.015), 2.0, 1.2) == 0, "1.5 % too coarse, and a finer one exists"


def test_a_slide_within_max_upscale_gives_tiles_of_the_exact_field(tmp_path):
    """0.2527 um for 0.25: a tile of 512 pixels shows 128 um, which are 506.5 pixels of the slide."""
    slide = Slide(write_slide(tmp_path / "a.tiff", [waves(1400, 600, 1)], mpp=0.2527))
    cut = TileGeometry.for_resolution(slide.downsamples, find_resolution(slide.properties), 0.25, (1024, 512), 1.02)
    assert cut.upscale == pytest.approx(1.0108, abs=1e-4)
    assert field_seen(np.asarray(cut.read(slide, 100, 40))) == pytest.approx(1024 * 0.25 / 0.2527, rel=0.001)
    slide.close()


@pytest.mark.parametrize("levels", [1, 2])
def test_half_the_resolution_is_the_mean_of_four_pixels(tmp_path, levels):
    base = tissue_like(1024, 1200)
    pyramid = [base, halve_image(base)][:levels]
    slide = Slide(write_slide(tmp_path / "a.tiff", pyramid))
    cut = TileGeometry.for_resolution(slide.downsamples, Resolution(0.25, 0.25, "given"), 0.5, (256, 256))
    got = np.asarray(cut.read(slide, 512, 256)).astype(int)
    want = halve_image(base)[128:384, 256:512].astype(int)
    assert np.abs(got - want).mean() <= 1
    slide.close()


@pytest.mark.parametrize("mpp", [0.33, 0.5 * 0.996, 0.73])
def test_neighbouring_tiles_are_parts_of_one_resized_image(tmp_path, mpp):
    """Against Pillow's antialiased bicubic of the whole slide: no seam, no shift."""
    base = np.asarray(Image.fromarray(tissue_like(1024, 1024)).resize((1024, 1024), Image.Resampling.BILINEAR, box=(0, 0, 512, 512)))
    slide = Slide(write_slide(tmp_path / "a.tiff", [base]))
    cut = TileGeometry.for_resolution(slide.downsamples, Resolution(0.25, 0.25, "given"), mpp, (96, 96))
    xs, ys = cut.positions(0, 1024, 0, 0), cut.positions(0, 1024, 1, 0)
    differences = []
    for y in ys[1:3]:
        for x in xs[1:3]:
            box = (x, y, x + cut.field[0], y + cut.field[1])
            margin = 64 / cut.field[0] * 96  # of the result around the tile, cut off again: Pillow's filter ends at a box
            out = 96 + 2 * round(margin)
            grown = cut.field[0] / 96 * round(margin)
            whole = Image.fromarray(base).resize(
                (out, out), Image.Resampling.BICUBIC, box=(x - grown, y - grown, box[2] + grown, box[3] + grown)
            )
            want = np.asarray(whole)[round(margin) : -round(margin), round(margin) : -round(margin)].astype(int)
            differences.append(np.abs(np.asarray(cut.read(slide, x, y)).astype(int) - want).mean())
    assert max(differences) <= 1
    slide.close()


def test_positions_do_not_drift_and_stay_inside():
    cut = TileGeometry.for_resolution((1.0, 3.997), Resolution(0.25, 0.25, "given"), 1.0, (256, 256))
    xs = cut.positions(0, 100_000, 0, 0)
    assert len(xs) == 97  # 100,000 / 1,024 = 97.66
    assert np.abs(np.array(xs) - np.arange(97) * 1024).max() <= 3.997 / 2 + 0.5
    assert xs[-1] + 1024 <= 100_000
    half = cut.positions(0, 100_000, 0, 128)
    assert np.diff(half).mean() == pytest.approx(512, rel=1e-3)
    assert cut.positions(0, 1000, 0, 0) == []


def test_a_nearly_exact_size_is_not_resampled_and_its_mpp_is_recorded():
    cut = TileGeometry.for_resolution((1.0,), Resolution(0.499, 0.499, "metadata"), 0.5, (256, 256))
    assert cut.is_exact
    assert cut.actual_mpp(0.5) == pytest.approx(0.499)
    assert TileGeometry.for_resolution((1.0,), Resolution(0.495, 0.495, "metadata"), 0.5, (256, 256)).actual_mpp(0.5) == 0.5
    assert TileGeometry.for_resolution((1.0,), Resolution(0.25, 0.25, "metadata"), 0.5, (256, 256)).actual_mpp(0.5) == 0.5


def test_oblong_pixels_give_square_tiles(tmp_path):
    """A disc that is 200 um wide and high on a slide whose pixels are 0.25 um wide and 0.5 um high."""
    y, x = np.mgrid[0:512, 0:1024]
    disc = ((x - 500) * 0.25) ** 2 + ((y - 250) * 0.5) ** 2 <= 100**2
    base = np.where(disc[..., None], np.uint8(40), np.uint8(240)).repeat(3, axis=2)
    slide = Slide(write_slide(tmp_path / "a.tiff", [base]))
    cut = TileGeometry.for_resolution(slide.downsamples, Resolution(0.25, 0.5, "given"), 1.0, (240, 240))
    dark = np.asarray(cut.read(slide, 0, 0))[..., 0] < 128
    assert dark.any(0).sum() == pytest.approx(200, abs=2)
    assert dark.any(1).sum() == pytest.approx(200, abs=2)
    slide.close()


FULL = {
    "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26", "aperio.MPP": "0.27", "openslide.objective-power": "20",
    "tiff.XResolution": "40000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter",
}  # fmt: skip


def test_the_resolution_comes_from_the_first_source_and_names_it():
    found = []
    properties = dict(FULL)
    for gone in (None, "openslide.mpp-x", "aperio.MPP", "tiff.ResolutionUnit"):
        properties.pop(gone, None)
        found.append(find_resolution(properties))
    assert found == [
        Resolution(0.25, 0.26, "metadata"), Resolution(0.27, 0.27, "aperio.MPP"),
        Resolution(0.25, 0.5, "TIFF tags"), Resolution(0.5, 0.5, "objective power (estimated)"),
    ]  # fmt: skip
    assert find_resolution(FULL, 0.3) == Resolution(0.3, 0.3, "given")
    assert found[0].oblong
    assert not found[1].oblong


def test_inches_are_converted_and_the_resolution_of_a_printer_is_ignored():
    assert find_resolution({"tiff.XResolution": "101600", "tiff.YResolution": "101600", "tiff.ResolutionUnit": "inch"}).x == pytest.approx(
        0.25
    )
    dpi = {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch", "openslide.mpp-x": "many"}
    with pytest.raises(Unreadable, match=r"TIFF tags: 352\.778 um.*--slide-mpp.*tiff\.XResolution=72"):
        find_resolution(dpi)
