"""Prediction sets of records: what is counted, which records have them, and the command."""

import csv

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.metrics.set_rule import SetRule, parse_set_rule
from transfer.records import record
from transfer.tables.prediction_sets import has_probabilities, list_class_names, record_sets

TEXTS = ("task", "store", "labels", "split", "partition", "encoder", "encoder_sha256", "card", "protocol", "protocol_hash")


def made(kind, classes, patients=400, wrong=0.2, seed=0):
    """A record of two images a patient; a share of the images has the probabilities of another class."""
    draw, arrays = np.random.default_rng(seed), {}
    columns = 1 if kind == "binary" else len(classes)
    for part in ("val", "test"):
        patient = np.repeat(np.arange(patients), 2).astype(str)
        truth = draw.integers(0, max(columns, 2), len(patient))
        shown = np.where(draw.random(len(patient)) < wrong, (truth + 1) % max(columns, 2), truth)
        p = np.exp(3 * np.eye(max(columns, 2))[shown] + draw.normal(0, 0.5, (len(patient), max(columns, 2))))
        p /= p.sum(1, keepdims=True)
        y = np.eye(max(columns, 2))[truth]
        both = (y[:, 1:], p[:, 1:]) if kind == "binary" else (y, p)
        arrays |= {f"{part}_key": patient, f"{part}_patient": patient, f"{part}_y": both[0], f"{part}_scores": both[1]}
    return record.Record(record.Meta(identity=record.Identity(**dict.fromkeys(TEXTS, "")), kind=kind, classes=classes), arrays)


@pytest.mark.parametrize(("kind", "classes"), [("binary", ["ill"]), ("multiclass", ["a", "b", "c"])])
@pytest.mark.parametrize("rule", [SetRule(0.9), SetRule(0.75, "lac"), SetRule(0.9, "raps", True)])
def test_sets_hold_the_true_class_of_test_images_as_often_as_promised(kind, classes, rule):
    sets, truth, known = record_sets(made(kind, classes), rule)
    assert sets.shape == (800, max(len(classes), 2))
    assert known.all()
    assert sets[np.arange(800), truth].mean() == pytest.approx(rule.level, abs=0.04)
    assert 0.5 < sets.sum(1).mean() < sets.shape[1]


def test_a_better_encoder_has_smaller_sets():
    sizes = [record_sets(made("multiclass", ["a", "b", "c"], wrong=wrong), SetRule(0.9))[0].sum(1).mean() for wrong in (0.05, 0.3)]
    assert sizes[0] < sizes[1] - 0.5


def test_unknown_labels_calibrate_nothing_and_scores_without_a_scale_have_no_sets():
    some, rule = made("binary", ["ill"]), SetRule(0.9)
    want = record_sets(some, rule)[0]
    some.arrays["val_y"] = np.concatenate([some.arrays["val_y"], [[np.nan]] * 900])
    for name, value in (
        ("scores", np.full((900, 1), 0.5)),
        ("patient", np.arange(900, 1800).astype(str)),
        ("key", np.arange(900).astype(str)),
    ):
        some.arrays[f"val_{name}"] = np.concatenate([some.arrays[f"val_{name}"], value])
    sets, _, known = record_sets(some, SetRule(0.9, "lac"))
    assert np.array_equal(sets, record_sets(made("binary", ["ill"]), SetRule(0.9, "lac"))[0])
    assert known.all()
    assert want.shape == sets.shape
    assert has_probabilities(some)
    some.arrays["test_scores"] = some.arrays["test_scores"] * 4 - 2
    assert not has_probabilities(some)
    assert list_class_names(some) == ["not ill", "ill"]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0.9", SetRule(0.9)),
        ("aps=0.9", SetRule(0.9)),
        ("lac+class=0.5", SetRule(0.5, "lac", True)),
        ("+class=0.8", SetRule(0.8, "aps", True)),
    ],
)
def test_rules(text, want):
    assert parse_set_rule(text) == want


@pytest.mark.parametrize("text", ["", "1", "0", "nan", "90%", "best=0.9", "aps", "aps=", "aps+patient=0.9"])
def test_other_rules_are_one_sentence(text):
    with pytest.raises(InputError, match="expected a probability between 0 and 1"):
        parse_set_rule(text)


def test_the_command_prints_and_writes_them(tmp_path):
    call("tasks", "add", "sick", toys.store(tmp_path / "toy.h5", patients=60), "--label", "sick")
    call(
        "bench",
        "--encoder",
        "random_test_resnet:size=32,channels=1",
        "--protocol",
        "knn,linear",
        "--baseline",
        "none",
        "--no-floor",
        "--device",
        "cpu",
    )
    done = call("compare", "--sets", "lac=0.8")
    assert done.exit_code == 0
    assert "Prediction sets" in done.stdout
    assert "with probability 0.8 (LAC)" in " ".join(done.stdout.split())
    with (records_dir() / "prediction_sets.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["protocol"], line["class"]) for line in lines] == [(p, c) for p in ("knn", "linear") for c in ("not sick", "sick")]
    for line in lines:
        assert float(line["coverage_low"]) <= float(line["coverage"]) <= float(line["coverage_high"])
        assert 0 < float(line["size"]) <= 2
    with pytest.raises(InputError, match="expected a probability"):
        call("compare", "--sets", "2")
