"""Intervals and tests against loops over scikit-learn, closed forms and invariances. Coverage is simulated in test_coverage.py."""

import numpy as np
import pytest
from scipy import stats as sp
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from transfer import stats
from transfer.metrics import accuracy, auroc, average_precision, balanced_accuracy
from transfer.stats.auroc_intervals import area_estimate, macro_area
from transfer.stats.bootstrap import draw_resamples
from transfer.stats.delong import area_components, area_variance
from transfer.stats.parts import pool_parts
from transfer.stats.patients import encode_patients


def made(patients=60, images=3, seed=0, c=1):
    """Several images per patient, with a shared patient effect in label and score."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), images)
    effect = rng.normal(size=(patients, c))[patient]
    y = (effect + rng.normal(size=(len(patient), c)) > 0.3).astype(np.float32)
    s = y + effect * 0.5 + rng.normal(size=y.shape)
    return y, s, patient.astype(str)


def test_bootstrap_values_equal_a_loop_over_scikit_learn():
    y, s, patient = made(c=2)
    s = np.round(s)  # ties
    got = stats.bootstrap_values(auroc, y, s, patient, n=300, seed=3)
    weights = np.concatenate(list(draw_resamples(patient, 300, 3)), axis=1)
    for b in (0, 17, 299):
        rows = np.repeat(np.arange(len(y)), weights[:, b].astype(int))
        assert got[b] == pytest.approx([roc_auc_score(y[rows, c], s[rows, c]) for c in range(2)], abs=1e-9)


def test_a_resample_draws_whole_patients_as_many_as_there_are():
    _, _, patient = made()
    w = np.concatenate(list(draw_resamples(patient, 400)), axis=1)
    by_patient = w.reshape(60, 3, 400)
    assert (by_patient == by_patient[:, :1]).all()
    assert (by_patient[:, 0].sum(axis=0) == 60).all()
    assert by_patient.mean() == pytest.approx(1)
    assert by_patient[:, 0].var() == pytest.approx(1 - 1 / 60, rel=0.1)


def test_the_interval_is_the_percentiles_and_does_not_depend_on_the_order_of_rows():
    y, s, patient = made()
    got = stats.cluster_bootstrap(average_precision, y, s, patient, n=200)
    values = stats.bootstrap_values(average_precision, y, s, patient, n=200)[:, 0]
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    order = np.random.default_rng(0).permutation(len(y))
    again = stats.cluster_bootstrap(average_precision, y[order], s[order], patient[order], n=200)
    assert (again.low, again.value, again.high) == pytest.approx((got.low, got.value, got.high))


def test_a_metric_of_decisions_is_resampled_the_same_way():
    y, s, patient = made()
    got = stats.bootstrap_values(balanced_accuracy, y, s, patient, n=20)
    weights = np.concatenate(list(draw_resamples(patient, 20)), axis=1).astype(int)
    rows = np.repeat(np.arange(len(y)), weights[:, 7])
    assert got[7, 0] == pytest.approx(balanced_accuracy_score(y[rows, 0], s[rows, 0] >= 0.5))


def delong_by_hand(y, s):
    """DeLong 1988, eq. 5 to 7, written as loops."""
    x, z = s[y == 1], s[y == 0]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in z] for a in x])
    return psi.mean(), psi.mean(1).var(ddof=1) / len(x) + psi.mean(0).var(ddof=1) / len(z)


def test_one_image_per_patient_gives_delongs_area_and_variance():
    y, s, _ = made()
    y, s = y[:, 0], np.round(s[:, 0], 1)
    area, variance = delong_by_hand(y, s)
    components = area_components(y, s, np.arange(len(y)), len(y))
    assert components.area == pytest.approx(area, abs=1e-12) == pytest.approx(macro_area(y, s), abs=1e-12)
    assert area_variance(components)[0] == pytest.approx(variance, rel=1e-9)


def obuchowski_by_hand(y, s, patient):
    """Obuchowski 1997, eq. 4 to 7, written as loops."""
    x, z = s[y == 1], s[y == 0]
    px, pz = patient[y == 1], patient[y == 0]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in z] for a in x])
    area, v10, v01 = psi.mean(), psi.mean(1), psi.mean(0)
    names = np.unique(patient)
    ten = np.array([v10[px == p].sum() - (px == p).sum() * area for p in names])
    one = np.array([v01[pz == p].sum() - (pz == p).sum() * area for p in names])
    i10, i01, i = len(np.unique(px)), len(np.unique(pz)), len(names)
    m, n = len(x), len(z)
    s10, s01 = i10 / ((i10 - 1) * m) * (ten**2).sum(), i01 / ((i01 - 1) * n) * (one**2).sum()
    s11 = i / (i - 1) * (ten * one).sum()
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def test_several_images_per_patient_give_obuchowskis_variance():
    y, s, patient = made(images=4)
    y[::11] = np.nan
    code, n = encode_patients(patient)
    got, _ = area_variance(area_components(y[:, 0], s[:, 0], code, n))
    known = ~np.isnan(y[:, 0])
    assert got == pytest.approx(obuchowski_by_hand(y[known, 0], s[known, 0], patient[known]), rel=1e-9)


@pytest.mark.parametrize("images", [1, 4])
def test_variance_and_degrees_of_freedom_are_those_of_sample_covariances_of_placement_values(images):
    """np.cov with ddof = 1 over patients of their summed placement values, and Satterthwaite's formula with one less than the patients."""
    y, s, patient = made(patients=40, images=images)
    y, s = y[:, 0], np.round(s[:, 0], 1)
    low, high = s[y == 0], s[y == 1]
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)  # (P, M)
    area, names = wins.mean(), np.unique(patient)
    per_patient, shares, counts = [], [], []
    for placement, of in ((wins.mean(axis=1), patient[y == 1]), (wins.mean(axis=0), patient[y == 0])):
        sums = np.array([(placement[of == name] - area).sum() for name in names]) / len(placement)
        with_rows = np.isin(names, of)
        per_patient.append(sums)
        counts.append(with_rows.sum())
        shares.append(np.cov(sums[with_rows], ddof=1) * counts[-1])
    covariance = np.cov(*per_patient, ddof=1)[0, 1] * len(names)
    code, n = encode_patients(patient)
    variance, df = area_variance(area_components(y, s, code, n))
    assert variance == pytest.approx(sum(shares) + 2 * covariance * (images > 1), rel=1e-9)
    assert df == pytest.approx(sum(shares) ** 2 / (shares[0] ** 2 / (counts[0] - 1) + shares[1] ** 2 / (counts[1] - 1)), rel=1e-9)


