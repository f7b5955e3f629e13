"""Published linear probes, for comparison with the tables of their papers. All take cached pooled features and single-label tasks.

thunder     nine linear heads, one for each (lr, weight decay), trained together on the same batches by Adam for 200 epochs; the head and
            epoch with the best validation macro-F1.  Source: Thunder, `train_eval_probe.py`, `config/adaptation/frozen.yaml`.
eva         one head, AdamW 3e-4 without decay, batches of 256, at most 12,500 steps, the epoch with the best validation balanced accuracy.
            Source: kaiko eva, `configs/vision/pathology/offline/classification`. Its reported mean is over 5 seeds: run 5. Departure: its
            patience differs by data set and is not applied, so that the budget is always 12,500 steps.
uni         initialised at zero, full-batch L-BFGS on mean cross-entropy + |W| / (2 D K / 100), the norm not squared, on train and
            validation rows; no hyper-parameter is chosen.  Source: UNI, `eval_patch_features/linear_probe.py`. Departure: float64.
dinov2_log  DINOv2's logistic regression: features without standardisation, 45 values of C, refitted on train + validation rows.
            Source: dinov2 `log_regression.py`. It is `linear.standardise=false linear.refit=true`.

A binary task has two classes here, with one output per class.

Shapes: N rows, D width, K classes, H heads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, permutation
from transfer.metrics import balanced_accuracy, macro_f1
from transfer.protocols.common import Features, find_labeled_rows, in_image_order
from transfer.protocols.contract import FittedProtocol
from transfer.protocols.logistic_rows import block_slices, map_rows

HeadMetric = Callable[[Array, Array, str], Array]  # (labels, probabilities, kind of task) -> values, the first is the score
THUNDER_SETTINGS = [(lr, wd) for lr in (1e-3, 1e-4, 1e-5) for wd in (0.0, 1e-3, 1e-4)]


@dataclass
class Fitted(FittedProtocol[Features]):
    """One linear map onto K classes."""

    weight: Array  # (K, D)
    bias: Array  # (K,)
    kind: str
    selection: dict[str, Any]
    val_scores: Array | None = None

    def scores(self, rows: Features) -> FloatArray:
        """(M, C) softmax probabilities; of the second class for a binary task."""
        return softmax_columns(map_rows(rows.x, self.weight.T, self.bias), self.kind)


def softmax_columns(logits: Array, kind: str) -> FloatArray:
    """(M, C) probabilities in the columns of the task from logits (M, K)."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return p if kind == "multiclass" else p[:, 1:]


def class_codes(rows: Features) -> tuple[IntArray, int]:
    """(N,) class of every row, and the number of classes. Raises InputError for a multi-label task, which the papers do not cover."""
    if rows.kind == "multiclass":
        return rows.y.argmax(axis=1), rows.y.shape[1]
    if rows.y.shape[1] != 1:
        raise InputError(
            f"this linear preset is published for single-label tasks, and the task has {rows.y.shape[1]} labels; use linear.preset=logistic"
        )
    return (rows.y[:, 0] > 0.5).astype(np.int64), 2


