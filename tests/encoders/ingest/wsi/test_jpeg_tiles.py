"""Tiles decoded directly from the file have the pixels of OpenSlide, which reads all other tiles."""

import io
import os

import numpy as np
import openslide
import pytest
from PIL import Image

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi import slide as slides
from encoders.ingest.wsi.jpeg_tiles import JpegTiles
from encoders.ingest.wsi.slide import Slide
from tests.conftest import DATA
from tests.encoders.ingest.wsi.slide_files import jpeg_tile, tissue_like, write_jpeg_slide


def read_with_openslide(path, x, y, level, width, height):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((x, y), level, (width, height)).convert("RGB"))


@pytest.fixture
def jpeg_slide(tmp_path):
    """1,000 x 900 pixels in 4 x 4 tiles of five images, and a second level."""
    pictures = [jpeg_tile(tissue_like(256, 256, seed)) for seed in range(5)]
    grids = {0: np.arange(16).reshape(4, 4) % 5, 1: np.arange(4).reshape(2, 2)}
    return write_jpeg_slide(tmp_path / "made.tiff", [(1000, 900), (500, 450)], pictures, grids.get)


ON_DISK = {"cmu-1-small-region.svs": [0], "derived/monuseg_tma_pyramid.tiff": [0, 1, 2], "derived/cmu1_region_pyramid.tiff": [0]}


@pytest.mark.real
@pytest.mark.parametrize(("name", "levels"), ON_DISK.items())
def test_on_real_slides_the_pixels_are_those_of_openslide(name, levels):
    path = DATA / "wsi" / name
    slide, rng = Slide(path), np.random.default_rng(0)
    for level in levels:
        width, height = slide.levels[level]
        for _ in range(25):
            x, y = int(rng.integers(0, width - 300)), int(rng.integers(0, height - 300))
            at = (round(x * slide.downsamples[level]), round(y * slide.downsamples[level]), level, 300, 256)
            assert np.array_equal(np.asarray(slide.read(*at)), read_with_openslide(path, *at))
        assert isinstance(slide._direct[level], JpegTiles)
        assert slide._direct[level].kept, "no tile was read directly"
    slide.close()


@pytest.mark.parametrize("at", [(100, 130, 0, 256, 256), (0, 0, 0, 600, 300), (200, 100, 1, 256, 256)])
def test_a_region_over_several_tiles_is_assembled(jpeg_slide, at):
    slide = Slide(jpeg_slide)
    assert np.array_equal(np.asarray(slide.read(*at)), read_with_openslide(jpeg_slide, *at))
    assert slide._direct[at[2]].kept
    slide.close()


def test_outside_the_border_is_the_background(jpeg_slide):
    slide = Slide(jpeg_slide)
    assert slide._read_direct(900, 800, 0, 256, 256) is None
    assert (np.asarray(slide.read(900, 800, 0, 256, 256))[150:, 150:] == 255).all()
    slide.close()


def test_a_position_between_pixels_is_read_by_openslide(jpeg_slide):
    slide = Slide(jpeg_slide)
    assert slide._read_direct(201, 100, 1, 64, 64) is None  # pixel 100.5 of the level
    slide.close()


def test_a_level_with_a_fractional_downsample_gives_its_own_pixels(tmp_path):
    """Pixel 101 of a level 2.004 times smaller is the L0 position 202.4, but OpenSlide only reads at 202."""
    pictures = [jpeg_tile(tissue_like(256, 256, seed)) for seed in range(4)]
    path = write_jpeg_slide(
        tmp_path / "odd.tiff", [(1000, 900), (499, 449)], pictures, {0: np.zeros((4, 4), int), 1: np.arange(4).reshape(2, 2)}.get
    )
    stored = [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures]
    want = np.vstack([np.hstack(stored[:2]), np.hstack(stored[2:])])[70:270, 101:301]
    slide = Slide(path)
    x, y = round(101 * slide.downsamples[1]), round(70 * slide.downsamples[1])
    got = np.asarray(slide.read(x, y, 1, 200, 200, nearest=True)).astype(float)
    blurred = np.asarray(slide.read(x, y, 1, 200, 200)).astype(float)
    slide.close()
    assert np.array_equal(got, want)
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.97 * np.abs(np.diff(want.astype(float), axis=1)).mean()


