"""The loss of the logistic solver above its minimum, at every prevalence and C, against Newton's method and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from transfer.protocols import linear
from transfer.protocols.common import Features
from transfer.protocols.linear_config import Config
from transfer.protocols.logistic import logits_to_probabilities, solve_logistic

GRID = np.logspace(-6, 6, 13)
EXCESS = 1e-3  # largest loss above the minimum, as a share of it


def make_rare(n, d, prevalence, separable, seed=0):
    """Correlated features after a ReLU, and a label of the given prevalence that they predict, perfectly if separable."""
    draw = np.random.default_rng(seed)
    factors = draw.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    x = np.maximum(factors @ np.linalg.qr(draw.normal(size=(d, d)))[0], 0) + 0.01 * draw.normal(size=(n, d))
    score = (x - x.mean(0)) / x.std(0) @ draw.normal(size=d) * d**-0.5
    score += 0 if separable else draw.logistic(size=n)
    return x.astype(np.float32), (score > np.quantile(score, 1 - prevalence)).astype(np.float32)


def standardised(x):
    x = x.astype(np.float64)
    return (x - x.mean(0)) / x.std(0)


def objective(theta, z, y, c):
    """Mean loss and penalty. theta: weights, then the intercept. z: rows with a column of ones."""
    logit = z @ theta
    wrong = np.where(y > 0.5, -logit, logit)
    return np.logaddexp(0, wrong).mean() + 0.5 * (theta[:-1] ** 2).sum() / (c * len(y))


def minimise(z, y, c, theta):
    """Newton's method with step halving, until the squared decrement is 1e-11 of the loss."""
    ridge = np.full(z.shape[1], 1 / (c * len(y)))
    ridge[-1] = 0
    value = objective(theta, z, y, c)
    for _ in range(300):
        logit = z @ theta
        far = np.exp(-np.abs(logit)) / (1 + np.exp(-np.abs(logit)))
        p, q = np.where(logit >= 0, 1 - far, far), np.where(logit >= 0, far, 1 - far)
        gradient = z.T @ ((1 - y) * p - y * q) / len(y) + ridge * theta
        hessian = (z * (p * q)[:, None]).T @ z / len(y) + np.diag(ridge)
        step = np.linalg.solve(hessian, -gradient)
        if -gradient @ step < 1e-11 * value:
            break
        t = 1.0
        while t > 1e-9 and objective(theta + t * step, z, y, c) > value + 1e-4 * t * (gradient @ step):
            t /= 2
        theta = theta + t * step
        value = objective(theta, z, y, c)
    return theta, value


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("prevalence", [0.5, 0.1, 0.014, 0.005])
@pytest.mark.parametrize(("n", "d"), [(1000, 64), (400, 200), (200, 250)])
def test_the_excess_loss_is_below_a_thousandth_at_every_prevalence_and_c(n, d, prevalence, separable):
    x, y = make_rare(n, d, max(prevalence, 2 / n), separable)
    model = solve_logistic(x, y[:, None], GRID, "binary", tolerance=Config().tolerance)
    assert model.converged.all()
    z = standardised(x)
    axes = np.linalg.svd(z, full_matrices=False)[2][: min(d, n - 1)].T  # the minimum lies in the span of the rows
    rows = np.concatenate([z @ axes, np.ones((n, 1))], axis=1)
    theta = np.zeros(rows.shape[1])
    theta[-1] = np.log(y.mean() / (1 - y.mean()))
    for i, c in enumerate(GRID):
        theta, least = minimise(rows, y, c, theta)
        ours = objective(np.r_[model.w[i, :, 0], model.b[i]], np.concatenate([z, np.ones((n, 1))], axis=1), y, c)
        assert least * (1 - 1e-6) <= ours <= least * (1 + EXCESS), (c, ours / least - 1)


def test_43_positives_of_3000_agree_with_scikit_learn_at_large_c():
    x, y = make_rare(3000, 256, 43 / 3000, separable=False)
    z = standardised(x)
    model = solve_logistic(x, y[:, None], [1.0, 100.0, 1e4], "binary")
    ones = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    for i, c in enumerate((1.0, 100.0, 1e4)):
        want = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(z, y)
        theirs = objective(np.r_[want.coef_[0], want.intercept_], ones, y, c)
        assert objective(np.r_[model.w[i, :, 0], model.b[i]], ones, y, c) <= theirs * (1 + EXCESS)
        p, q = (1 / (1 + np.exp(-logit)) for logit in (model.logits(x)[i, :, 0], want.decision_function(z)))
        assert np.abs(p - q).max() < 0.01


