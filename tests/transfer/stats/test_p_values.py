"""The p-value of a difference is one minus the level at which its interval first contains zero, however it is found."""

import numpy as np
import pytest

from transfer.stats.delong import area_components
from transfer.stats.difference_interval import ScoreInterval, paired_interval
from transfer.stats.factors import Spread, widen_by_spreads
from transfer.stats.mover_interval import mover_interval, p_value_from_interval


def search_level(interval):
    """By bisection over levels."""
    contains, excludes = 1.0, 0.0
    for _ in range(45):
        middle = (contains + excludes) / 2
        low, high = interval(middle)
        contains, excludes = (middle, excludes) if low <= 0 <= high else (contains, middle)
    return 1 - excludes


def two_areas(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.choice([60, 400]))
    y, code = (np.arange(n) % int(rng.integers(2, 8)) == 0).astype(float), rng.integers(0, n // 2, n)
    s, z = (rng.normal(size=n) + rng.choice([0.0, 1.0, 3.0]) * y for _ in range(2))
    return area_components(y, s, code, n), area_components(y, z, code, n)


@pytest.mark.parametrize("seed", range(60))
def test_the_p_value_is_that_of_a_search_over_levels(seed):
    one, other = two_areas(seed)
    score, mover = paired_interval(one, other), mover_interval(one, other, 0.3)
    assert isinstance(score, ScoreInterval)
    wide = widen_by_spreads(score, one.area - other.area, [Spread("draws", 1e-4, 4)])
    for ends in (score, mover, wide):
        assert p_value_from_interval(ends) == pytest.approx(search_level(ends), abs=2e-11)


def test_equal_areas_have_a_p_value_of_one_and_undefined_ones_none():
    assert p_value_from_interval(lambda level: (-level, level)) == 1.0
    assert p_value_from_interval(lambda level: (0.0, 0.0)) == 1.0
    assert np.isnan(p_value_from_interval(lambda level: (np.nan, np.nan)))
    assert p_value_from_interval(lambda level: (0.5, 0.6)) <= 1e-12