def test_tiles_that_differ_from_openslide_are_read_by_openslide(jpeg_slide, monkeypatch):
    region = JpegTiles.read_region
    monkeypatch.setattr(JpegTiles, "read_region", lambda self, *at: 255 - region(self, *at))
    slide = Slide(jpeg_slide)
    for _ in range(2):
        assert np.array_equal(np.asarray(slide.read(10, 20, 0, 128, 128)), read_with_openslide(jpeg_slide, 10, 20, 0, 128, 128))
    assert slide._direct[0] is None
    slide.close()


def test_the_check_of_a_level_does_not_depend_on_the_first_region(tmp_path):
    """Level 1 has a fractional downsample, a striped first tile and an empty last tile; the order of reads does not change its pixels."""
    stripes = np.repeat(np.tile(np.uint8([30, 220]), 128)[:, None, None], 256, 1).repeat(3, 2)
    glass = np.full((256, 256, 3), 243, np.uint8)
    pictures = [jpeg_tile(each) for each in (stripes, tissue_like(256, 256, 0), tissue_like(256, 256, 1), glass)]
    grids = {0: np.zeros((4, 4), int), 1: np.arange(4).reshape(2, 2)}
    path = write_jpeg_slide(tmp_path / "mixed.tiff", [(1000, 900), (499, 449)], pictures, grids.get)
    found = []
    for order in (1, -1):
        slide = Slide(path)
        at = [tuple(round(k * slide.downsamples[1]) for k in corner) for corner in ((3, 7), (120, 101), (290, 250))][::order]
        found.append([np.asarray(slide.read(*corner, 1, 190, 180, nearest=True)) for corner in at][::order])
        slide.close()
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_a_damaged_tile_raises_and_its_neighbours_are_read(jpeg_slide):
    slide = Slide(jpeg_slide)
    tiles = slide._direct.setdefault(0, slides.open_jpeg_tiles(jpeg_slide, "generic-tiff", (1000, 900), 1 << 20))
    slide.close()
    with jpeg_slide.open("r+b") as file:
        file.seek(int(tiles.offsets[0]))
        file.write(bytes(int(tiles.counts[0])))
    slide = Slide(jpeg_slide)
    with pytest.raises(Unreadable, match="damaged at"):
        slide.read(0, 0, 0, 64, 64)
    assert np.array_equal(np.asarray(slide.read(300, 0, 0, 64, 64)), read_with_openslide(jpeg_slide, 300, 0, 0, 64, 64))
    slide.close()


def test_closing_a_slide_closes_its_files(jpeg_slide):
    slide = Slide(jpeg_slide)
    slide.read(0, 0, 0, 64, 64)
    file = slide._direct[0].file
    slide.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file)


def test_the_memory_of_decoded_tiles_is_bounded(jpeg_slide):
    tiles = slides.open_jpeg_tiles(jpeg_slide, "generic-tiff", (1000, 900), 3 * 256 * 256 * 4)
    for number in range(16):
        tiles.decode_tile(number)
    assert list(tiles.kept) == [12, 13, 14, 15]
    tiles.close()


def test_other_vendors_and_files_that_are_not_tiff_are_not_read_directly(jpeg_slide, tmp_path):
    assert slides.open_jpeg_tiles(jpeg_slide, "trestle", (1000, 900), 1 << 20) is None  # its tiles overlap
    (tmp_path / "no.tiff").write_bytes(b"II*\0no TIFF")
    assert slides.open_jpeg_tiles(tmp_path / "no.tiff", "generic-tiff", (1000, 900), 1 << 20) is None