def test_repeating_every_image_does_not_narrow_the_interval():
    y, s, patient = made()
    once = stats.auroc_interval(y, s, patient)
    twice = stats.auroc_interval(np.repeat(y, 2, 0), np.repeat(s, 2, 0), np.repeat(patient, 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    naive = stats.auroc_interval(np.repeat(y, 2, 0), np.repeat(s, 2, 0), np.arange(2 * len(y)))
    assert naive.high - naive.low < 0.8 * (once.high - once.low)


def test_the_interval_of_several_labels_is_that_of_their_mean_with_their_covariance():
    y, s, patient = made()
    one = stats.auroc_interval(y, s, patient)
    same = stats.auroc_interval(np.repeat(y, 3, 1), np.repeat(s, 3, 1), patient)
    assert (same.low, same.high) == pytest.approx((one.low, one.high))  # copies of a label add nothing
    y, s, patient = made(c=3)
    assert [i.value for i in stats.auroc_intervals(y, s, patient)] == pytest.approx(auroc(y, s))


def test_perfect_separation_has_a_lower_end_below_one():
    y = np.repeat([0.0, 1.0], 30)
    got = stats.auroc_interval(y, y, np.arange(60))
    assert got.value == got.high == 1
    assert got.low == pytest.approx(0.025 ** (1 / 30))


def test_insufficient_patients_are_noted():
    y, s, patient = made(patients=60)
    assert stats.auroc_interval(y, s, patient).note == ""
    y, s, patient = made(patients=15)
    assert "insufficient patients" in stats.auroc_interval(y, s, patient).note
    assert "insufficient patients" in stats.cluster_bootstrap(auroc, y, s, patient, n=50).note
    few = stats.paired_difference(auroc, y, s, -s, patient)
    assert np.isnan(few.low)
    assert "permutation test over patients" in few.method
    assert stats.patients_per_class(np.array([1, 1, 0, np.nan]), np.array(list("aabb"))).tolist() == [[1, 1]]


def test_the_difference_from_itself_is_zero():
    y, s, patient = made()
    for metric in (auroc, average_precision, accuracy):
        d = stats.paired_difference(metric, y, s, s, patient, n=100)
        assert (d.value, d.low, d.high, d.verdict) == (0, 0, 0, "not distinguishable")
        assert d.p == 1


@pytest.mark.parametrize("metric", [auroc, average_precision, accuracy])
def test_swapping_the_encoders_mirrors_the_difference(metric):
    y, s, patient = made()
    noisy = s + 3 * np.random.default_rng(1).normal(size=s.shape)
    ab, ba = stats.paired_difference(metric, y, s, noisy, patient), stats.paired_difference(metric, y, noisy, s, patient)
    assert (ab.value, ab.low, ab.high, ab.p) == pytest.approx((-ba.value, -ba.high, -ba.low, ba.p))
    assert (ab.verdict, ba.verdict) == ("better", "worse")
    assert ab.p < 0.05


def test_the_paired_variance_is_delongs_with_covariance():
    y, a, _ = made()
    y, a = y[:, 0], a[:, 0]
    b = a + np.random.default_rng(1).normal(size=len(a))
    psi = [(s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0]) for s in (a, b)]
    d = psi[0] - psi[1]
    want = d.mean(1).var(ddof=1) / (y == 1).sum() + d.mean(0).var(ddof=1) / (y == 0).sum()
    got = stats.auroc_difference(y, a, b, np.arange(len(y)))
    t = (got.high - got.low) / 2 / np.sqrt(want)
    assert sp.t.ppf(0.975, len(y)) * 0.99 < t < sp.t.ppf(0.975, 20)
    assert got.p == pytest.approx(2 * sp.norm.sf(abs(got.value) / np.sqrt(want)), abs=0.02)


def test_permutation_by_patient_is_its_definition():
    y, s, patient = made(patients=12)
    other = s + np.random.default_rng(1).normal(size=s.shape)
    p = stats.paired_permutation(accuracy, y, s, other, patient, n=999)
    # All 2**12 swaps, one by one.
    seen = abs(accuracy(y, s) - accuracy(y, other))[0]
    code = np.unique(patient, return_inverse=True)[1]
    hits = []
    for bits in range(2**12):
        swap = ((bits >> code) & 1).astype(bool)[:, None]
        a, b = np.where(swap, other, s), np.where(swap, s, other)
        hits.append(abs(accuracy(y, a) - accuracy(y, b))[0] >= seen - 1e-12)
    assert p == pytest.approx(np.mean(hits), abs=0.05)


def test_permutation_of_an_auroc_ignores_the_scale_of_the_scores():
    y, s, patient = made()
    other = s + np.random.default_rng(1).normal(size=s.shape)
    assert stats.paired_permutation(auroc, y, s, other, patient, n=200) == stats.paired_permutation(
        auroc, y, s, np.exp(other), patient, n=200
    )


def test_mcnemar_is_the_binomial_test_and_clusters_by_patient():
    rng = np.random.default_rng(0)
    a, b = rng.random(100) < 0.8, rng.random(100) < 0.6
    p, method = stats.mcnemar(a, b, np.arange(100))
    won, lost = (a & ~b).sum(), (b & ~a).sum()
    assert p == pytest.approx(sp.binomtest(int(won), int(won + lost)).pvalue)
    assert "exact" in method
    doubled, method = stats.mcnemar(np.repeat(a, 2), np.repeat(b, 2), np.repeat(np.arange(100), 2))
    assert doubled == pytest.approx(sp.chi2.sf((won - lost) ** 2 / (won + lost), 1))  # copies do not count
    assert "Durkalski" in method
    assert stats.mcnemar(a, a, np.arange(100))[0] == 1


def test_holm_is_its_definition():
    assert stats.holm([0.01, 0.04, np.nan, 0.03]) == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert stats.holm([0.6, 0.7]).tolist() == [1, 1]


def test_the_minimal_detectable_difference_has_its_power():
    se = 0.02
    d = stats.Difference(0.0, -1.96 * se, 1.96 * se, 1.0, "not distinguishable", "")
    found = stats.minimal_detectable_difference(d)
    assert sp.norm.sf(1.96 - found / se) == pytest.approx(0.8, abs=1e-3)


def test_a_label_with_one_class_is_excluded_from_value_and_interval():
    y, s, patient = made(c=2)
    y[:, 1] = 0
    alone = stats.cluster_bootstrap(auroc, y[:, :1], s[:, :1], patient, n=100)
    both = stats.cluster_bootstrap(auroc, y, s, patient, n=100)
    assert (both.value, both.low, both.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert stats.auroc_interval(y, s, patient).low == pytest.approx(stats.auroc_interval(y[:, 0], s[:, 0], patient).low)
    assert np.isnan(stats.auroc_interval(y[:, 1], s[:, 1], patient).value)


def test_folds_without_an_error_have_a_width_and_draws_of_one_fold_do_not_narrow_it():
    y = np.arange(20) % 2.0
    fold = lambda f, shift: (y, y * shift + np.arange(20) * 0.01, np.char.add(f"{f}-", np.arange(20).astype(str)))  # noqa: E731
    perfect = stats.pooled_interval([[fold(f, 5)] for f in range(3)])
    # All 30 patients per class are ranked correctly: the success rate at which this has probability 2.5 %.
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1.0, 0.025 ** (1 / 30), 1.0))
    y, s, patient = made()
    once, twice = stats.pooled_interval([[(y, s, patient)]]), stats.pooled_interval([[(y, s, patient)] * 2])
    assert (twice.low, twice.value, twice.high) == pytest.approx((once.low, once.value, once.high))
    again = stats.cluster_bootstrap(balanced_accuracy, y, y, patient, n=30)
    assert 0 < again.low < again.value == again.high == 1.0