@pytest.mark.parametrize("labels", [1, 3])
def test_labels_of_every_prevalence_are_solved_as_well_together_as_alone(labels):
    x, y = make_rare(600, 40, 0.02, separable=False)
    others = np.random.default_rng(1).random((600, 2)) < [0.3, 0.05]
    y = np.concatenate([y[:, None], others], axis=1)[:, :labels].astype(np.float32)
    together = solve_logistic(x, y, GRID, "multilabel")
    for label in range(labels):
        alone = solve_logistic(x, y[:, label : label + 1], GRID, "multilabel")
        ones = np.concatenate([standardised(x), np.ones((600, 1))], axis=1)
        for i, c in enumerate(GRID):
            a, b = (objective(np.r_[m.w[i, :, k], m.b[i, k]], ones, y[:, label], c) for m, k in ((together, label), (alone, 0)))
            assert a == pytest.approx(b, rel=EXCESS)


def rows_of(x, y, start, stop):
    names = np.arange(start, stop).astype(str)
    return Features(x[start:stop], y[start:stop, None], names, names, "binary")


def test_a_solve_that_was_cut_short_says_so_for_each_c():
    x, y = make_rare(600, 60, 0.02, separable=True)
    train, val = rows_of(x, y, 0, 400), rows_of(x, y, 400, 600)
    cut = linear.fit(Config(steps=12, max_iter=2), train, val).selection
    whole = linear.fit(Config(steps=12), train, val).selection
    assert whole["converged"] is whole["converged_all"] is True
    assert cut["converged_all"] is False
    assert [row["converged"] for row in cut["table"]][-1] is False
    assert cut["converged"] is next(row["converged"] for row in cut["table"] if row["C"] == cut["C"])


def test_a_refit_that_was_cut_short_says_so():
    x, y = make_rare(600, 60, 0.02, separable=True)
    train, val = rows_of(x, y, 0, 400), rows_of(x, y, 400, 600)
    fixed = {"low": 4.0, "high": 4.0, "steps": 1}
    assert linear.fit(Config(**fixed, refit=True), train, val).selection["converged"]
    assert not linear.fit(Config(**fixed, refit=True, max_iter=2), train, val).selection["converged"]


@pytest.mark.parametrize("shape", [(300, 30), (60, 90)])
def test_rows_in_two_arrays_are_solved_as_if_they_were_joined(shape):
    x, y = make_rare(*shape, 0.3, separable=False)
    joined = solve_logistic(x, y[:, None], GRID, "binary", tolerance=1e-9)
    pieces = solve_logistic([x[:20], x[20:]], y[:, None], GRID, "binary", tolerance=1e-9)
    np.testing.assert_allclose(pieces.logits(x)[:9], joined.logits(x)[:9], atol=1e-3)


def test_rare_classes_agree_with_scikit_learn():
    draw = np.random.default_rng(0)
    x = np.maximum(draw.normal(size=(1500, 64)) * np.arange(1, 65) ** -0.5, 0).astype(np.float32)
    z = standardised(x)
    score = z @ draw.normal(size=(64, 4)) / 8 + np.log([0.9, 0.08, 0.015, 0.005]) + draw.gumbel(size=(1500, 4))
    y = np.eye(4, dtype=np.float32)[score.argmax(1)]
    assert y.sum(0).min() < 15
    cs = [1e-4, 1.0, 100.0, 1e4]
    model = solve_logistic(x, y, cs, "multiclass", tolerance=Config().tolerance)

    def loss(w, b, c):
        logit = z @ w + b
        return (np.logaddexp.reduce(logit, axis=1) - (logit * y).sum(1)).mean() + 0.5 * (w**2).sum() / (c * len(z))

    for i, c in enumerate(cs):
        want = LogisticRegression(C=c, tol=1e-9, max_iter=100_000).fit(z, y.argmax(1))
        assert loss(model.w[i], model.b[i], c) <= loss(want.coef_.T, want.intercept_, c) * (1 + EXCESS)
        assert np.abs(logits_to_probabilities(model.logits(x)[i], "multiclass") - want.predict_proba(z)).max() < 0.02
