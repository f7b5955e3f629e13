"""Draws of patients and codes that records share, against plain loops."""

import numpy as np
import pytest

from transfer.stats import patient_draws
from transfer.stats.bootstrap import draw_resamples, percentile_band, percentile_interval
from transfer.stats.patient_draws import draw_patients, sum_drawn
from transfer.stats.patients import encode_patients, name_patients


def names(seed=0, n=60, patients=20):
    return np.array([f"p{i % patients}" for i in np.random.default_rng(seed).permutation(n)])


def test_draws_of_patients_are_those_of_their_rows():
    patient = names()
    code, drawn = draw_patients(patient, 40, seed=3)
    weights = np.concatenate(list(draw_resamples(patient, 40, seed=3)), axis=1)
    np.testing.assert_array_equal(drawn[code][:, 1:], weights)
    assert (drawn[:, 0] == 1).all()
    assert (drawn[:, 1:].sum(axis=0) == len(set(patient.tolist()))).all()


def test_kept_draws_depend_on_the_number_of_patients_the_resamples_and_the_seed():
    first = draw_patients(names(), 40)[1]
    assert draw_patients(names(1), 40)[1] is first, "the same number of patients"
    for other in (draw_patients(names(), 41)[1], draw_patients(names(), 40, seed=1)[1], draw_patients(names(patients=10), 40)[1]):
        assert other.shape != first.shape or (other != first).any()
    np.testing.assert_array_equal(draw_patients(names(), 40)[1], first)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 5


def test_large_draws_are_not_kept(monkeypatch):
    monkeypatch.setattr(patient_draws, "MOST_KEPT", 10)
    one, other = draw_patients(names(), 30, seed=9)[1], draw_patients(names(), 30, seed=9)[1]
    assert one is not other
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [3, 2**23])  # the second exceeds what single precision adds exactly
def test_sums_over_drawn_patients_are_exact(size):
    rng = np.random.default_rng(0)
    drawn, table = rng.integers(0, 4, (7, 600)).astype(np.int16), rng.integers(0, size, (7, 5))
    want = [[sum(int(drawn[u, b]) * int(table[u, j]) for u in range(7)) for j in range(5)] for b in range(600)]
    np.testing.assert_array_equal(sum_drawn(drawn, table), want)


def test_codes_are_shared_only_by_arrays_that_cannot_change():
    patient = names()
    want = np.unique(patient, return_inverse=True)
    patient.flags.writeable = False
    first, code = name_patients(patient)
    np.testing.assert_array_equal(first, want[0])
    np.testing.assert_array_equal(code, want[1])
    assert name_patients(patient)[0] is first
    free = names()
    assert encode_patients(free)[1] == len(set(free.tolist()))
    free[:] = "one"
    assert encode_patients(free)[1] == 1


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.9])
def test_a_band_is_the_interval_of_every_column(holes):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 6))
    values[rng.random(values.shape) < holes] = np.nan
    want = np.array([percentile_interval(column, 0.95) for column in values.T])
    np.testing.assert_array_equal(np.stack(percentile_band(values, 0.95), axis=1), want)
