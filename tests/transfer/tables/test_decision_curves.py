"""Decision curves of table rows: net benefit by its definition, bands of a loop over resamples, the chart and the CSV."""

import csv

import numpy as np
import pytest

from tests.transfer.report.test_report import Tags, drawn, made, pair
from transfer.metrics import net_benefit
from transfer.records.record import Record
from transfer.report import decision_chart
from transfer.stats import draw_resamples
from transfer.stats.bootstrap import percentile_interval
from transfer.tables.build import build_sections
from transfer.tables.decision_curves import CSV_THRESHOLDS, decision_curves_to_csv, row_decision_curves
from transfer.tables.operating_points import parse_operating_rule

THRESHOLDS = np.linspace(0.05, 0.9, 12)


def resampled(record, c, weight, prevalence):
    rows = np.repeat(np.arange(len(weight)), weight.astype(int))
    return net_benefit(record.arrays["test_y"][rows, c], record.arrays["test_scores"][rows, c], THRESHOLDS, prevalence)


@pytest.mark.parametrize("prevalence", [None, 0.1])
def test_curves_and_bands_of_folds_and_labels_are_those_of_a_loop(prevalence):
    records = [made(skill=0.6, seed=f, fold=f, folds=2, kind="multilabel", classes=("a", "b")) for f in (0, 1)]
    mean, *labels = row_decision_curves(records, THRESHOLDS, prevalence, resamples=40)
    drawn_of = [np.concatenate(list(draw_resamples(r.arrays["test_patient"], 40, seed=r.identity.fold)), axis=1) for r in records]
    everything = np.zeros((41, 2, len(THRESHOLDS)))
    for r, weights in zip(records, drawn_of, strict=True):
        for c in range(2):
            for b, weight in enumerate([np.ones(len(weights)), *weights.T]):
                everything[b, c] += resampled(r, c, weight, prevalence) / 2
    for c, curve in enumerate(labels):
        assert curve.label == "ab"[c]
        np.testing.assert_allclose(curve.benefit, everything[0, c], atol=1e-12)
        ends = np.array([percentile_interval(everything[1:, c, t], 0.95) for t in range(len(THRESHOLDS))])
        np.testing.assert_allclose(np.stack([curve.low, curve.high], axis=1), ends, atol=1e-12)
    np.testing.assert_allclose(mean.benefit, everything[0].mean(axis=0), atol=1e-12)
    ends = np.array([percentile_interval(everything[1:, :, t].mean(axis=1), 0.95) for t in range(len(THRESHOLDS))])
    np.testing.assert_allclose(np.stack([mean.low, mean.high], axis=1), ends, atol=1e-12)


def test_treating_all_is_at_the_prevalence_of_the_task():
    one = made(skill=0.6)
    (mean, label) = row_decision_curves([one], THRESHOLDS, resamples=5)
    share = float(one.arrays["test_y"].mean())
    assert label.prevalence == pytest.approx(share)
    np.testing.assert_allclose(label.treat_all, net_benefit(one.arrays["test_y"][:, 0], np.ones(100), THRESHOLDS), atol=1e-12)
    np.testing.assert_array_equal(mean.benefit, label.benefit)
    assert row_decision_curves([one], THRESHOLDS, prevalence=0.02)[0].prevalence == 0.02


def test_a_label_without_both_classes_is_left_out_of_the_mean():
    one = made(skill=0.6, kind="multilabel", classes=("a", "b"))
    y = one.arrays["test_y"].copy()
    y[:, 1] = 0
    mean, a, b = row_decision_curves([Record(one.meta, {**one.arrays, "test_y": y})], THRESHOLDS, resamples=5)
    np.testing.assert_array_equal(mean.benefit, a.benefit)
    np.testing.assert_allclose(mean.treat_all, a.treat_all)
    assert np.isnan(b.benefit).all()


def test_classes_and_scores_that_are_no_probabilities_have_no_curve():
    assert row_decision_curves([made(kind="multiclass", classes=("a", "b", "c"))], THRESHOLDS) == []
    one = made()
    assert row_decision_curves([Record(one.meta, {**one.arrays, "test_scores": one.arrays["test_scores"] + 3})], THRESHOLDS) == []


def test_the_page_has_the_chart_for_binary_tasks_and_none_for_classes():
    assert "<title>decision curve, linear probe</title><desc>net benefit from" in drawn(pair())
    assert "decision curve" not in drawn(pair(kind="multiclass", classes=("a", "b", "c")))
    assert "at the prevalence 0.02" in " ".join(Tags(drawn(pair(), rule=parse_operating_rule("youden", 0.02))).text.split())


def test_the_chart_shows_thresholds_up_to_four_times_the_prevalence_and_nothing_below_its_axis():
    rows = build_sections([made()])[0].rows
    assert decision_chart.choose_thresholds_shown(rows, 0.05)[-1] == pytest.approx(0.2)
    assert decision_chart.choose_thresholds_shown(rows, 0.001)[-1] == pytest.approx(0.1)
    assert decision_chart.choose_thresholds_shown(rows, None)[-1] == pytest.approx(0.99)
    x = np.arange(6.0)
    lines = decision_chart.draw_above(
        decision_chart.Frame((0, 5), (0, 1)), x, np.array([1, 1, -1, 1, 1, np.nan]), 0.0, decision_chart.TREAT_ALL
    )
    assert [line.count(",") for line in map(str, lines)] == [2, 2]


def test_the_csv_has_a_line_for_each_threshold_of_each_label():
    section = build_sections([made(skill=0.6, leakage=["3 patients are in train and test"])])[0]
    lines = list(csv.DictReader(decision_curves_to_csv([(section, section.rows[0])]).splitlines()))
    assert len(lines) == len(CSV_THRESHOLDS)
    record = section.rows[0].records[0]
    want = net_benefit(record.arrays["test_y"][:, 0], record.arrays["test_scores"][:, 0], CSV_THRESHOLDS)
    np.testing.assert_allclose([float(line["net_benefit"]) for line in lines], want, atol=1e-6)
    assert {line["leakage"] for line in lines} == {"3 patients are in train and test"}
    assert {line["label"] for line in lines} == {"sick"}
