"""Whole slides: tiles and predictions are those of the stores of `encoders ingest wsi`, with a row for each slide."""

import csv
import stat

import numpy as np
import pytest

from encoders.ingest.quarantine import quarantine_path
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.source import SlideSource, ingest_slide_source
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide
from tests.transfer.cli.test_cli import call
from tests.transfer.trained.cases import read_table, train
from transfer.tasks.register import build_task
from transfer.tasks.task import save_task
from transfer.trained.predict import load_trained_model
from transfer.trained.slide_input import find_slides, restore_tiling, tile_slides
from transfer.trained.slide_table import combine_tiles

TILING = TilingSettings(mpp=2.0, tile=32, min_tissue=0.4, min_sharpness=0.0, codec="raw", max_tiles=6, seed=3)
START = "random_test_resnet:size=32,channels=3"


@pytest.fixture
def slides(tmp_path):
    """A folder of 12 small slides; half of them are darker."""
    folder, lines = tmp_path / "slides", []
    for i in range(12):
        image = draw_slide(224, 224, [(20, 20, 180, 150)], seed=i)
        image = np.where(image < 240, image // (1 + i % 2), image).astype(np.uint8)
        write_slide(folder / f"s{i:02d}.tiff", [image], mpp=2.0)
        lines.append(f"s{i:02d}.tiff,p{i},{i % 2}")
    (tmp_path / "slides.csv").write_text("\n".join(["file,patient,dark", *lines]) + "\n")
    return folder


def tile_and_train(slides, settings=TILING, name="trained"):
    """The stores of the slides, and a model that was trained on a task of them."""
    out = slides.parent / f"tiles-{name}"
    ingest_slide_source(SlideSource(slides, settings, labels=slides.parent / "slides.csv", label=["dark"]), out)
    stores = sorted(map(str, out.glob("*.h5")))
    save_task(build_task(f"dark-{name}", stores, Store.open(stores), {"labels": ["dark"]}, None)[0])
    train(name, START, f"dark-{name}")
    return out


def test_slides_have_the_tiles_and_predictions_of_their_stores_and_a_row_each(slides, tmp_path):
    every = TILING.__class__(**{**TILING.__dict__, "max_tiles": 0})
    stores = tile_and_train(slides, every)
    result = call("predict", "--model", "trained", str(slides), "--slides", "--out", str(tmp_path / "slides-out.csv"), "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "12 slides with tiles: " in result.output
    call("predict", "--model", "trained", str(stores), "--out", str(tmp_path / "stores-out.csv"), "--device", "cpu")
    ours, theirs = (sorted(read_table(tmp_path / f"{name}-out.csv"), key=lambda row: row["key"]) for name in ("slides", "stores"))
    assert [row["key"] for row in ours] == [row["key"] for row in theirs]
    assert len(ours) > 150
    np.testing.assert_allclose(*([float(row["probability_dark"]) for row in rows] for rows in (ours, theirs)), atol=1e-6)
    for name in ("slides", "stores"):
        path = tmp_path / f"{name}-out.slides.csv"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        rows = read_table(path)
        assert [row["slide"] for row in rows] == [f"s{i:02d}" for i in range(12)]
        for row in rows:
            p = np.sort([float(tile["probability_dark"]) for tile in ours if tile["key"].startswith(f"{row['slide']}/")])
            assert int(row["tiles"]) == len(p)
            assert float(row["probability_dark"]) == pytest.approx(p.mean(), abs=1e-6)
            assert float(row["top_dark"]) == pytest.approx(p[-max(1, round(0.1 * len(p))) :].mean(), abs=1e-6)


def test_the_mean_of_the_highest_tenth_is_of_each_class_and_of_at_least_one_tile():
    p = np.random.default_rng(0).random((25, 3))
    mean, top = combine_tiles(p)
    np.testing.assert_allclose(mean, p.mean(0))
    np.testing.assert_allclose(top, [np.mean(sorted(column)[-2:]) for column in p.T])
    np.testing.assert_allclose(combine_tiles(p[:1])[1], p[0])


def test_a_slide_that_cannot_be_read_or_has_no_tissue_is_a_row_with_its_reason(slides, tmp_path):
    tile_and_train(slides)
    own = tmp_path / "new"
    write_slide(own / "glass.tiff", [np.full((200, 200, 3), 243, np.uint8)], mpp=2.0)
    write_slide(own / "good.tiff", [draw_slide(224, 224, [(20, 20, 180, 150)], seed=50)], mpp=2.0)
    write_slide(own / "unknown.tiff", [draw_slide(224, 224, [(20, 20, 180, 150)], seed=51)], mpp=None)
    (own / "broken.svs").write_bytes(b"not a slide")
    result = call("predict", "--model", "trained", str(own), "--out", str(tmp_path / "p.csv"), "--device", "cpu")
    assert result.exit_code == 1
    rows = {row["slide"]: row for row in read_table(tmp_path / "p.slides.csv")}
    assert {name.removesuffix(".svs") for name in rows} == {"broken", "glass", "good", "unknown"}
    assert [name for name, row in rows.items() if not row["problem"]] == ["good"]
    assert int(rows["good"]["tiles"]) > 6, "all tiles, not the sample on which the model was trained"
    assert "tissue" in rows["glass"]["problem"]
    assert "--slide-mpp" in rows["unknown"]["problem"]
    lone = call(
        "predict", "--model", "trained", str(own / "unknown.tiff"), "--slides", "--slide-mpp", "2", "--out", str(tmp_path / "u.csv")
    )
    assert lone.exit_code == 0, lone.output
    quarantined = list(csv.DictReader(quarantine_path(tmp_path / "p.csv").read_text().splitlines()))
    assert {row["file"] for row in quarantined} == {name for name, row in rows.items() if row["problem"]}


def test_only_one_slide_is_on_disk_at_a_time(slides, monkeypatch, tmp_path):
    tile_and_train(slides)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    model, seen = load_trained_model("trained"), 0
    for _, store, problem in tile_slides(find_slides([slides], model.head, "trained")):
        assert store is not None
        assert not problem
        assert len(list((tmp_path / "scratch").rglob("*.h5"))) == 1
        seen += 1
    assert seen == 12
    assert not list((tmp_path / "scratch").iterdir())


def test_a_task_whose_tiling_cannot_be_repeated_is_refused(slides):
    tile_and_train(slides)
    head = load_trained_model("trained").head
    assert restore_tiling(head, "m") == TilingSettings(**{**TILING.__dict__, "max_tiles": 0})
    (form,) = head.images

    def changed(**tiling):
        images = (form.model_copy(update={"tiling": form.tiling | tiling}),)
        return head.model_copy(update={"images": images})

    with pytest.raises(InputError, match="at coordinates of files"):
        restore_tiling(changed(tiles="coordinates of files"), "m")
    with pytest.raises(InputError, match="that a network found"):
        restore_tiling(changed(tissue_model=True), "m")
    with pytest.raises(InputError, match="tiles of 2 kinds"):
        restore_tiling(head.model_copy(update={"images": (form, changed(mpp=4.0).images[0])}), "m")
    with pytest.raises(InputError, match="no tiles of slides"):
        restore_tiling(head.model_copy(update={"images": (form.model_copy(update={"tiling": None}),)}), "m")
