"""ROC and precision-recall curves and bands, against scikit-learn and against a loop over resamples and thresholds."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from tests.transfer.report.test_report import drawn, made, pair
from transfer.metrics import macro
from transfer.report import curve_bands, plots
from transfer.report.curve_bands import CURVE_GRID, label_curves, resampled_curves
from transfer.stats import draw_resamples
from transfer.stats.bootstrap import percentile_interval


def slow_curve(y, s, weight, kind):
    """(B, G) curves of one label by their definition: every threshold, one resample after the other. weight: (N, B)."""
    rows = np.flatnonzero(~np.isnan(y))
    rows = rows[np.argsort(-s[rows], kind="stable")]
    score, positive, w = s[rows], y[rows] > 0.5, weight[rows].astype(np.float64)
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(rows) else np.empty(0, int)
    hit, false = (np.cumsum(np.where(side[:, None], w, 0), axis=0)[ends] for side in (positive, ~positive))
    out = np.full((weight.shape[1], len(CURVE_GRID)), np.nan)
    for b in range(weight.shape[1]):
        if not len(ends) or hit[-1, b] == 0 or false[-1, b] == 0:
            continue
        if kind == "roc":
            out[b] = np.interp(CURVE_GRID, np.append(0.0, false[:, b] / false[-1, b]), np.append(0.0, hit[:, b] / hit[-1, b]))
            continue
        predicted = hit[:, b] + false[:, b]
        precision = np.divide(hit[:, b], predicted, out=np.ones(len(ends)), where=predicted > 0)
        first = np.searchsorted(hit[:, b] / hit[-1, b], CURVE_GRID - 1e-12)
        out[b] = precision[np.clip(first, int(np.argmax(predicted > 0)), len(precision) - 1)]
    return out


def labels_and_scores(seed, n=150, prevalence=0.3, step=0.0, unknown=0.0):
    draw = np.random.default_rng(seed)
    y = (draw.random(n) < prevalence).astype(float)
    s = draw.normal(size=n) + y
    s = np.round(s / step) * step if step else s
    y[draw.random(n) < unknown] = np.nan
    return y, s, draw.integers(0, n // 3, n)


@pytest.mark.parametrize("kind", ["roc", "pr"])
@pytest.mark.parametrize("step", [0.0, 0.3, 2.0, 100.0])
@pytest.mark.parametrize("prevalence", [0.02, 0.3, 0.9])
def test_curves_of_resampled_patients_are_those_of_every_threshold(kind, step, prevalence):
    for seed in range(5):
        y, s, code = labels_and_scores(seed, prevalence=prevalence, step=step, unknown=0.1)
        times = np.random.default_rng(seed).integers(0, 4, (code.max() + 1, 40))
        got, want = label_curves(y, s, code, times)[kind], slow_curve(y, s, times[code], kind)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_curves_are_those_of_scikit_learn_and_a_patient_drawn_twice_counts_twice():
    draw = np.random.default_rng(0)
    y, s = draw.integers(0, 2, 80).astype(float), np.round(draw.random(80), 1)  # with ties
    weight = draw.integers(0, 4, (80, 3))
    got = label_curves(y, s, np.arange(80), weight)
    for b in range(3):
        yy, ss = np.repeat(y, weight[:, b]), np.repeat(s, weight[:, b])
        false, hit, _ = roc_curve(yy, ss, drop_intermediate=False)
        np.testing.assert_allclose(got["roc"][b], np.interp(CURVE_GRID, false, hit), atol=1e-12)
        precision, recall, _ = precision_recall_curve(yy, ss)
        want = [precision[:-1][recall[:-1] >= g - 1e-12][-1] for g in CURVE_GRID]  # the highest threshold that reaches the recall
        np.testing.assert_allclose(got["pr"][b], want, atol=1e-12)


def test_counts_of_exactly_a_grid_point_are_on_the_side_that_the_rate_in_floating_point_is():
    y = np.repeat([1.0, 0.0], 100)  # 100 negatives: each rate is a grid point
    s = np.random.default_rng(2).permutation(200).astype(float)
    for kind in ("roc", "pr"):
        np.testing.assert_array_equal(
            label_curves(y, s, np.arange(200), np.ones((200, 1), int))[kind], slow_curve(y, s, np.ones((200, 1)), kind)
        )


def test_a_chunk_of_resamples_changes_nothing(monkeypatch):
    y, s, code = labels_and_scores(1)
    times = np.random.default_rng(0).integers(0, 3, (code.max() + 1, 50))
    whole = label_curves(y, s, code, times)
    monkeypatch.setattr(curve_bands, "MAX_CELLS", 300)
    pieces = label_curves(y, s, code, times)
    for kind in ("roc", "pr"):
        np.testing.assert_array_equal(pieces[kind], whole[kind])


@pytest.mark.parametrize("y", [np.ones(4), np.zeros(4), np.full(4, np.nan)])
def test_a_label_without_both_classes_has_no_curve(y):
    for curve in label_curves(y, np.arange(4.0), np.arange(4), np.ones((4, 2), int)).values():
        assert curve.shape == (2, len(CURVE_GRID))
        assert np.isnan(curve).all()


def test_bands_of_several_labels_folds_and_draws_are_those_of_a_loop():
    several = {"kind": "multilabel", "classes": ("a", "b")}
    records = [made(seed=d, draw=d, fold=f, fraction=0.5, **several) for f in (0, 1) for d in (0, 1)]
    got = resampled_curves(records, 60)
    for kind in ("roc", "pr"):
        total, full = np.zeros((60, len(CURVE_GRID))), np.zeros(len(CURVE_GRID))
        for r in records:
            y, s, patient = r.part("test")
            weight = np.concatenate(list(draw_resamples(patient, 60, seed=r.identity.fold)), axis=1)
            for out, w in ((total, weight), (full, np.ones((len(y), 1)))):
                out += macro(np.stack([slow_curve(y[:, c], s[:, c], w, kind) for c in range(2)], axis=-1))[0].reshape(out.shape) / 4
        ends = np.array([percentile_interval(total[:, g], 0.95) for g in range(len(CURVE_GRID))])
        np.testing.assert_allclose(got[kind].y, full, atol=1e-12)
        np.testing.assert_allclose(np.stack([got[kind].low, got[kind].high], axis=1), ends, atol=1e-12)


def test_the_page_draws_these_curves(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "resampled_curves", lambda records: seen.append(records) or resampled_curves(records, 10))
    drawn(pair())
    assert [records[0].identity.encoder for records in seen] == ["mine", "imagenet_net"]  # once each, for both kinds
