"""Losses for imbalance against NumPy written from their papers, their special cases, and what is ignored."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from encoders.runtime.errors import InputError
from transfer.losses.asymmetric import asymmetric_loss
from transfer.losses.class_counts import count_classes
from transfer.losses.effective_number import effective_number_weights, effective_weights
from transfer.losses.focal import focal_loss
from transfer.losses.ldam import class_margins, label_margins, ldam_loss
from transfer.losses.logit_adjustment import log_frequency, logit_adjusted_loss
from transfer.losses.registry import build_loss
from transfer.losses.settings import ImbalanceSettings
from transfer.losses.supervised import class_weights, logit_shift, supervised_loss

CPU = torch.device("cpu")


def labels(n=30, columns=3, seed=0):
    """Labels of different frequency, some unknown, and logits."""
    draw = np.random.default_rng(seed)
    y = (draw.random((n, columns)) < np.array([0.1, 0.3, 0.6])).astype(float)
    y[draw.random((n, columns)) < 0.2] = np.nan
    return y, draw.normal(size=(n, columns)) * 2


def classes(n=40, seed=1):
    """One-hot classes of different frequency, two rows unknown, and logits."""
    draw = np.random.default_rng(seed)
    truth = draw.choice(4, n, p=[0.55, 0.3, 0.1, 0.05])
    y = np.eye(4)[truth]
    y[3], y[7] = np.nan, np.nan
    return y, draw.normal(size=(n, 4)) * 2


def both(kind):
    return labels() if kind == "multilabel" else classes()


def tensors(y, z):
    return torch.tensor(z, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_loss_of_labels_is_that_of_the_paper(gamma, alpha):
    y, z = labels()
    terms = []
    for target, logit in zip(y.ravel(), z.ravel(), strict=True):
        if np.isnan(target):
            continue
        p = 1 / (1 + np.exp(-logit))
        p_t = p if target == 1 else 1 - p
        a = 1.0 if alpha is None else (alpha if target == 1 else 1 - alpha)
        terms.append(-a * (1 - p_t) ** gamma * np.log(p_t))
    assert focal_loss(*tensors(y, z), "multilabel", gamma, alpha).item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_of_classes_is_that_of_the_paper(gamma):
    y, z = classes()
    terms = []
    for target, logit in zip(y, z, strict=True):
        if not np.isnan(target).any():
            p_t = softmax(logit)[target.argmax()]
            terms.append(-((1 - p_t) ** gamma) * np.log(p_t))
    assert focal_loss(*tensors(y, z), "multiclass", gamma, None).item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize(("positive", "negative", "margin"), [(0.0, 0.0, 0.0), (0.0, 4.0, 0.05), (1.0, 2.0, 0.2)])
def test_asymmetric_loss_is_that_of_the_paper(positive, negative, margin):
    y, z = labels()
    terms = []
    for target, logit in zip(y.ravel(), z.ravel(), strict=True):
        p = expit(logit)
        shifted = max(p - margin, 0.0)
        if target == 1:
            terms.append(-((1 - p) ** positive) * np.log(p))
        elif target == 0:
            terms.append(-(shifted**negative) * np.log(1 - shifted))
    assert asymmetric_loss(*tensors(y, z), positive, negative, margin).item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_effective_number_weights_are_those_of_the_paper():
    count, beta = np.array([1, 10, 5000]), 0.999
    raw = np.array([(1 - beta) / (1 - beta**n) for n in count.tolist()])
    assert effective_number_weights(count, beta) == pytest.approx(raw * 3 / raw.sum(), rel=1e-12)
    assert effective_number_weights(count, 0.0).tolist() == [1, 1, 1]
    assert effective_number_weights(np.array([4, 0, 4]), 0.9).tolist() == [1, 1, 1]
    near = effective_number_weights(np.array([2, 4]), 1 - 1e-12)  # the limit: inverse frequency
    assert near[0] / near[1] == pytest.approx(2.0, rel=1e-6)
    y, _ = labels()
    counts = count_classes(y)
    assert counts.positive.tolist() == np.nansum(y, axis=0).tolist()
    n, m = counts.positive[0], counts.negative[0]
    assert effective_weights(counts, "multilabel", 0.9)[0] == pytest.approx((1 - 0.9**m) / (1 - 0.9**n), rel=1e-9)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logit_adjustment_is_that_of_the_paper(tau):
    y, z = classes()
    known = ~np.isnan(y).any(axis=1)
    share = y[known].mean(axis=0)
    terms = -log_softmax(z[known] + tau * np.log(share), axis=1)[np.arange(known.sum()), y[known].argmax(axis=1)]
    adjustment = torch.tensor(tau * log_frequency(count_classes(y), "multiclass"))
    assert logit_adjusted_loss(*tensors(y, z), "multiclass", adjustment).item() == pytest.approx(terms.mean(), rel=1e-6)
    y, z = labels()
    share = np.nanmean(y, axis=0)
    adjusted = z + tau * np.log(share / (1 - share))
    terms = np.logaddexp(0, adjusted) - y * adjusted
    adjustment = torch.tensor(tau * log_frequency(count_classes(y), "multilabel"))
    assert logit_adjusted_loss(*tensors(y, z), "multilabel", adjustment).item() == pytest.approx(np.nanmean(terms), rel=1e-6)


def test_ldam_is_that_of_the_paper():
    y, z = classes()
    known = ~np.isnan(y).any(axis=1)
    count = y[known].sum(axis=0)
    margin = 0.5 * count**-0.25 / (count**-0.25).max()
    assert class_margins(count, 0.5) == pytest.approx(margin)
    weight = np.array([1.0, 2.0, 3.0, 4.0])
    losses, costs = [], []
    for target, logit in zip(y[known].argmax(axis=1), z[known], strict=True):
        own = logit.copy()
        own[target] -= margin[target]
        losses.append(-log_softmax(3.0 * own)[target])
        costs.append(weight[target])
    want = np.average(losses, weights=costs)
    margins = [torch.tensor(m) for m in label_margins(count_classes(y), "multiclass", 0.5)]
    assert ldam_loss(*tensors(y, z), "multiclass", *margins, 3.0, torch.tensor(weight)).item() == pytest.approx(want, rel=1e-6)


def test_ldam_of_a_label_is_that_of_its_two_classes():
    y = np.array([[1.0]] * 2 + [[0.0]] * 14)
    z = np.linspace(-2, 2, 16)[:, None]
    positive, negative = label_margins(count_classes(y), "binary", 0.5)
    assert (positive[0], negative[0]) == (0.5, pytest.approx(0.5 * (14 / 2) ** -0.25))
    two = np.where(y == 1, z - positive, z + negative)  # logit of positive against negative, whose own is 0
    want = np.mean(np.logaddexp(0, two) - y * two)
    args = torch.tensor(positive), torch.tensor(negative), 1.0, torch.ones(1)
    assert ldam_loss(*tensors(y, z), "binary", *args).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("name", ["effective", "focal", "asymmetric", "logit_adjustment", "ldam", "balanced_sampling", "sqrt_sampling"])
def test_unknown_labels_have_no_part_in_any_loss_and_gradients_are_finite(kind, name):
    y, z = both(kind)
    cfg = ImbalanceSettings(imbalance=name)
    if (name, kind) == ("asymmetric", "multiclass"):
        with pytest.raises(InputError, match="a loss of labels, and this task has classes"):
            build_loss(cfg, True, y, kind, np.arange(len(y)), CPU)
        return
    built = build_loss(cfg, True, y, kind, np.arange(len(y)), CPU)
    assert np.isfinite(built.shift).all()
    logits = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    target = torch.tensor(y, dtype=torch.float32)
    built.loss(logits, target, 0.9).backward()
    unknown = torch.isnan(target).any(dim=1, keepdim=True).expand_as(target) if kind == "multiclass" else torch.isnan(target)
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[unknown].any()
    assert logits.grad[~unknown].any()
    extreme = torch.tensor([[80.0] * y.shape[1], [-80.0] * y.shape[1]], requires_grad=True)
    rows = np.flatnonzero(~np.isnan(y).any(axis=1))[:2]
    built.loss(extreme, target[rows], 0.9).backward()
    assert torch.isfinite(extreme.grad).all()
    none = built.loss(logits, torch.full_like(target, float("nan")), 0.9)
    assert none.item() == 0.0


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_the_plain_setting_is_the_loss_of_earlier_versions(kind):
    y, z = both(kind)
    weight = class_weights(y, kind, True)
    built = build_loss(ImbalanceSettings(), True, y, kind, np.arange(len(y)), CPU)
    logits, target = torch.tensor(z, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    assert torch.equal(built.loss(logits, target, 0.0), supervised_loss(logits, target, torch.tensor(weight, dtype=torch.float32), kind))
    assert built.shift.tolist() == logit_shift(weight).tolist()
    assert built.row_weight is None


def test_ldam_weights_classes_late():
    y, z = classes()
    logits, target = torch.tensor(z, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    cfg = ImbalanceSettings(imbalance="ldam")
    built = build_loss(cfg, True, y, "multiclass", np.arange(len(y)), CPU)
    early, late = built.loss(logits, target, 0.79), built.loss(logits, target, 0.8)
    assert early != late
    never = build_loss(
        cfg.model_copy(update={"ldam": cfg.ldam.model_copy(update={"deferred": 1.0})}), True, y, "multiclass", np.arange(40), CPU
    )
    assert never.loss(logits, target, 0.99) == early


def test_reweighted_logits_without_their_shift_are_the_train_prevalence():
    """The optimum of a constant logit, found by a grid, gives the prevalence once the shift is subtracted."""
    y = np.array([[1.0]] * 3 + [[0.0]] * 17)
    built = build_loss(ImbalanceSettings(imbalance="effective", effective={"beta": 0.9}), True, y, "binary", np.arange(20), CPU)
    grid = np.linspace(-4, 4, 4001)
    target = torch.tensor(y, dtype=torch.float32)
    best = min(grid.tolist(), key=lambda b: float(built.loss(torch.full((20, 1), b), target, 0.0)))
    assert expit(best - built.shift[0]) == pytest.approx(0.15, abs=2e-3)
