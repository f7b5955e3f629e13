"""Aperio slides with JPEG 2000 tiles, which OpenSlide decodes: exact pixels, and what it says of a damaged tile is the reason."""

import numpy as np
import pytest
import tifffile

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.jpeg2000_tiles import Jpeg2000Tiles
from encoders.ingest.wsi.slide import Slide
from tests.encoders.ingest.wsi.slide_files import tissue_like

SIDE, TILE = 128, 64
PIXELS = tissue_like(SIDE, SIDE, 1)
DESCRIPTION = f"Aperio Image Library v11.2.1\n{SIDE}x{SIDE} [0,0 {SIDE}x{SIDE}] ({TILE}x{TILE}) J2K/KDU Q=70|AppMag = 20|MPP = 0.5"
LOSSLESS_RGB = 33005  # Aperio's number of JPEG 2000 without a transform of colours
YCBCR = 33003


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.svs"
    options = {"photometric": "rgb", "compression": LOSSLESS_RGB, "description": DESCRIPTION, "metadata": None}
    tifffile.imwrite(path, PIXELS, tile=(TILE, TILE), **options)
    return path


def read_tiles(path):
    slide = Slide(path)
    try:
        return {(x, y): np.asarray(slide.read(x, y, 0, TILE, TILE)) for x in (0, TILE) for y in (0, TILE)}
    finally:
        slide.close()


def test_tiles_are_read_exactly(path):
    for (x, y), tile in read_tiles(path).items():
        np.testing.assert_array_equal(tile, PIXELS[y : y + TILE, x : x + TILE])


def change_tile(path, number, change):
    with tifffile.TiffFile(path) as file:
        start, count = file.pages.first.dataoffsets[number], file.pages.first.databytecounts[number]
    data = bytearray(path.read_bytes())
    change(data, start, count)
    path.write_bytes(data)


@pytest.mark.parametrize("marker", [b"\xff\x4f\xff\x51", b"\xff\x52", b"\xff\x93"], ids=["SOC and SIZ", "COD", "SOD"])
def test_a_tile_whose_headers_are_damaged_is_refused_with_its_place(path, marker):
    def damage(data, start, count):
        at = data.index(marker, start, start + count)
        data[at : at + len(marker)] = bytes(len(marker))

    change_tile(path, 1, damage)
    with pytest.raises(Unreadable, match=r"^is damaged at \(64, 0\) of level 0: [^\n]+$"):
        read_tiles(path)


def test_a_file_that_was_cut_off_is_refused(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unreadable, match=r"cannot be opened: [^\n]+$"):
        read_tiles(path)


def test_tiles_are_decoded_directly_and_as_openslide_does(path, monkeypatch):
    slide = Slide(path)
    want = np.asarray(slide._read_composited(10, 20, 0, 100, 90))
    monkeypatch.setattr(Slide, "_read_composited", lambda *_: pytest.fail("read by OpenSlide"))
    slide._direct[0] = slide._open_tiles(0)
    assert isinstance(slide._direct[0], Jpeg2000Tiles)
    np.testing.assert_array_equal(np.asarray(slide.read(10, 20, 0, 100, 90)), want)
    slide.close()


def test_tiles_that_do_not_agree_with_openslide_are_read_by_openslide(path, monkeypatch):
    decode = Jpeg2000Tiles.decode_stream
    monkeypatch.setattr(Jpeg2000Tiles, "decode_stream", lambda self, data: 255 - decode(self, data))
    for (x, y), tile in read_tiles(path).items():
        np.testing.assert_array_equal(tile, PIXELS[y : y + TILE, x : x + TILE])


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_tiles_stored_as_ycbcr_are_decoded_to_the_colours_of_openslide(tmp_path, photometric):
    """All pairs of chroma values, at random brightness; OpenSlide does not look at the photometric tag."""
    path = tmp_path / "b.svs"
    blue, red = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([np.random.default_rng(0).integers(0, 256, blue.shape), blue, red], axis=-1).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", compression=YCBCR, description=DESCRIPTION, metadata=None, tile=(TILE, TILE))
    if photometric == "ycbcr":
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages.first.tags["PhotometricInterpretation"].overwrite(6)
    slide = Slide(path)
    assert isinstance(slide._open_tiles(0), Jpeg2000Tiles)
    np.testing.assert_array_equal(slide._read_direct(0, 0, 0, 256, 256), np.asarray(slide._read_composited(0, 0, 0, 256, 256)))
    slide.close()
