"""Distances of another store's images: against scikit-learn, what is warned about, and that the test part stays sealed."""

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.features.embed import extract_features
from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.bench.outlier_test import OUTLIER_SCORES, OutlierRequest, run_outlier_test
from transfer.metrics.outliers import fit_train_features, score_outliers
from transfer.stats.auroc_intervals import auroc_interval
from transfer.tables.outlier_table import build_outlier_lines, describe_outlier_test, share_found
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task

ENCODER = "random_test_resnet:size=32,channels=1"


def other_store(path, n=40, bright=0, dataset="elsewhere"):
    """Images without the stripes and blobs of the toys."""
    draw = np.random.default_rng(9)
    images = np.clip(draw.normal(110 + bright, 20, (n, 32, 32, 1)), 0, 255).astype(np.uint8)
    return save_store(path, images, patient=[f"p{i // 2}" for i in range(n)], dataset=dataset)


@pytest.fixture
def stores(tmp_path):
    own = toys.store(tmp_path / "toy.h5", patients=100)
    call("tasks", "add", "sick", own, "--label", "sick")
    return own, other_store(tmp_path / "other.h5")


def test_lines_are_the_aurocs_of_the_distances_with_intervals_over_patients(stores):
    test = run_outlier_test(OutlierRequest([ENCODER], "sick", [str(stores[1])]))
    loaded, other, encoder = load_task(read_task("sick")), Store.open(stores[1]), zoo.load_encoder(ENCODER)
    train, val = loaded.split.rows("train"), loaded.split.rows("val")
    x = extract_features(encoder, loaded.store)
    fitted = fit_train_features(x[train], loaded.y[train, 0].astype(int))
    lines = build_outlier_lines(test)
    assert [(line.encoder, line.kind) for line in lines] == [(name, kind) for name in (ENCODER, "pixels") for kind in OUTLIER_SCORES]
    label = np.r_[np.zeros(len(val)), np.ones(len(other))]
    patient = np.array([f"a {p}" for p in loaded.patient[val]] + [f"b {p}" for p in other.column("patient").astype(str)])
    for line, kind in zip(lines[:3], OUTLIER_SCORES, strict=True):
        distance = np.r_[score_outliers(x[val], fitted, kind), score_outliers(extract_features(encoder, other), fitted, kind)]
        assert line.auroc.value == pytest.approx(roc_auc_score(label, distance))
        want = auroc_interval(label, distance, patient)
        assert (line.auroc.low, line.auroc.high) == pytest.approx((want.low, want.high), nan_ok=True)
        assert line.difference.family == 3
    assert all(line.difference is None for line in lines[3:])


def test_labels_and_images_of_the_test_part_are_not_touched(stores, monkeypatch):
    before = run_outlier_test(OutlierRequest([ENCODER], "sick", [str(stores[1])])).scored
    real = load_task

    def blind(task):
        loaded = real(task)
        for part in ("val", "test"):
            loaded.y[loaded.split.rows(part)] = np.nan
        return loaded

    monkeypatch.setattr("transfer.bench.outlier_test.load_task", blind)
    after = run_outlier_test(OutlierRequest([ENCODER], "sick", [str(stores[1])])).scored
    assert all(np.array_equal(a.distance, b.distance) for a, b in zip(before, after, strict=True))
    run_outlier_test(OutlierRequest([ENCODER], "sick", [str(stores[1])], part="test"))
    assert not (records_dir() / "ledger.jsonl").exists()


def test_stores_that_differ_in_form_or_brightness_are_warned_about(stores, tmp_path):
    bright = other_store(tmp_path / "bright.h5", bright=100)
    test = run_outlier_test(OutlierRequest([ENCODER], "sick", [str(bright)]))
    assert test.warnings == []
    notes = describe_outlier_test(test, build_outlier_lines(test))
    assert any(note.startswith("warning: pixels, which has no network, tells the stores apart") for note in notes)
    colour = save_store(tmp_path / "colour.h5", np.zeros((20, 32, 32, 3), np.uint8), patient=[f"q{i}" for i in range(20)], dataset="c")
    (warning,) = run_outlier_test(OutlierRequest([ENCODER], "sick", [str(colour)], limit=20)).warnings
    assert "channels 1 and 3" in warning
    assert "can be told apart by that alone" in warning


def test_a_store_of_the_tasks_own_images_is_refused(stores):
    with pytest.raises(InputError, match="are images of task sick"):
        run_outlier_test(OutlierRequest([ENCODER], "sick", [str(stores[0])]))


def test_a_limit_takes_fewer_images_of_each_side(stores):
    test = run_outlier_test(OutlierRequest([ENCODER], "sick", [str(stores[1])], limit=15))
    assert np.bincount(test.outside.astype(int)).tolist() == [15, 15]


def test_found_at_five_percent_false_alarms():
    outside = np.r_[np.zeros(100), np.ones(4)]
    assert share_found(outside, np.r_[np.arange(100.0), [94, 94.5, 96.5, 200]]) == 0.75, "five of a hundred are beyond 94"


def test_the_command_prints_and_writes_the_table(stores, tmp_path):
    done = call("ood", "--encoder", ENCODER, "--task", "sick", "--against", stores[1], "--device", "cpu", "--csv", tmp_path / "t.csv")
    assert "Images unlike sick: other" in done.stdout
    with (records_dir() / "outliers.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["encoder"] for line in lines] == [ENCODER] * 3 + ["pixels"] * 3
    assert (tmp_path / "t.csv").read_text() == (records_dir() / "outliers.csv").read_text()
    with pytest.raises(InputError, match="--against is required"):
        call("ood", "--encoder", ENCODER, "--task", "sick")