def test_pooled_folds_have_the_mean_area_and_the_variance_of_a_mean_of_independent_parts():
    parts = [[(*(a[:, 0] if a.ndim == 2 else a for a in made(seed=i)[:2]), np.char.add(made(seed=i)[2], f"f{i}"))] for i in range(2)]
    alone, both = [stats.pooled_interval([p]) for p in parts], stats.pooled_interval(parts)
    assert both.value == pytest.approx(np.mean([a.value for a in alone]))
    variance = lambda tests: area_variance(pool_parts(area_estimate(tests).parts))[0]  # noqa: E731
    assert variance(parts) == pytest.approx(sum(variance([p]) for p in parts) / 4, rel=0.02)


def test_two_systems_without_an_error_are_not_distinguishable_and_the_interval_has_a_width():
    y = np.arange(60) % 2.0
    got = stats.auroc_difference(y, y, 2 * y + 0.1 * np.arange(60) / 60, np.arange(60))
    assert (got.value, got.p, got.verdict) == (0.0, 1.0, "not distinguishable")
    assert got.low < 0 < got.high
    some = made()
    same = stats.auroc_difference(*some[:2], 3 * some[1], some[2])
    assert (same.low, same.high) == (0.0, 0.0)  # one order, with the same errors


def test_a_difference_of_areas_does_not_exceed_one():
    """Almost all wrong against all right: a normal approximation exceeds -1."""
    y = np.repeat([0.0, 1.0], 20)
    good, bad = y + np.linspace(0, 0.5, 40), -y + np.random.default_rng(0).normal(0, 0.4, 40)
    d = stats.auroc_difference(y, bad, good, np.arange(40).astype(str))
    assert -1 <= d.low <= d.value <= d.high <= 1
    assert stats.verdict.clip_difference(-1.2, float("nan"))[0] == -1
    assert np.isnan(stats.verdict.clip_difference(-1.2, float("nan"))[1])
