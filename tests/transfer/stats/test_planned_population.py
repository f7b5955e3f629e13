"""Pilot scores, the population that planned test sets are drawn from, and the components of drawn sets."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from tests.perf.binormal_power import Binormal, draw_pilot
from transfer.stats.factors import Position
from transfer.stats.latent_scores import latent_scores
from transfer.stats.parts import measure_part
from transfer.stats.pilot_rows import PilotRows, limit_images
from transfer.stats.placement_components import placement_values
from transfer.stats.planned_population import build_population
from transfer.stats.resampled_parts import resampled_parts
from transfer.stats.weighted_placements import sort_rows, weighted_area, weighted_placements


def pilot(labels=1, repeats=1, patients=50, seed=0, decimals=None):
    """1 to 4 images a patient, some patients with both classes, some labels unknown. decimals: rounds scores, which gives ties."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    n = len(patient)
    y = ((patient < 0.4 * patients)[:, None] & (rng.random((n, labels)) < 0.7)).astype(float)
    y[rng.random((n, labels)) < 0.05] = np.nan
    y[0], y[-1] = 1, 0
    common = rng.normal(size=(patients, labels))[patient]
    a, b = (common + rng.normal(size=(repeats, n, labels)) + skill * np.nan_to_num(y) for skill in (1.5, 1.2))
    if decimals is not None:
        a, b = a.round(decimals), b.round(decimals)
    return PilotRows(y, a, b, patient, tuple(Position(draw=r) for r in range(repeats)))


@pytest.mark.parametrize("decimals", [None, 0])
def test_placements_with_weights_are_those_of_repeated_rows(decimals):
    p = pilot(decimals=decimals)
    y, s, rng = p.y[:, 0], p.a[0, :, 0], np.random.default_rng(1)
    weight = rng.integers(0, 4, (len(y), 3)).astype(float)
    got, area = weighted_placements(sort_rows(y, s), weight), weighted_area(sort_rows(y, s), weight)
    for b in range(3):
        rows = np.repeat(np.arange(len(y)), weight[:, b].astype(int))
        rows = rows[~np.isnan(y[rows])]
        np.testing.assert_allclose(got[rows, b], placement_values(y[rows] == 1, s[rows]), atol=1e-12)
        assert area[b] == pytest.approx(roc_auc_score(y[rows], s[rows]), abs=1e-12)


