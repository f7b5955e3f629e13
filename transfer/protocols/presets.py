"""Linear probes as others publish them, for comparison with their tables. All take cached pooled features and single-label tasks.

thunder     nine linear heads, one for each (lr, weight decay), trained together from the same batches by Adam for 200 epochs; the head and
            epoch with the best validation macro-F1.  Source: Thunder, `train_eval_probe.py`, `config/adaptation/frozen.yaml`.
eva         one head, AdamW 3e-4 without decay, batches of 256, at most 12,500 steps, the epoch with the best validation balanced accuracy.
            Source: kaiko eva, `configs/vision/pathology/offline/classification`. Their mean is over 5 seeds: run 5. Departure: its patience
            differs by data set and is not applied, so that the budget is always the 12,500 steps.
uni         zero start, full-batch L-BFGS on mean cross-entropy + |W| / (2 D K / 100), the norm not squared, on train + validation rows;
            nothing is chosen.  Source: UNI, `eval_patch_features/linear_probe.py`. Departure: float64.
dinov2_log  DINOv2's logistic regression: features as they are, 45 values of C, refitted on train + validation rows.
            Source: dinov2 `log_regression.py`. It is `linear.standardise=false linear.refit=true`.

A binary task has two classes here, with one output each.

Shapes: N rows, D width, K classes, H heads.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, permutation
from transfer.metrics import balanced_accuracy, macro_f1
from transfer.protocols.common import Array, Features, find_labeled_rows, join_features

THUNDER_SETTINGS = [(lr, wd) for lr in (1e-3, 1e-4, 1e-5) for wd in (0.0, 1e-3, 1e-4)]


@dataclass
class Fitted:
    """One linear map onto K classes."""

    weight: Array  # (K, D)
    bias: Array  # (K,)
    kind: str
    selection: dict[str, Any]
    held_out: Array | None = None  # see `common.py`

    def scores(self, x: Array) -> NDArray[np.float64]:
        """Softmax probabilities (M, C); of the second class for a binary task."""
        return softmax_columns(np.asarray(x, dtype=np.float64) @ self.weight.T + self.bias, self.kind)


def softmax_columns(logits: Array, kind: str) -> NDArray[np.float64]:
    """(M, C) probabilities in the task's columns from logits (M, K)."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    return p if kind == "multiclass" else p[:, 1:]


def class_codes(rows: Features) -> tuple[NDArray[np.int64], int]:
    """(N,) class of every row, and the number of classes. Raises InputError for a multi-label task, which these papers do not have."""
    if rows.kind == "multiclass":
        return rows.y.argmax(axis=1), rows.y.shape[1]
    if rows.y.shape[1] != 1:
        raise InputError(
            f"this linear preset is published for single-label tasks, the task has {rows.y.shape[1]} labels; use linear.preset=logistic"
        )
    return (rows.y[:, 0] > 0.5).astype(np.int64), 2


def fit(preset: str, train: Features, val: Features, seed: int = 0) -> Fitted:
    """The probe called `preset`, trained as its authors describe."""
    everyone = val
    train, val = train.at(find_labeled_rows(train.y, train.kind)), val.at(find_labeled_rows(val.y, val.kind))
    if preset == "uni":
        return replace(fit_uni(join_features(train, val)), held_out=fit_uni(train).scores(everyone.x))
    if preset == "thunder":
        return train_linear_heads(
            train, val, THUNDER_SETTINGS, batch=64, steps=200 * -(-len(train) // 64), decoupled=False, score=macro_f1, seed=seed
        )
    return train_linear_heads(train, val, [(3e-4, 0.0)], batch=256, steps=12_500, decoupled=True, score=balanced_accuracy, seed=seed)


def train_linear_heads(
    train: Features, val: Features, settings: list[tuple[float, float]], batch: int, steps: int, decoupled: bool, score: Any, seed: int
) -> Fitted:
    """Linear heads, one for each (lr, weight decay), on shared batches; the head and epoch with the best `score` on `val`."""
    truth, k = class_codes(train)
    x, y = torch.from_numpy(np.asarray(train.x, dtype=np.float32)), torch.from_numpy(truth)
    held_out = torch.from_numpy(np.asarray(val.x, dtype=np.float32))
    layers = init_linear_layers(len(settings), x.shape[1], k, seed)
    groups = [{"params": layer.parameters(), "lr": lr, "weight_decay": wd} for layer, (lr, wd) in zip(layers, settings, strict=True)]
    optimizer = (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups)
    an_epoch = -(-len(x) // batch)
    best: dict[str, Any] = {"score": -np.inf}
    for step in range(steps):
        epoch, turn = divmod(step, an_epoch)
        if turn == 0:
            order = torch.from_numpy(permutation(seed, Purpose.SHUFFLE, epoch, len(x)))
        rows = order[turn * batch : (turn + 1) * batch]
        optimizer.zero_grad(set_to_none=True)
        summed_cross_entropy(layers, x[rows], y[rows]).backward()
        optimizer.step()
        if turn == an_epoch - 1 or step == steps - 1:
            for layer, (lr, wd) in zip(layers, settings, strict=True):
                with torch.no_grad():
                    value = _head_score(score, val, layer(held_out).double().numpy())
                if value > best["score"]:
                    kept = layer.weight.detach().double().numpy().copy(), layer.bias.detach().double().numpy().copy()
                    best = {"score": value, "lr": lr, "weight_decay": wd, "epoch": epoch + 1}
    if not np.isfinite(best["score"]):
        raise InputError("the linear preset has no validation score: the validation split has one class only; give it more patients")
    return Fitted(*kept, train.kind, best | {"steps": steps, "batch": batch})


def init_linear_layers(n: int, d: int, k: int, seed: int) -> list[nn.Linear]:
    """H linear layers as torch draws them, by the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [nn.Linear(d, k) for _ in range(n)]


def summed_cross_entropy(layers: list[nn.Linear], x: Tensor, y: Tensor) -> Tensor:
    """The sum of the heads' mean cross-entropies, as one product: gradients of one head do not depend on the others."""
    logits = F.linear(x, torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))
    many = logits.reshape(len(x), len(layers), -1)  # (B, H, K)
    return F.cross_entropy(many.flatten(0, 1), y.repeat_interleave(len(layers)), reduction="sum") / len(x)


def _head_score(score: Any, val: Features, logits: Array) -> float:
    return float(np.nan_to_num(score(val.y, softmax_columns(logits, val.kind), val.kind)[0], nan=-np.inf))


def fit_uni(rows: Features) -> Fitted:
    """UNI's probe, which its authors train on train and validation rows together."""
    truth, k = class_codes(rows)
    x, y = torch.from_numpy(np.asarray(rows.x, dtype=np.float64)), torch.from_numpy(truth)
    cost = x.shape[1] * k / 100
    weight = torch.zeros(k, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=1000, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + weight.norm() / (2 * cost)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    selection = {"cost": cost, "trained_on_validation": True}
    return Fitted(weight.detach().numpy(), bias.detach().numpy(), rows.kind, selection)
