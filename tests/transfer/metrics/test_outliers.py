"""Distances from train features: against scikit-learn, SciPy and closed forms."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from transfer.metrics.outliers import (
    Gaussians,
    fit_gaussians,
    fit_train_features,
    neighbour_distance,
    scale_to_unit,
    score_outliers,
    square_distance,
)


def data(n, d, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, classes, n)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(0, 3, (classes, d))[group] + rng.normal(size=(n, d)) @ mix, group, rng.normal(size=(40, d)) * 2


@pytest.mark.parametrize(("n", "d"), [(300, 12), (20, 50), (50, 50), (12, 4)])
def test_the_covariance_is_that_of_ledoit_and_wolf_about_the_class_means(n, d):
    x, group, new = data(n, d)
    means = np.stack([x[group == c].mean(0) for c in range(3)])
    fitted = LedoitWolf(assume_centered=True).fit(x - means[group])
    g, shrunk = fit_gaussians(x, group)
    assert shrunk.share == pytest.approx(fitted.shrinkage_)
    covariance = g.basis.T @ np.diag(g.variance - g.rest) @ g.basis + g.rest * np.eye(d)
    assert covariance == pytest.approx(fitted.covariance_, rel=1e-6, abs=1e-9)
    want = [min(mahalanobis(row, mean, fitted.precision_) ** 2 for mean in means) for row in new]
    assert square_distance(new, g) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(200, 8), (20, 50)])
def test_relative_is_the_difference_to_the_distribution_without_classes(n, d):
    x, group, new = data(n, d)
    square, whole = relative_parts(x, group, new)
    assert score_outliers(new, fit_train_features(x, group), "relative") == pytest.approx(square - whole, rel=1e-6, abs=1e-6)
    far = 1000 * new
    score = score_outliers(far, fit_train_features(x, group), "relative") / score_outliers(far, fit_train_features(x, group), "mahalanobis")
    assert (score > 0).all(), "an image that is far in every direction is not a usual one"


def relative_parts(x, group, new):
    """The squares of both distances, from scikit-learn's shrinkage and an inverse in NumPy."""
    apart = x - np.stack([x[group == c].mean(0) for c in range(group.max() + 1)])[group]
    fitted = LedoitWolf(assume_centered=True).fit(apart)
    square = np.min([fitted.mahalanobis(new - x[group == c].mean(0)) for c in range(group.max() + 1)], axis=0)
    share, mu = fitted.shrinkage_, np.trace(apart.T @ apart / len(x)) / x.shape[1]
    covariance = (1 - share) * np.cov(x.T, bias=True) + share * mu * np.eye(x.shape[1])
    off = new - x.mean(0)
    return square, np.einsum("md,de,me->m", off, np.linalg.inv(covariance), off)


@pytest.mark.parametrize("n", [4, 2000])
def test_neighbours_are_those_of_scikit_learn(n):
    x, _, new = data(n, 6)
    k = min(10, n)
    far, _ = NearestNeighbors(n_neighbors=k).fit(scale_to_unit(x)).kneighbors(scale_to_unit(np.repeat(new, 40, axis=0)))
    assert neighbour_distance(np.repeat(new, 40, axis=0), scale_to_unit(x)) == pytest.approx(far[:, -1], abs=1e-7)


def test_many_images_are_computed_in_parts(monkeypatch):
    x, group, new = data(60, 5)
    train = fit_train_features(x, group)
    whole = [score_outliers(new, train, kind) for kind in ("relative", "knn")]
    monkeypatch.setattr("transfer.metrics.outliers.DISTANCE_CHUNK", 100)
    assert [score_outliers(new, train, kind) for kind in ("relative", "knn")] == [pytest.approx(values) for values in whole]


def test_a_closed_form():
    g = Gaussians(np.array([[0.0, 0, 0], [10, 0, 0]]), np.array([[1.0, 0, 0]]), np.array([4.0]), 0.25)
    assert square_distance(np.array([[2.0, 1, 0], [9, 0, 1]]), g) == pytest.approx([4 / 4 + 1 / 0.25, 1 / 4 + 1 / 0.25])


def test_constant_features_have_finite_distances():
    train = fit_train_features(np.ones((5, 3)), np.zeros(5, dtype=int))
    for kind in ("mahalanobis", "relative", "knn"):
        assert np.isfinite(score_outliers(np.ones((2, 3)), train, kind)).all()
    assert score_outliers(np.ones((1, 3)), train, "mahalanobis") == 0
    assert np.isfinite(score_outliers(np.zeros((1, 3)), train, "knn")).all()


@pytest.mark.parametrize("kind", ["mahalanobis", "knn"])
def test_images_of_another_distribution_are_farther(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 16)) + 3
    train = fit_train_features(x, np.zeros(300, dtype=int))
    inside, outside = rng.normal(size=(100, 16)) + 3, rng.normal(size=(100, 16)) + np.r_[np.zeros(8), np.full(8, 6)]
    assert np.median(score_outliers(outside, train, kind)) > np.quantile(score_outliers(inside, train, kind), 0.99)
