"""Tiles whose JPEG is damaged are counted with the words of the decoder, although OpenSlide decodes them; on request they are kept."""

import csv
import io

import numpy as np
import openslide
import pytest
from PIL import Image

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.slide import Slide
from encoders.store.store import Store
from tests.encoders.ingest.image_files import flip_until_warned
from tests.encoders.ingest.wsi.command import run
from tests.encoders.ingest.wsi.slide_files import jpeg_tile, tissue_like, write_jpeg_slide

DAMAGED_TILES = (5, 10)
WHOLE = [jpeg_tile(tissue_like(256, 256, seed)) for seed in range(16)]


def write_damaged_slide(path):
    """4 x 4 tiles; the data of two of them are damaged so that OpenSlide decodes them without an error."""
    tiles = [flip_until_warned(tile) if k in DAMAGED_TILES else tile for k, tile in enumerate(WHOLE)]
    return write_jpeg_slide(path, [(1024, 1024)], tiles, lambda level: np.arange(16).reshape(4, 4))


def test_a_region_with_a_damaged_tile_is_refused_and_its_neighbours_are_read(tmp_path):
    path = write_damaged_slide(tmp_path / "a.tiff")
    slide = Slide(path)
    for at in ((256, 256, 0, 256, 256), (500, 500, 0, 64, 64), (300, 200, 0, 10, 700)):
        with openslide.OpenSlide(path) as other:
            other.read_region(at[:2], 0, at[3:])  # OpenSlide does not notice
        with pytest.raises(Unreadable, match=r"is damaged at .*: damaged JPEG: .*(Corrupt|Huffman|premature)"):
            slide.read(*at)
    whole = np.asarray(Image.open(io.BytesIO(WHOLE[6])))
    np.testing.assert_array_equal(np.asarray(slide.read(512, 256, 0, 256, 256)), whole)
    assert slide.take_damage() == ""
    slide.close()


def test_damaged_tiles_are_counted_and_kept_on_request(tmp_path):
    (tmp_path / "in").mkdir()
    path = write_damaged_slide(tmp_path / "in" / "a.tiff")
    options = ("--mpp", "0.25", "--tile", "256", "--min-tissue", "0", "--max-white", "1", "--codec", "raw", "--workers", "1")
    output = run(tmp_path / "in", tmp_path / "out", *options, code=1)
    assert "14 tiles of 1 of 1 slides" in output
    assert "2 damaged" in output
    with (tmp_path / "out" / "slides.quarantine.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == "a.tiff"
    assert (
        "2 of its tiles cannot be read; the store holds the others (first: is damaged at (256, 256) of level 0: damaged JPEG: "
        in row["reason"]
    )
    assert {"a/256_256", "a/512_512"}.isdisjoint(Store.open(tmp_path / "out" / "a.h5").column("key"))

    output = run(tmp_path / "in", tmp_path / "accepted", *options, "--accept-damaged")
    assert "16 tiles of 1 of 1 slides" in output
    assert "2 tiles: damaged, and stored as decoded (--accept-damaged): " in output
    store = Store.open(tmp_path / "accepted" / "a.h5")
    keys, damage = store.column("key").tolist(), store.column("damage")
    assert {key for key, words in zip(keys, damage, strict=True) if words} == {"a/256_256", "a/512_512"}
    assert all("damaged JPEG: " in words for words in damage[damage != ""])
    with openslide.OpenSlide(path) as other:
        np.testing.assert_array_equal(
            store.image(keys.index("a/256_256")), np.asarray(other.read_region((256, 256), 0, (256, 256)))[..., :3]
        )
    np.testing.assert_array_equal(store.image(keys.index("a/0_0")), np.asarray(Image.open(io.BytesIO(WHOLE[0]))))
