"""Sampled factors: draws of the labeled patients, folds, seeds and episodes enter every interval and verdict."""

import numpy as np
import pytest
from scipy import stats as sp

from transfer.metrics import auroc
from transfer.stats.estimate import Estimate, estimate_difference, estimate_interval
from transfer.stats.factors import Position, draw_of, factor_spreads, level_means
from transfer.stats.parts import measure_part


def scored_draws(rng, patients, draws, spread, shift=1.0):
    """For every draw the scores of one encoder on the same patients: the quality of a draw varies, as that of a probe on few labels."""
    y = (np.arange(patients) % 2).astype(float)
    noise = rng.normal(size=patients)
    return y, [(shift + rng.normal(0, spread)) * y + noise + 0.5 * rng.normal(size=patients) for _ in range(draws)]


def estimate(y, scores, **more):
    patient = np.arange(len(y)).astype(str)
    parts = {Position(draw=d): measure_part(y, s, patient) for d, s in enumerate(scores)}
    return Estimate(parts, len(y) // 2, sampled_labels=True, **more)


def test_the_interval_adds_the_draws_half_width_from_students_t():
    rng = np.random.default_rng(0)
    y, a = scored_draws(rng, 200, 5, 0.4)
    _, b = scored_draws(rng, 200, 5, 0.4)
    got = estimate_difference(estimate(y, a), estimate(y, b))
    each = [auroc(y, s)[0] - auroc(y, t)[0] for s, t in zip(a, b, strict=True)]
    assert got.value == pytest.approx(np.mean(each))
    extra = sp.t.ppf(0.975, 4) * np.std(each, ddof=1) / np.sqrt(5)
    alone = estimate_difference(*(Estimate(estimate(y, s).parts, 100) for s in ([np.mean(a, 0)], [np.mean(b, 0)])))
    assert got.high - got.value > extra
    assert got.high - got.value < extra + alone.high - alone.low
    assert "5 draws of the labeled patients" in got.method


@pytest.mark.slow
@pytest.mark.parametrize("patients", [500, 2000])
def test_exchangeable_encoders_on_few_labels_rarely_get_a_verdict(patients):
    """Both encoders are equally good on average; each draw makes one better by chance. 5 % are due; without the draws, 20 % and more."""
    false, narrow, single = [], [], []
    for trial in range(300):
        rng = np.random.default_rng([trial, patients])
        y, a = scored_draws(rng, patients, 5, 0.35)
        _, b = scored_draws(rng, patients, 5, 0.35)
        one, other = estimate(y, a), estimate(y, b)
        false.append(estimate_difference(one, other).reported_verdict in ("better", "worse"))
        positions = [
            {Position(checkpoint=0, draw=0): measure_part(y, np.mean([sp.rankdata(s) for s in x], 0), np.arange(patients))} for x in (a, b)
        ]
        narrow.append(estimate_difference(*(Estimate(p, patients // 2) for p in positions)).verdict in ("better", "worse"))
        single.append(estimate_difference(estimate(y, a[:1]), estimate(y, b[:1])).reported_verdict)
    assert np.mean(false) <= 0.06
    assert np.mean(narrow) > 0.12  # why the draws must enter
    assert set(single) == {"insufficient draws"}


def test_one_draw_of_some_labels_has_no_verdict_and_all_labels_have_one():
    rng = np.random.default_rng(1)
    y, (a,) = scored_draws(rng, 200, 1, 0.0, shift=3.0)
    _, (b,) = scored_draws(rng, 200, 1, 0.0, shift=0.2)
    assert estimate_difference(estimate(y, [a]), estimate(y, [b])).reported_verdict == "insufficient draws"
    every = [Estimate(estimate(y, [s]).parts, 100) for s in (a, b)]
    assert estimate_difference(*every).reported_verdict == "better"


def test_one_draw_in_each_of_several_folds_counts_as_several_draws():
    values = {Position(fold=f): v for f, v in enumerate((0.1, 0.2, 0.3, 0.2))}
    (spread,) = factor_spreads(values, [1.0] * 4, sampled_labels=True)
    assert spread.variance == pytest.approx(np.var([0.1, 0.2, 0.3, 0.2], ddof=1) / 4)
    assert spread.df == 3
    # With all labels, only what exceeds the variation of the patients is that of the training sets.
    (excess,) = factor_spreads(values, [0.002] * 4, sampled_labels=False)
    assert excess.variance == pytest.approx((np.var([0.1, 0.2, 0.3, 0.2], ddof=1) - 0.002) / 4)
    assert factor_spreads(values, [1.0] * 4, sampled_labels=False) == []


def test_draws_with_a_seed_each_are_one_sample_and_crossed_ones_are_two():
    values = [0.1, 0.3, 0.2]
    (together,) = factor_spreads({Position(draw=i, seed=10 + i): v for i, v in enumerate(values)}, [], sampled_labels=True)
    assert together.variance == pytest.approx(np.var(values, ddof=1) / 3)
    assert together.df == 2
    crossed = {Position(draw=d, seed=s): 0.1 * d + 0.3 * s for d in range(3) for s in range(2)}
    draws, seeds = factor_spreads(crossed, [], sampled_labels=True)
    assert draws.variance == pytest.approx(np.var([0.0, 0.1, 0.2], ddof=1) / 3)
    assert seeds.variance == pytest.approx(np.var([0.0, 0.3], ddof=1) / 2)


def test_draws_are_averaged_over_folds_before_their_spread_is_taken():
    values = {Position(fold=f, draw=d): 0.1 * f + 0.02 * d for f in range(3) for d in range(2)}
    assert level_means(values, draw_of) == pytest.approx([0.1, 0.12])


def test_episodes_are_paired_only_if_their_support_sets_are_the_same():
    rng = np.random.default_rng(0)
    y, (a,) = scored_draws(rng, 300, 1, 0.0)
    shared, own = rng.normal(0, 0.1, 100), rng.normal(0, 0.01, (2, 100))
    parts = Estimate(estimate(y, [a]).parts, 150).parts
    with_episodes = [Estimate(parts, 150, episodes=0.8 + shared + e, episodes_digest="d") for e in own]
    paired = estimate_difference(*with_episodes)
    unpaired = estimate_difference(with_episodes[0], Estimate(parts, 150, episodes=0.8 + shared + own[1], episodes_digest="e"))
    assert unpaired.high - unpaired.low > 3 * (paired.high - paired.low)
    assert "100 episodes" in paired.method


@pytest.mark.parametrize(("true", "want"), [(0.0, "equivalent"), (0.6, "better")])
def test_a_margin_adds_equivalence_by_two_one_sided_tests(true, want):
    """The p-values are those of the 90 % interval: both ends inside the margin means p <= .05."""
    rng = np.random.default_rng(2)
    y = (np.arange(4000) % 2).astype(float)
    base = 1.5 * y + rng.normal(size=4000)
    a, b = base + 0.2 * rng.normal(size=4000) + true * y, base + 0.2 * rng.normal(size=4000)
    one, other = (Estimate({Position(): measure_part(y, s, np.arange(4000))}, 2000) for s in (a, b))
    got = estimate_difference(one, other, margin=0.02)
    assert got.equivalence_p <= 0.05 if want == "equivalent" else got.equivalence_p > 0.05
    ninety = estimate_difference(one, other, level=0.9)
    assert (got.equivalence_p <= 0.05) == (ninety.low > -0.02 and ninety.high < 0.02)
    assert (got.inferiority_p <= 0.05) == (ninety.low > -0.02)
    # The p-value itself: the interval of that level ends exactly at the margin.
    at = estimate_difference(one, other, level=1 - 2 * got.inferiority_p)
    assert at.low == pytest.approx(-0.02, abs=1e-6) or got.inferiority_p < 1e-10


def test_few_patients_have_no_interval_but_a_permutation_p_value_that_is_exact():
    y = np.r_[np.zeros(5), np.ones(5)]
    rng = np.random.default_rng(0)
    a, b = y + 0.1 * rng.normal(size=10), rng.normal(size=10)
    from transfer.stats import auroc_difference

    got = auroc_difference(y, a, b, np.arange(10))
    assert np.isnan(got.low)
    ranks = [sp.rankdata(s) for s in (a, b)]
    seen = abs(auroc(y, a)[0] - auroc(y, b)[0])
    hits = []
    for bits in range(2**10):
        swap = ((bits >> np.arange(10)) & 1).astype(bool)
        hits.append(abs(auroc(y, np.where(swap, ranks[1], ranks[0]))[0] - auroc(y, np.where(swap, ranks[0], ranks[1]))[0]) >= seen - 1e-12)
    assert got.p == pytest.approx(np.mean(hits), abs=1e-12)
    assert np.isnan(estimate_interval(Estimate({Position(): measure_part(y, a, np.arange(10))}, 5)).low)
