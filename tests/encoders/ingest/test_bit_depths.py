"""Images of 12 bits beside images of 16: found per image at ingest and in a finished store, and mapped by `--bits auto`."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.doctor.checks import examine_store
from encoders.ingest.folder import FolderSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.bit_depth import group_by_depth
from encoders.store.store import Store
from tests.encoders.ingest.image_files import texture


@pytest.mark.parametrize(
    ("tops", "want"),
    [
        ([4095, 65535], [(12, 1), (16, 1)]),
        ([3100, 4000, 2900, 52000, 65535], [(12, 3), (16, 2)]),
        ([1000, 16000, 60000], [(10, 1), (14, 1), (16, 1)]),
        ([255, 65535, 200], [(8, 2), (16, 1)]),
        ([2100, 3000, 4095], [(12, 3)]),
        ([40000, 50000, 65535], [(16, 3)]),
        ([1500, 2500, 3900, 6000, 9000, 15000, 29000, 50000], [(16, 8)]),  # no gap: images of any brightness
        ([16383, 40000], [(14, 1), (16, 1)]),
        ([900, 1100], [(12, 2)]),
        ([], []),
    ],
)
def test_groups_are_told_apart_by_a_gap_at_a_usual_depth(tops, want):
    assert [(group.bits, len(group.rows)) for group in group_by_depth(tops)] == want


def test_values_that_resizing_overshoots_keep_their_depth():
    assert [group.bits for group in group_by_depth([4400, 65535], overshoot=0.15)] == [12, 16]


@pytest.fixture(params=["png", "tif"])
def mixed(tmp_path, request):
    """Six images of 12 bits and three of 16, alternating in order."""
    deep = {}
    for k in range(9):
        top = 65535 if k % 3 == 2 else 4095
        deep[k] = texture(40, 48, top=top, dtype=np.uint16, seed=k)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(deep[k]).save(tmp_path / "in" / f"{k}.{request.param}")
    return tmp_path, deep, request.param


@pytest.mark.parametrize("size", [0, 32])
def test_mixed_depths_are_reported_with_counts_and_found_in_the_store(mixed, size):
    folder, _, suffix = mixed
    summary = ingest(FolderSource(folder / "in", size=size), folder / "o.h5")
    notes = [note for note in summary.notes if "mixed bit depths" in note]
    assert len(notes) == 1
    assert f"6 images use 12 bits (largest value 4,095, first: 0.{suffix})" in notes[0]
    assert f"3 images use 16 bits (largest value 65,535, first: 2.{suffix})" in notes[0]
    assert "--bits auto" in notes[0]
    report = examine_store(Store.open(folder / "o.h5"), seconds=0.01, floor=False)
    assert [(group["bits"], group["images"]) for group in report["depths"]] == [(12, 6), (16, 3)]
    assert {"mixed bit depths": 6}.items() <= {row["finding"]: row["count"] for row in report["findings"]}.items()


def test_bits_auto_maps_every_group_to_the_full_range(mixed):
    folder, deep, _ = mixed
    result = CliRunner().invoke(app, ["ingest", "folder", str(folder / "in"), str(folder / "o.h5"), "--size", "0", "--bits", "auto"])
    assert result.exit_code == 0, result.output
    assert "--bits auto: 6 images use 12 bits" in result.output
    store = Store.open(folder / "o.h5")
    for k, image in deep.items():
        np.testing.assert_allclose(store.unit_images([k])[0, ..., 0], image / image.max(), atol=1e-5)
    assert store.column("bits").tolist() == [12, 12, 16] * 3
    assert store.attrs["recipe"]["bits"] == "auto"
    report = examine_store(store, seconds=0.01, floor=False)
    assert [group["images"] for group in report["depths"]] == [9]
    assert "mixed bit depths" not in str(report["findings"])
    from encoders.similarity.perceptual_hash import pixel_sha256

    assert store.column("sha256").tolist() == [pixel_sha256(store.image(k)) for k in range(9)]


def test_bits_auto_with_eight_bit_files_keeps_one_scale(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = {"a": texture(20, 20), "b": texture(20, 20, top=4095, dtype=np.uint16), "c": texture(20, 20, top=65535, dtype=np.uint16)}
    for name, image in pixels.items():
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    ingest(FolderSource(tmp_path / "in", size=0, bits="auto"), tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    for k, image in enumerate(pixels.values()):
        np.testing.assert_allclose(store.unit_images([k])[0, ..., 0], image / image.max(), atol=1e-5)
    assert store.column("bits").tolist() == [8, 12, 16]


def test_other_words_for_bits_raise(tmp_path):
    from encoders.ingest.image_bits import parse_bits

    assert parse_bits(None) is None
    assert parse_bits("12") == 12
    for text in ("8", "17", "twelve", ""):
        with pytest.raises(InputError, match="--bits"):
            parse_bits(text)
