"""Slides that are slightly coarser than their tiles are interpolated and counted; coarser ones name the --mpp that takes all."""

import csv

import pytest

from encoders.store.store import Store
from tests.encoders.ingest.wsi.command import run
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide


def small_slide(path, mpp):
    return write_slide(path, [draw_slide(768, 768, [(0, 0, 640, 640)])], mpp)


def test_slides_up_to_max_upscale_coarser_are_tiled_and_the_others_name_the_mpp_that_takes_all(tmp_path):
    small_slide(tmp_path / "in" / "exact.tiff", 0.25)
    for name, mpp in (("near", 0.2527), ("coarse", 0.2632), ("coarser", 0.50127)):
        small_slide(tmp_path / "in" / f"{name}.tiff", mpp)
    output = " ".join(run(tmp_path / "in", tmp_path / "out", "--mpp", 0.25, "--tile", 128, "--workers", 1, code=1).split())
    assert "1 slides are coarser than --mpp 0.25, and their tiles are interpolated: up to 1.011 times" in output
    assert "(--max-upscale 1.02; most: near)" in output
    with (tmp_path / "out" / "slides.quarantine.csv").open() as file:
        reasons = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {
        "coarse.tiff": "is 1.05 times too coarse for --mpp 0.25: it has 0.2632 um per pixel, and --max-upscale allows 1.02 times 0.25; "
        "--mpp 0.5013 takes all 2 such slides",
        "coarser.tiff": "is 2.01 times too coarse for --mpp 0.25: it has 0.50127 um per pixel, and --max-upscale allows 1.02 times 0.25; "
        "--mpp 0.5013 takes all 2 such slides",
    }
    near = Store.open(tmp_path / "out" / "near.h5")
    assert near.attrs["recipe"]["max_upscale"] == 1.02
    assert near.attrs["slide"]["upscale"] == pytest.approx(1.0108, abs=1e-4)
    assert set(near.column("mpp")) == {0.25}
    run(tmp_path / "in", tmp_path / "all", "--mpp", 0.5013, "--tile", 128, "--workers", 1)
    assert "upscale" not in Store.open(tmp_path / "all" / "coarser.h5").attrs["slide"]
    with pytest.raises(Exception, match=r"--max-upscale is 0\.98; expected a factor of 1 to 4"):
        run(tmp_path / "in", tmp_path / "x", "--tile", 128, "--max-upscale", 0.98, code=2)
