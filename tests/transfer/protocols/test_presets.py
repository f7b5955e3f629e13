"""Published probes against slow references written from their descriptions."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, permutation
from transfer.metrics import macro_f1
from transfer.protocols import linear, presets
from transfer.protocols.common import Features
from transfer.protocols.logistic import solve_logistic


def made(n=150, d=6, k=3, seed=0, kind="multiclass"):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    x = rng.normal(size=(n, d)) + 1.5 * np.random.default_rng(9).normal(size=(k, d))[code]
    y = np.eye(k)[code] if kind == "multiclass" else (code == 0)[:, None]
    names = np.arange(n).astype(str)
    return Features(x.astype(np.float32), y.astype(np.float32), names, names, kind)


def test_the_heads_of_thunder_equal_heads_trained_one_by_one():
    train, val = made(), made(60, seed=1)
    settings = [(1e-2, 0.0), (1e-3, 1e-2)]
    got = presets.train_linear_heads(train, val, settings, batch=64, steps=9, decoupled=False, score=macro_f1, seed=3)
    torch.manual_seed(3)
    layers = [nn.Linear(6, 3) for _ in settings]
    best = (-1.0, None)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y.argmax(1))
    course = []
    for layer, (lr, wd) in zip(layers, settings, strict=True):
        optimizer = torch.optim.Adam(layer.parameters(), lr=lr, weight_decay=wd)
        for epoch in range(3):
            order = permutation(3, Purpose.SHUFFLE, epoch, 150)
            for rows in (order[:64], order[64:128], order[128:]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
                optimizer.step()
            p = torch.softmax(layer(torch.from_numpy(val.x)), 1).detach().double().numpy()
            course.append((macro_f1(val.y, p, "multiclass")[0], epoch + 1, lr, p))
    best = max(course, key=lambda c: (c[0], -c[1]))
    assert got.selection["score"] == pytest.approx(best[0])
    assert (got.selection["epoch"], got.selection["lr"]) == (best[1], best[2])
    assert got.scores(val) == pytest.approx(best[3], abs=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_uni_minimises_its_objective_on_train_and_validation_rows(kind):
    d = 60  # with a few columns the penalty, 1 / (2 D K / 100), would hold everything at zero
    train, val = made(d=d, kind=kind), made(60, d=d, seed=1, kind=kind)
    got = linear.fit(linear.Config(preset="uni"), train, val)
    assert np.linalg.norm(got.weight) > 0.1
    x = np.concatenate([train.x, val.x]).astype(np.float64)
    y = np.concatenate([train.y, val.y])
    code, k = (y.argmax(1), 3) if kind == "multiclass" else (y[:, 0].astype(int), 2)
    cost = d * k / 100

    def objective(theta):
        w, b = theta[:-k].reshape(k, d), theta[-k:]
        z = x @ w.T + b
        return (np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), code]).mean() + np.linalg.norm(w) / (2 * cost)

    found = minimize(objective, 0.01 * np.ones((d + 1) * k), method="BFGS").fun
    assert objective(np.concatenate([got.weight.ravel(), got.bias])) == pytest.approx(found, abs=1e-4)
    assert got.scores(val).shape == val.y.shape


def test_dinov2s_logistic_regression_is_unscaled_and_refitted():
    train, val = made(), made(60, seed=1)
    got = linear.fit(linear.Config(preset="dinov2_log"), train, val)
    assert len(got.selection["table"]) == 45
    both = solve_logistic(
        np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y]), [got.selection["C"]], "multiclass", standardise=False
    )
    assert got.scores(val) == pytest.approx(linear.logits_to_probabilities(both.logits(val.x)[0], "multiclass"), abs=1e-3)


def test_published_grids_are_those_of_the_papers():
    assert len(presets.THUNDER_SETTINGS) == 9
    assert {lr for lr, _ in presets.THUNDER_SETTINGS} == {1e-3, 1e-4, 1e-5}
    assert {wd for _, wd in presets.THUNDER_SETTINGS} == {0.0, 1e-3, 1e-4}


def test_a_multi_label_task_is_refused_with_what_to_do():
    rows = made(kind="multiclass")
    rows = Features(rows.x, rows.y, rows.key, rows.patient, "multilabel")
    with pytest.raises(InputError, match="preset=logistic"):
        linear.fit(linear.Config(preset="thunder"), rows, rows)
