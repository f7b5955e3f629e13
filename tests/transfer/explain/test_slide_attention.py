"""The attention of slides: the protocol's own, written for every tile, the most on the tile that decides."""

import csv
import stat
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app as encoders_app
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide
from tests.transfer import toys
from tests.transfer.bench.test_bench import run
from tests.transfer.cli.test_cli import NET, call
from tests.transfer.trained.cases import add_task
from transfer.bench.lazy_features import LazyFeatures
from transfer.explain.slide_attention import SlideAttention, attend_slides, fit_attention_of, write_attention
from transfer.protocols import mil
from transfer.records.record_ids import hide_names
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task

TILES, SLIDES = 5, 60
QUICK = mil.Config(hidden=16, lr=(3e-3,), weight_decay=(1e-4,), epochs=8)
SETTINGS = ["mil.hidden=16", "mil.lr=[0.003]", "mil.weight_decay=[0.0001]", "mil.epochs=8"]


@pytest.fixture
def planted(tmp_path):
    """Slides of five tiles; in a sick one the third tile has stripes and decides the label."""
    sick = np.repeat(np.arange(SLIDES) % 2, TILES).astype(float)
    shown = sick * (np.arange(SLIDES * TILES) % TILES == 2)
    images = toys.pictures(shown, np.zeros(len(shown)))
    patient = [f"p{i // TILES}" for i in range(len(shown))]
    store = save_store(tmp_path / "slides.h5", images, patient=patient, labels={"sick": sick}, modality="histology")
    toys.add_slides(store, [f"s{i // TILES:02d}" for i in range(len(shown))])
    add_task(store)
    return store


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_planted_tile_gets_the_weight_which_sums_to_one(planted):
    loaded = load_task(read_task("sick"))
    features = LazyFeatures(zoo.load_encoder(NET), loaded, 64, 0)
    fitted = fit_attention_of(QUICK, loaded, features)
    slides = attend_slides(fitted, loaded, features, "test")
    assert len(slides) == len({*np.asarray(loaded.store.column("slide"))[loaded.split.rows("test")].tolist()})
    key = loaded.store.column("key").astype(int)
    sick = loaded.store.labels("sick")
    heaviest = []
    for one in slides:
        assert one.weight.sum() == pytest.approx(1, abs=1e-5)
        assert one.weight.shape == (TILES,)
        assert set(np.asarray(loaded.store.column("slide"))[one.rows].tolist()) == {one.slide}
        if sick[one.rows[0]]:
            heaviest.append(int(key[one.rows[one.weight.argmax()]]) % TILES)
    assert len(heaviest) > 3
    assert np.mean(np.array(heaviest) == 2) > 0.9
    (alone,) = attend_slides(fitted, loaded, features, "test", [slides[1].slide])
    assert np.array_equal(alone.weight, slides[1].weight)
    with pytest.raises(InputError, match="no slide in the part test called 's99'"):
        attend_slides(fitted, loaded, features, "test", ["s99"])
    with pytest.raises(InputError, match=r"mil\.pooling is mean, which has no attention"):
        fit_attention_of(mil.Config(pooling="mean"), loaded, features)


def test_the_probabilities_beside_the_attention_are_those_of_the_benchmark(planted, tmp_path):
    done = call("explain", "--mil", "--task", "sick", "--encoder", NET, "--out", tmp_path / "out", "--device", "cpu", *SETTINGS)
    assert done.exit_code == 0, done.output
    (record,) = run(tasks=["sick"], protocols=["mil"], overrides=SETTINGS).records
    slides = read_csv(tmp_path / "out" / "slides.csv")
    measured = dict(zip(record.arrays["test_key"].tolist(), record.arrays["test_scores"][:, 0].tolist(), strict=True))
    hidden = hide_names(np.array([row["slide"] for row in slides]))
    assert len(slides) == len(measured)
    for name, row in zip(hidden.tolist(), slides, strict=True):
        assert float(row["probability_sick"]) == pytest.approx(measured[name], abs=1e-7)
    assert "are not drawn: their store has no overview" in done.output
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    tiles = read_csv(tmp_path / "out" / slides[0]["table"])
    assert len(tiles) == TILES == int(slides[0]["tiles"])
    assert sum(float(tile["attention"]) for tile in tiles) == pytest.approx(1, abs=1e-5)
    assert float(tiles[0]["times_equal"]) == pytest.approx(TILES * float(tiles[0]["attention"]), rel=1e-6)
    assert {tile["key"] for tile in tiles} <= set(Store.open(planted).column("key").astype(str))
    with pytest.raises(InputError, match="out holds attention of slides; choose another --out"):
        call("explain", "--mil", "--task", "sick", "--encoder", NET, "--out", tmp_path / "out", *SETTINGS)
    with pytest.raises(InputError, match="--encoder is required with --mil"):
        call("explain", "--mil", "--task", "sick", "--out", tmp_path / "other")


def test_attention_is_drawn_over_a_slide_that_has_an_overview(tmp_path):
    write_slide(tmp_path / "in" / "s0.tiff", [draw_slide(2048, 2048, [(512, 512, 1024, 1024)], seed=0)], mpp=0.5)
    command = ["ingest", "wsi", str(tmp_path / "in"), str(tmp_path / "tiles"), "--mpp", "1", "--tile", "128", "--workers", "1"]
    assert CliRunner().invoke(encoders_app, command).exit_code == 0
    store = Store.open(str(tmp_path / "tiles" / "s0.h5"))
    rows = np.arange(len(store))
    weight = np.where(rows == len(rows) - 1, 0.9, 0.1 / (len(rows) - 1))
    loaded = SimpleNamespace(store=store, task=SimpleNamespace(classes=("tumour",)))
    slide = SlideAttention("s0", rows, weight, np.array([0.7]))
    assert write_attention([slide], loaded, tmp_path / "out", lambda n: None).undrawn == []
    picture = np.asarray(Image.open(tmp_path / "out" / "00001.png").convert("RGB")).astype(int)
    right = picture[:, picture.shape[1] // 2 : -200]
    red, blue = right[..., 0] - right[..., 2] > 60, right[..., 2] - right[..., 0] > 60
    assert blue.sum() > 4 * red.sum() > 0  # one tile has the weight, the others have little
    (row,) = read_csv(tmp_path / "out" / "slides.csv")
    assert (row["slide"], row["picture"], row["probability_tumour"]) == ("s0", "00001.png", "0.7")
