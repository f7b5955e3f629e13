"""Referral of the least certain test images: numbers of records, coverage of the intervals by simulation, and the command."""

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.records import record
from transfer.tables.referral import ReferralRule, error_difference, gather_referrals, parse_shares, row_referrals
from transfer.tables.row_estimates import youden_thresholds
from transfer.tables.rows import Row

TEXTS = ("task", "store", "labels", "split", "partition", "encoder", "encoder_sha256", "card", "protocol", "protocol_hash")


def made(patients=60, seed=0, kind="binary", skill=1.0, classes=("ill",), unknown=False):
    """A record of 1 to 5 images a patient with a difficulty of its own."""
    draw, arrays = np.random.default_rng(seed), {}
    columns = len(classes)
    for part in ("val", "test"):
        patient = np.repeat(np.arange(patients), draw.integers(1, 6, patients))
        noise = draw.normal(0, 1.2, (patients, columns))[patient] + draw.normal(0, 0.8, (len(patient), columns))
        if kind == "multiclass":
            y = np.eye(columns)[draw.integers(0, columns, patients)[patient]]
            p = np.exp(skill * 2 * y + noise)
            p /= p.sum(1, keepdims=True)
        else:
            y = (draw.random((patients, columns)) < 0.4)[patient].astype(float)
            p = 1 / (1 + np.exp(-(skill * (2 * y - 1) + noise)))
        if unknown:
            y[:3] = np.nan
        key = np.arange(len(patient)).astype(str)
        arrays |= {f"{part}_key": key, f"{part}_patient": patient.astype(str), f"{part}_y": y, f"{part}_scores": p}
    return record.Record(record.Meta(identity=record.Identity(**dict.fromkeys(TEXTS, "")), kind=kind, classes=list(classes)), arrays)


def row_of(*records):
    return Row("mine", "encoder", "linear", 1.0, {}, list(records))


def test_numbers_of_a_record_are_those_of_its_most_certain_images():
    r = made(unknown=True)
    y, p = r.arrays["test_y"][:, 0], r.arrays["test_scores"][:, 0]
    known = ~np.isnan(y)
    y, p, cut = y[known], p[known], youden_thresholds(r)[0]
    found = row_referrals(row_of(r), ReferralRule((0.25,), resamples=50))
    assert [(f.label, f.share) for f in found] == [("ill", 0), ("ill", 0.25)]
    order = np.argsort(-np.abs(p - cut))
    whole, n = 0.75 * len(y), int(0.75 * len(y))
    wrong = ((p >= cut) != (y > 0.5))[order]
    assert found[0].error.value == pytest.approx(wrong.mean())
    assert found[1].error.value == pytest.approx((wrong[:n].sum() + (whole - n) * wrong[n]) / whole)
    assert roc_auc_score(y[order[:n]], p[order[:n]]) == pytest.approx(found[1].auroc.value, abs=0.01)
    val_y, val_p = r.arrays["val_y"][:, 0], r.arrays["val_scores"][:, 0]
    limit = np.quantile(np.abs(val_p[~np.isnan(val_y)] - cut), 0.25, method="lower")
    assert found[1].by_cutoff == pytest.approx((np.abs(p - cut) < limit).mean())
    for f in found:
        for interval in (f.error, f.sensitivity, f.specificity, f.auroc):
            assert interval.low <= interval.value <= interval.high


def test_several_labels_have_a_line_each_and_classes_decide_by_the_largest_probability():
    labels = row_referrals(row_of(made(kind="multilabel", classes=("a", "b"))), ReferralRule((0.1,), resamples=10))
    assert [(f.label, f.share) for f in labels] == [("a", 0), ("a", 0.1), ("b", 0), ("b", 0.1)]
    r = made(kind="multiclass", classes=("a", "b", "c"))
    none, some = row_referrals(row_of(r), ReferralRule((0.3,), resamples=10))
    right = r.arrays["test_scores"].argmax(1) == r.arrays["test_y"].argmax(1)
    assert none.error.value == pytest.approx(1 - right.mean())
    assert none.sensitivity.value == pytest.approx(np.mean([right[r.arrays["test_y"].argmax(1) == c].mean() for c in range(3)]))
    assert np.isnan(none.specificity.value)
    assert some.error.value < none.error.value
    assert 0.3 < some.caught.value < 1