@pytest.mark.parametrize(("labels", "decimals"), [(1, None), (1, 0), (3, None)])
def test_a_drawn_test_set_has_the_components_of_its_rows(labels, decimals):
    p = pilot(labels, decimals=decimals)
    copies = np.random.default_rng(2).multinomial(120, np.full(p.patients, 1 / p.patients), size=4)
    copies[3, : p.patients // 2] = 0  # no positive patients
    copies[3, -1] += 120 - copies[3].sum()
    for part, drawn in zip(resampled_parts(p.y, p.a[0], p.patient, copies, np.arange(120)), copies, strict=True):
        rows, names = [], []
        for profile in np.repeat(np.arange(p.patients), drawn):
            own = np.flatnonzero(p.patient == profile)
            names += [f"{len(set(names)):04}"] * len(own)
            rows += own.tolist()
        want = measure_part(p.y[rows], p.a[0][rows], np.array(names))
        assert len(want.labels) == len(part.labels) == labels
        for w, g in zip(want.labels, part.labels, strict=True):
            if w is None:
                assert g is None
                continue
            assert g.area == pytest.approx(w.area, abs=1e-12)
            np.testing.assert_allclose(g.positive, w.positive, atol=1e-12)
            np.testing.assert_allclose(g.negative, w.negative, atol=1e-12)
            assert (g.n_positive, g.n_negative, g.n) == (w.n_positive, w.n_negative, w.n)


def test_a_patient_alone_in_its_class_has_no_known_contribution():
    p = draw_pilot(Binormal(0.8, 0.8), 1, 9, np.random.default_rng(0))
    (part,) = resampled_parts(p.y, p.a[0], p.patient, np.ones((1, 10), dtype=int), np.arange(10))
    (want,) = measure_part(p.y, p.a[0], p.patient.astype(str)).labels
    np.testing.assert_array_equal(np.isnan(part.labels[0].positive), np.isnan(want.positive))
    assert np.isnan(part.labels[0].positive).sum() == 1


@pytest.mark.parametrize("decimals", [None, 0, 1])
def test_latent_scores_keep_order_and_ties_and_a_shift_raises_the_area(decimals):
    p = pilot(decimals=decimals)
    y, s = p.y[:, 0], p.a[0, :, 0]
    z, known = latent_scores(s, np.random.default_rng(0)), ~np.isnan(y)
    areas = [roc_auc_score(y[known], z.shifted(shift, y == 1)[known]) for shift in (-9, -0.2, -0.05, 0, 0.05, 0.2, 9)]
    assert areas == sorted(areas)
    assert areas[0] < 0.02
    assert areas[-1] > 0.98
    assert areas[3] == pytest.approx(roc_auc_score(y[known], s[known]), abs=1e-12)
    if decimals == 0:
        moved = z.shifted(0.3, y == 1)
        assert len(np.unique(moved)) < 3 * len(np.unique(s)), "scores of few values keep few values"
        assert areas[3] - areas[2] < 0.05, "a small shift does not resolve all ties"


@pytest.mark.parametrize("changes", [{}, {"images": 1}, {"images": 2}, {"prevalence": 0.05}, {"prevalence": 0.6, "images": 1}])
@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("difference", [-0.05, 0.0, 0.0123, 0.08])
def test_a_population_has_exactly_the_planned_difference_and_prevalence(changes, decimals, difference):
    population = build_population(pilot(decimals=decimals), difference, **changes)
    rows, share = population.rows, population.share[population.rows.patient]
    known = ~np.isnan(rows.y[:, 0])
    one, other = (roc_auc_score(rows.y[known, 0], s[0, known, 0], sample_weight=share[known]) for s in (rows.a, rows.b))
    assert one - other == pytest.approx(difference, abs=1e-9)
    assert population.share.sum() == pytest.approx(1)
    if "prevalence" in changes:
        assert population.prevalence == pytest.approx(changes["prevalence"])
    if "images" in changes:
        assert np.bincount(rows.patient).max() <= changes["images"]


def test_the_difference_of_several_labels_and_draws_is_their_mean():
    population = build_population(pilot(labels=3, repeats=2), 0.04)
    assert population.differences().mean() == pytest.approx(0.04, abs=1e-9)
    assert abs(population.differences()[0] - 0.04) > 1e-4, "draws keep what they differ by"


def test_without_a_planned_difference_the_pilot_is_left_as_it_is():
    p = pilot()
    population = build_population(p, None)
    np.testing.assert_array_equal(population.rows.a, p.a)
    known = ~np.isnan(p.y[:, 0])
    want = roc_auc_score(p.y[known, 0], p.a[0, known, 0]) - roc_auc_score(p.y[known, 0], p.b[0, known, 0])
    assert population.differences()[0] == pytest.approx(want, abs=1e-12)


def test_a_shift_keeps_the_correlation_of_encoders_and_of_images_of_a_patient():
    p = draw_pilot(Binormal(0.85, 0.85, between=0.5, within=0.8, images=2), 2000, 2000, np.random.default_rng(0))
    population = build_population(p, 0.04)
    z, other, positive = population.rows.a[0, :, 0], norm.ppf(np.argsort(np.argsort(p.b[0, :, 0])) / len(p.y) + 1e-4), p.y[:, 0] == 1
    z = z[: len(p.y)]
    assert np.corrcoef(z[positive], other[positive])[0, 1] == pytest.approx(0.5, abs=0.05)
    first, second = z[positive].reshape(-1, 2).T
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.8, abs=0.04)


def test_an_impossible_difference_is_refused_with_the_possible_ones():
    with pytest.raises(InputError, match=r"\+0\.4 is not possible.*differences from"):
        build_population(pilot(), 0.4)


def test_a_limit_of_images_divides_patients_into_profiles_of_equal_weight():
    p = pilot()
    limited, weight = limit_images(p, 2)
    before, after = np.bincount(p.patient), np.bincount(limited.patient)
    assert after.max() == 2
    assert weight.sum() == pytest.approx(len(before)), "a patient has the weight 1"
    assert len(after) == np.maximum(before // 2, 1).sum()
    where = {v: i for i, v in enumerate(p.a[0, :, 0])}
    owners = [{int(p.patient[where[v]]) for v in limited.a[0, limited.patient == g, 0]} for g in range(len(after))]
    assert all(len(owner) == 1 for owner in owners), "the images of a profile are of one patient"
