"""Calibration of table rows: intervals over patients, folds and draws, in the operating points, their CSV and the page."""

import csv

import numpy as np
import pytest
from scipy.stats import t as student

from tests.transfer.report.test_report import Tags, drawn, made
from transfer.metrics import fit_recalibration
from transfer.records.record import Record
from transfer.stats import bootstrap_values
from transfer.tables.build import build_sections
from transfer.tables.calibration_rows import row_calibration
from transfer.tables.operating_points import OperatingRule, decisions_to_csv, gather_decisions, row_decisions


def test_an_interval_is_student_t_times_the_error_over_patients():
    one = made(skill=0.7)
    y, s, patient = one.part("test")
    (found,) = row_calibration([one])
    fit = fit_recalibration(y[:, 0], s[:, 0], patient)
    fewest = min(len(np.unique(patient[y[:, 0] == v])) for v in (0, 1))
    margin = student.ppf(0.975, fewest - 1) * fit.slope.error
    assert found.slope.ends == pytest.approx((fit.slope.value, fit.slope.value - margin, fit.slope.value + margin))
    assert found.label == "sick"
    # The bootstrap over patients gives about the same width.
    resampled = bootstrap_values(_slope, y, s, patient, 200)
    assert np.nanstd(resampled) == pytest.approx(fit.slope.error, rel=0.3)


def _slope(y, s, weight=None):
    weight = np.ones((len(y), 1)) if weight is None else weight
    rows = [np.repeat(np.arange(len(y)), weight[:, b].astype(int)) for b in range(weight.shape[1])]
    return np.array([[fit_recalibration(y[r, 0], s[r, 0]).slope.value] for r in rows])


def test_errors_of_folds_add_in_squares_and_errors_of_draws_are_averaged():
    folds = [made(skill=0.7, seed=i, fold=i, folds=2) for i in (0, 1)]
    single = [row_calibration([r])[0].in_the_large for r in folds]
    both = row_calibration(folds)[0].in_the_large
    fits = [fit_recalibration(r.arrays["test_y"][:, 0], r.arrays["test_scores"][:, 0], r.arrays["test_patient"]) for r in folds]
    assert both.value == pytest.approx(np.mean([v.value for v in single]))
    error = np.sqrt(sum(f.in_the_large.error**2 for f in fits)) / 2
    freedom = sum(min(len(np.unique(r.arrays["test_patient"][r.arrays["test_y"][:, 0] == v])) for v in (0, 1)) - 1 for r in folds)
    assert both.high - both.value == pytest.approx(student.ppf(0.975, freedom) * error)
    same = [made(skill=0.7, fraction=0.5, draw=d) for d in (0, 1)]
    repeated, once = (row_calibration(rows)[0].slope for rows in (same, same[:1]))
    assert repeated.ends == pytest.approx(once.ends)


def test_a_label_of_a_multi_label_task_is_that_label_alone_and_classes_have_the_predicted_one():
    several = made(skill=0.7, kind="multilabel", classes=("a", "b"))
    for c, found in enumerate(row_calibration([several])):
        alone = Record(
            several.meta.model_copy(update={"kind": "binary", "classes": ["ab"[c]]}),
            {k: v[:, c : c + 1] if k.endswith(("_y", "_scores")) else v for k, v in several.arrays.items()},
        )
        assert row_calibration([alone]) == [found]
    assert [c.label for c in row_calibration([made(kind="multiclass", classes=("a", "b", "c"))])] == ["predicted class"]


def test_scores_that_are_no_probabilities_have_no_calibration():
    one = made()
    margins = Record(one.meta, {**one.arrays, "test_scores": 5 * one.arrays["test_scores"] - 2})
    assert row_calibration([margins]) == []
    (decision,) = row_decisions(build_sections([margins])[0].rows[0], OperatingRule())
    assert decision.calibration_cells() == ("no probabilities", "no probabilities")


def test_table_csv_and_page_hold_the_calibration_of_the_label():
    records = [made(skill=0.7), made("imagenet_net", "imagenet", 0.1)]
    sections = build_sections(records)
    decided = gather_decisions(sections, OperatingRule())
    lines = list(csv.DictReader(decisions_to_csv(decided, OperatingRule()).splitlines()))
    text = " ".join(Tags(drawn(records)).text.split())
    for line, row in zip(lines, sections[0].rows, strict=True):
        (found,) = row_calibration(row.records)
        for name in ("slope", "intercept", "in_the_large"):
            got = [float(line[f"calibration_{name}{end}"]) for end in ("", "_low", "_high")]
            assert got == pytest.approx(getattr(found, name).ends, abs=1e-6)
        assert line["probabilities_at_bounds"] == "0"
        for value in (found.slope, found.in_the_large):
            assert text.count(f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]") >= 2  # decisions, calibration in numbers