def test_scores_that_are_no_probabilities_cannot_be_referred():
    r = made()
    r.arrays["test_scores"] = r.arrays["test_scores"] * 3 - 1
    assert row_referrals(row_of(r), ReferralRule((0.1,))) == []
    with pytest.raises(InputError, match="that are probabilities"):
        gather_referrals([], ReferralRule((0.1,)))


def test_a_label_without_a_threshold_has_no_order_of_certainty():
    r = made(skill=-3.0)
    assert np.isinf(youden_thresholds(r)).all()
    none, some = row_referrals(row_of(r), ReferralRule((0.2,), resamples=20))
    assert some.error.value == pytest.approx(none.error.value)
    assert (some.caught.value, some.by_cutoff) == (pytest.approx(0.2), 0)


def test_a_difference_is_paired_by_patient():
    rule, a = ReferralRule((0.2,), ranking=False, resamples=300), made(seed=1)
    same = error_difference(row_of(a), row_of(made(seed=1)), rule)
    assert [(d.value, d.low, d.high) for d in same] == [(0, 0, 0), (0, 0, 0)]
    b = made(seed=1)
    b.arrays["test_scores"] = np.clip(b.arrays["test_scores"] + np.random.default_rng(0).normal(0, 0.02, b.arrays["test_y"].shape), 0, 1)
    paired = error_difference(row_of(a), row_of(b), rule)[0]
    alone = row_referrals(row_of(a), rule)[0].error
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    moved = b.meta.identity.model_copy(update={"fold": 1})
    assert error_difference(row_of(a), row_of(record.Record(b.meta.model_copy(update={"identity": moved}), b.arrays)), rule) is None


@pytest.mark.slow
def test_intervals_cover_the_value_in_the_population():
    """Records of 80 patients with the threshold of one validation part, against a test part of 100,000 patients."""
    rule, covered = ReferralRule((0.2,), ranking=False, resamples=200), []
    large = made(patients=100_000, seed=99)
    fixed = {name: value for name, value in made(seed=7).arrays.items() if name.startswith("val")}
    truth = row_referrals(row_of(record.Record(large.meta, large.arrays | fixed)), ReferralRule((0.2,), ranking=False, resamples=1))[1]
    for seed in range(300):
        r = made(patients=80, seed=seed)
        found = row_referrals(row_of(record.Record(r.meta, r.arrays | fixed)), rule)[1]
        covered.append([i.low <= t.value <= i.high for i, t in ((found.error, truth.error), (found.caught, truth.caught))])
    assert (np.mean(covered, axis=0) > 0.91).all()
    assert (np.mean(covered, axis=0) < 0.99).all()


@pytest.mark.parametrize(("text", "want"), [("5,10,20%", (0.05, 0.1, 0.2)), ("10%, 5%", (0.05, 0.1)), ("0.1", (0.1,))])
def test_shares(text, want):
    assert parse_shares(text).shares == pytest.approx(want)


@pytest.mark.parametrize("text", ["", "0", "100%", "5,10", "some", "nan", "-0.1"])
def test_other_shares_are_one_sentence(text):
    with pytest.raises(InputError, match="expected shares of the images"):
        parse_shares(text)


def test_the_command_prints_and_writes_them(tmp_path):
    call("tasks", "add", "sick", toys.store(tmp_path / "toy.h5", patients=60), "--label", "sick")
    encoder = "random_test_resnet:size=32,channels=1"
    call("bench", "--encoder", encoder, "--protocol", "linear", "--baseline", f"{encoder},seed=1", "--no-floor", "--device", "cpu")
    done = call("compare", "--refer", "10,20%", "--baseline", f"{encoder},seed=1")
    assert "Referral of the least certain" in done.stdout
    with (records_dir() / "referrals.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["referred"] for line in lines] == ["0", "0.1", "0.2"] * 2
    assert any(line["versus"] and line["error_difference_low"] for line in lines)
    with pytest.raises(InputError, match="expected shares"):
        call("compare", "--refer", "2")
