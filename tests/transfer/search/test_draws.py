"""The settings of trials: Latin hypercube samples that depend on seed, name and number alone."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import kstest

from encoders.runtime.errors import InputError
from transfer.search.draws import draw_trials
from transfer.search.space import parse_space


def test_the_first_trial_is_as_given_and_the_rest_are_drawn_once_from_each_part_of_the_range():
    trials = draw_trials(parse_space("lr=1e-5..1e-1,warmup=0..0.3"), 41, seed=3)
    assert trials[0] == {}
    exponents = np.array([np.log10(trial["optim.lr"]) for trial in trials[1:]])
    assert Counter(np.floor((exponents + 5) / 4 * 40 + 1e-2).astype(int)).most_common(1)[0][1] <= 2, "three digits may cross a border"
    shares = np.array([trial["warmup"] / 0.3 for trial in trials[1:]])
    assert sorted(np.floor(shares * 40).astype(int))[::13] == pytest.approx([0, 13, 26, 39], abs=1)
    assert abs(np.corrcoef(exponents, shares)[0, 1]) < 0.5


def test_a_logarithmic_range_is_uniform_in_its_logarithm():
    found = [t["optim.lr"] for seed in range(40) for t in draw_trials(parse_space("lr=1e-5..1e-1"), 11, seed)[1:]]
    assert kstest((np.log10(found) + 5) / 4, "uniform").pvalue > 0.01


def test_draws_depend_on_seed_name_and_number_alone():
    both = draw_trials(parse_space("lr,lora.rank,head_lr"), 20, seed=0)
    alone = draw_trials(parse_space("head_lr,lr"), 20, seed=0)
    assert [{"optim.lr": t["optim.lr"], "head_lr": t["head_lr"]} for t in both[1:]] == alone[1:]
    assert draw_trials(parse_space("lr"), 20, seed=1) != draw_trials(parse_space("lr"), 20, seed=0)


def test_whole_numbers_have_equal_shares_and_include_both_ends():
    trials = draw_trials(parse_space("last.count=1..4"), 401, seed=0, integers=["last.count"])
    assert Counter(t["last.count"] for t in trials[1:]) == {1: 100, 2: 100, 3: 100, 4: 100}


def test_a_grid_is_drawn_without_replacement():
    space = parse_space("batch=16|32|64,ema=0|0.9")
    trials = draw_trials(space, 7, seed=5)
    assert len({tuple(sorted(t.items())) for t in trials[1:]}) == 6
    with pytest.raises(InputError, match="have 6 combinations; give at most --trials 7"):
        draw_trials(space, 8, seed=5)
    assert draw_trials([], 3, seed=0) == [{}, {}, {}]
