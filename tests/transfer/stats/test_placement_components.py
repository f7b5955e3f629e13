"""Placement values and the components of an area from them, against loops over pairs of rows."""

import numpy as np
import pytest

from transfer.stats.delong import area_components, area_variance
from transfer.stats.placement_components import has_one_class, measure_placements, placement_components, placement_values


def loops(positive, s):
    """Placement values by the definition: every positive row with every negative row."""
    out = np.empty(len(s))
    for i, own in enumerate(positive):
        above = [(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in np.flatnonzero(positive != own)]
        out[i] = np.mean(above) if own else 1 - np.mean(above)
    return out


SCORES = {
    "continuous": lambda rng, n: rng.normal(size=n),
    "float32": lambda rng, n: rng.random(n, dtype=np.float32),
    "some ties": lambda rng, n: rng.integers(0, 12, n) / 12,
    "votes": lambda rng, n: rng.integers(0, 2, n).astype(np.float32),
    "all equal": lambda rng, n: np.full(n, 0.3),
}


def cohort(seed=0, n=90, patients=25, unknown=0.15):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < unknown, np.nan, (rng.random(n) < 0.3).astype(float))
    return y, rng.integers(0, patients, n), rng


@pytest.mark.parametrize("kind", SCORES)
def test_placement_values_equal_loops_over_pairs(kind):
    rng = np.random.default_rng(1)
    positive = rng.random(41) < 0.3
    stack = np.stack([SCORES[kind](rng, 41) for _ in range(5)])
    want = np.stack([loops(positive, s) for s in stack])
    np.testing.assert_allclose(placement_values(positive, stack), want, atol=1e-12)
    np.testing.assert_allclose(placement_values(positive, stack[2]), want[2], atol=1e-12)
    for scoring in want:
        assert scoring[positive].mean() == pytest.approx(scoring[~positive].mean(), abs=1e-12)


@pytest.mark.parametrize("kind", SCORES)
def test_components_from_the_placements_of_one_scoring_are_those_of_its_area(kind):
    y, code, rng = cohort()
    s, known = SCORES[kind](rng, len(y)), ~np.isnan(y)
    placement = np.full(len(y), np.nan)
    placement[known] = loops(y[known] > 0.5, s[known])
    got, want = placement_components(y, placement, code, 25), area_components(y, s, code, 25)
    assert (got.n_positive, got.n_negative, got.n) == (want.n_positive, want.n_negative, want.n)
    for name in ("area", "positive", "negative"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), atol=1e-12)
    # By hand: the deviations of one patient's positive rows, divided by all positive rows.
    rows = (y == 1) & (code == code[np.flatnonzero(y == 1)[0]])
    factor = np.sqrt(got.n_positive / (got.n_positive - 1))
    by_hand = factor * (placement[rows] - got.area).sum() / (y == 1).sum()
    assert got.positive[code[rows][0]] == pytest.approx(by_hand, abs=1e-12)


def test_the_mean_placement_over_scorings_has_the_components_of_the_mean_area():
    """Each scoring's components from its own scores, averaged patient by patient: an error of the mean is the mean of the errors."""
    y, code, rng = cohort(seed=3)
    known = ~np.isnan(y)
    stack = rng.normal(size=(30, len(y))) + np.nan_to_num(y)
    mean = np.full(len(y), np.nan)
    mean[known] = placement_values(y[known] > 0.5, stack[:, known]).mean(axis=0)
    got, each = placement_components(y, mean.astype(np.float32), code, 25), [area_components(y, s, code, 25) for s in stack]
    assert got.area == pytest.approx(np.mean([p.area for p in each]), abs=1e-7)
    for name in ("positive", "negative"):
        np.testing.assert_allclose(getattr(got, name), np.mean([getattr(p, name) for p in each], axis=0), atol=1e-7)
    assert area_variance(got)[0] < np.mean([area_variance(p)[0] for p in each])  # errors of the scorings partly cancel


@pytest.mark.parametrize("y", [[1.0, 1.0, np.nan], [0.0, np.nan, 0.0], [np.nan] * 3])
def test_a_label_with_a_single_class_has_no_components(y):
    y = np.array(y)
    assert has_one_class(y)
    assert placement_components(y, np.full(3, 0.5), np.arange(3), 3) is None
    assert area_components(y, np.arange(3.0), np.arange(3), 3) is None
    both = np.array([1.0, 0.0, 1.0])
    assert [p is None for p in measure_placements(np.stack([y, both], axis=1), np.full((3, 2), 0.5), np.arange(3), 3)] == [True, False]
