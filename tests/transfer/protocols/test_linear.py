"""The linear probe against scikit-learn on the same split, and invariances of the solver."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from transfer.metrics import auroc
from transfer.protocols import linear, presets
from transfer.protocols.common import Features
from transfer.protocols.logistic import solve_logistic

GRID = np.logspace(-4, 3, 8)


def made(n=300, d=30, k=3, kind="multiclass", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(1, 0.05, d) + 3
    logit = (x - 3) @ np.random.default_rng(99).normal(size=(d, k)) * 2
    y = (
        np.eye(k)[(logit + rng.gumbel(size=logit.shape)).argmax(1)]
        if kind == "multiclass"
        else logit + rng.logistic(size=logit.shape) > 0.7
    )
    names = np.arange(n).astype(str)
    return Features(x.astype(np.float32), y.astype(np.float32), names, names, kind)


def standardised(x):
    x = x.astype(np.float64)
    return (x - x.mean(0)) / x.std(0)


def objective(w, b, z, y, c, kind):
    logit = z @ w + b
    if kind == "multiclass":
        loss = np.logaddexp.reduce(logit, axis=1) - (logit * y).sum(1)
    else:
        loss = np.logaddexp(0, logit) - y * logit
    return loss.mean() + 0.5 * (w**2).sum() / (c * len(z))


@pytest.mark.parametrize("shape", [(300, 30), (60, 90)])
def test_every_c_agrees_with_scikit_learn_in_loss_and_prediction(shape):
    for kind in ("multiclass", "binary"):
        f = made(*shape, k=3 if kind == "multiclass" else 1, kind=kind)
        z, model = standardised(f.x), solve_logistic(f.x, f.y, GRID, kind, tolerance=1e-8)
        loose = solve_logistic(f.x, f.y, GRID, kind)
        assert model.converged.all()
        assert loose.converged.all()
        for i, c in enumerate(GRID):
            truth = f.y.argmax(1) if kind == "multiclass" else f.y[:, 0]
            want = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(z, truth)
            y = f.y if kind == "multiclass" else f.y[:, 0]
            ours = objective(model.w[i] if kind == "multiclass" else model.w[i, :, 0], model.b[i], z, y, c, kind)
            theirs = objective(want.coef_.T if kind == "multiclass" else want.coef_[0], want.intercept_, z, y, c, kind)
            assert ours == pytest.approx(theirs, abs=1e-5)
            default = objective(loose.w[i] if kind == "multiclass" else loose.w[i, :, 0], loose.b[i], z, y, c, kind)
            assert default == pytest.approx(theirs, rel=1e-3)
            logit = model.logits(f.x)[i]
            predicted = logit.argmax(1) if kind == "multiclass" else (logit[:, 0] > 0)
            margin = want.decision_function(z)
            clear = np.abs(margin) > 1e-2 if kind == "binary" else np.diff(np.sort(margin, axis=1)[:, -2:], axis=1)[:, 0] > 1e-2
            assert np.array_equal(predicted[clear], want.predict(z)[clear])


def test_labels_with_unknown_rows_are_solved_independently():
    f = made(k=3, kind="multilabel")
    y = f.y.copy()
    y[::5, 0], y[3::4, 2] = np.nan, np.nan
    model, z = solve_logistic(f.x, y, GRID, "multilabel", tolerance=1e-8), standardised(f.x)
    for c in range(3):
        known = ~np.isnan(y[:, c])
        for i in (0, 4, 7):
            want = LogisticRegression(C=GRID[i], tol=1e-9, max_iter=10_000).fit(z[known], y[known, c])
            assert model.w[i, :, c] == pytest.approx(want.coef_[0], abs=2e-2)
            a = objective(model.w[i, :, c], model.b[i, c], z[known], y[known, c], GRID[i], "binary")
            assert a == pytest.approx(objective(want.coef_[0], want.intercept_, z[known], y[known, c], GRID[i], "binary"), abs=1e-5)


def test_the_solution_of_a_c_does_not_depend_on_the_grid_around_it():
    f = made()
    many, one = (
        solve_logistic(f.x, f.y, GRID, "multiclass", tolerance=1e-8),
        solve_logistic(f.x, f.y, GRID[5:6], "multiclass", tolerance=1e-8),
    )
    assert many.w[5] == pytest.approx(one.w[0], abs=1e-3)


def test_a_constant_column_is_ignored_and_gives_no_nan():
    f = made()
    wide = np.concatenate([f.x, np.full((len(f.x), 2), 7.3, np.float32)], axis=1)
    model, plain = (solve_logistic(x, f.y, GRID[:6], "multiclass", tolerance=1e-9) for x in (wide, f.x))
    assert not model.w[:, -2:].any()
    assert np.isfinite(model.logits(wide + 1)).all()
    assert model.logits(wide) == pytest.approx(plain.logits(f.x), abs=1e-3)


@pytest.mark.parametrize("columns", [5, 500])
def test_features_without_any_variation_give_the_prevalence(columns):
    y = np.repeat([[1.0], [0.0], [0.0]], 20, axis=0)
    rows = Features(np.full((60, columns), 0.3, np.float32), y, np.arange(60).astype(str), np.arange(60).astype(str), "binary")
    assert np.allclose(linear.fit(linear.Config(), rows, rows).scores(rows), 1 / 3, atol=1e-4)


def test_a_label_of_one_class_gives_a_constant_score():
    f = made(k=2, kind="multilabel")
    y = f.y.copy()
    y[:, 1] = 0
    logit = solve_logistic(f.x, y, GRID, "multilabel").logits(f.x)
    assert np.isfinite(logit).all()
    assert np.ptp(logit[..., 1]) == 0


def test_c_is_the_first_best_on_validation_and_test_rows_cannot_matter():
    train, val = made(seed=0), made(seed=1)
    cfg = linear.Config(low=-4, high=3, steps=8)
    fitted = linear.fit(cfg, train, val)
    model = solve_logistic(train.x, train.y, cfg.grid, "multiclass", tolerance=cfg.tolerance)
    val_scores = [np.nanmean(auroc(val.y, linear.logits_to_probabilities(z, "multiclass"))) for z in model.logits(val.x)]
    assert [row["score"] for row in fitted.selection["table"]] == pytest.approx(val_scores, abs=5e-3)
    assert fitted.selection["score"] == max(row["score"] for row in fitted.selection["table"])
    p = fitted.scores(val)
    assert p.dtype == np.float64
    assert p.sum(1) == pytest.approx(np.ones(len(p)))


def test_refit_uses_validation_rows_only_after_the_choice():
    train, val = made(seed=0), made(seed=1)
    plain, again = (linear.fit(linear.Config(low=-3, high=1, steps=3, refit=r, tolerance=1e-8), train, val) for r in (False, True))
    assert plain.selection == again.selection
    c = again.selection["C"]
    both = solve_logistic(np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y]), np.array([c]), "multiclass", tolerance=1e-8)
    assert again.scores(val) == pytest.approx(linear.logits_to_probabilities(both.logits(val.x)[0], "multiclass"), abs=1e-6)


@pytest.mark.parametrize(
    ("refitted", "before"),
    [
        (linear.Config(refit=True), lambda train, val: linear.fit(linear.Config(), train, val)),
        (linear.Config(preset="dinov2_log"), lambda train, val: linear.fit(linear.Config(standardise=False), train, val)),
        (linear.Config(preset="uni"), lambda train, val: presets.fit_uni(train)),
    ],
)
def test_a_refitted_probe_keeps_the_validation_scores_of_the_model_before_the_refit(refitted, before):
    """Thresholds and temperature are chosen on these; its own scores are of rows that it was trained on."""
    train, val = made(80, k=1, kind="binary"), made(60, k=1, kind="binary", seed=1)
    fitted = linear.fit(refitted, train, val)
    np.testing.assert_allclose(fitted.val_scores, before(train, val).scores(val), atol=1e-9)
    assert np.abs(fitted.scores(val) - fitted.val_scores).max() > 1e-3


def test_two_solves_are_bit_identical():
    f = made()
    assert np.array_equal(solve_logistic(f.x, f.y, GRID, "multiclass").w, solve_logistic(f.x, f.y, GRID, "multiclass").w)


def test_a_soft_target_equals_a_positive_and_a_negative_row_with_its_weights():
    f = made(k=1, kind="binary")
    soft = f.y.copy()
    soft[::3] = np.random.default_rng(0).uniform(0.55, 0.85, (len(soft[::3]), 1))
    z = standardised(f.x)
    weight = np.concatenate([soft[:, 0], 1 - soft[:, 0]])
    want = LogisticRegression(C=0.7, tol=1e-10, max_iter=5000).fit(np.concatenate([z, z]), np.repeat([1, 0], len(z)), weight)
    got = solve_logistic(f.x, soft, [0.7], "binary", tolerance=1e-8)
    np.testing.assert_allclose(got.logits(f.x)[0, :, 0], want.decision_function(z), atol=1e-3)