def fit_preset(preset: str, train: Features, val: Features, seed: int = 0) -> Fitted:
    """The probe called `preset`, trained as its authors describe."""
    all_val = val
    train, val = in_image_order(train.at(find_labeled_rows(train.y, train.kind))), val.at(find_labeled_rows(val.y, val.kind))
    if preset == "uni":
        return replace(fit_uni(train, val), val_scores=fit_uni(train).scores(all_val))
    if preset == "thunder":
        return train_linear_heads(
            train, val, THUNDER_SETTINGS, batch=64, steps=200 * -(-len(train) // 64), decoupled=False, score=macro_f1, seed=seed
        )
    return train_linear_heads(train, val, [(3e-4, 0.0)], batch=256, steps=12_500, decoupled=True, score=balanced_accuracy, seed=seed)


def train_linear_heads(
    train: Features,
    val: Features,
    settings: list[tuple[float, float]],
    batch: int,
    steps: int,
    decoupled: bool,
    score: HeadMetric,
    seed: int,
) -> Fitted:
    """Linear heads, one for each (lr, weight decay), on shared batches; keeps the head and epoch with the best `score` on `val`.

    Raises InputError when no head has a validation score."""
    truth, k = class_codes(train)
    x, y = torch.from_numpy(np.asarray(train.x, dtype=np.float32)), torch.from_numpy(truth)
    val_x = torch.from_numpy(np.asarray(val.x, dtype=np.float32))
    layers = init_linear_layers(len(settings), x.shape[1], k, seed)
    groups = [{"params": layer.parameters(), "lr": lr, "weight_decay": wd} for layer, (lr, wd) in zip(layers, settings, strict=True)]
    optimizer = (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups)
    steps_per_epoch = -(-len(x) // batch)
    best: dict[str, Any] = {"score": -np.inf}
    for step in range(steps):
        epoch, turn = divmod(step, steps_per_epoch)
        if turn == 0:
            order = torch.from_numpy(permutation(seed, Purpose.SHUFFLE, epoch, len(x)))
        rows = order[turn * batch : (turn + 1) * batch]
        optimizer.zero_grad(set_to_none=True)
        summed_cross_entropy(layers, x[rows], y[rows]).backward()
        optimizer.step()
        if turn == steps_per_epoch - 1 or step == steps - 1:
            for layer, (lr, wd) in zip(layers, settings, strict=True):
                with torch.no_grad():
                    value = _head_score(score, val, layer(val_x).double().numpy())
                if value > best["score"]:
                    kept = layer.weight.detach().double().numpy().copy(), layer.bias.detach().double().numpy().copy()
                    best = {"score": value, "lr": lr, "weight_decay": wd, "epoch": epoch + 1}
    if not np.isfinite(best["score"]):
        raise InputError("the linear preset has no validation score: the validation split has one class only; give it more patients")
    return Fitted(*kept, train.kind, best | {"steps": steps, "batch": batch})


def init_linear_layers(n: int, d: int, k: int, seed: int) -> list[nn.Linear]:
    """H linear layers with the default initialisation of torch; they depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [nn.Linear(d, k) for _ in range(n)]


def summed_cross_entropy(layers: list[nn.Linear], x: Tensor, y: Tensor) -> Tensor:
    """Sum over heads of the mean cross-entropy, from one matrix product; the gradient of a head does not depend on the others."""
    logits = F.linear(x, torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))
    many = logits.reshape(len(x), len(layers), -1)  # (B, H, K)
    total = F.cross_entropy(many.flatten(0, 1), y.repeat_interleave(len(layers)), reduction="sum")
    return total / len(x)


def _head_score(score: HeadMetric, val: Features, logits: Array) -> float:
    return float(np.nan_to_num(score(val.y, softmax_columns(logits, val.kind), val.kind)[0], nan=-np.inf))


def fit_uni(*parts: Features) -> Fitted:
    """The probe of UNI, which its authors train on train and validation rows together."""
    k = class_codes(parts[0])[1]
    x = [torch.from_numpy(part.x[rows]) for part in parts for rows in block_slices(len(part), 8 * part.x.shape[1])]  # views of the rows
    y = torch.split(torch.from_numpy(np.concatenate([class_codes(part)[0] for part in parts])), list(map(len, x)))
    n, width = sum(map(len, x)), x[0].shape[1]
    cost = width * k / 100
    weight = torch.zeros(k, width, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=1000, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = weight.norm() / (2 * cost)
        loss.backward()
        total = loss.detach()
        for rows, codes in zip(x, y, strict=True):  # in blocks: all rows in float64 would be twice the features
            loss = F.cross_entropy(rows.double() @ weight.T + bias, codes, reduction="sum") / n
            loss.backward()
            total = total + loss.detach()
        return total

    optimizer.step(closure)
    selection = {"cost": cost, "trained_on_validation": True}
    return Fitted(weight.detach().numpy(), bias.detach().numpy(), parts[0].kind, selection)
