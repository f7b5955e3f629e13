"""Scores slides from their tiles: multiple-instance learning on bags of pooled features, by mean, maximum or gated attention.

mean, max   elementwise over the features of a slide, then the L2 logistic regression of `linear`.
attention   z = sum_k a_k h_k with a = softmax_k(w . (tanh(V h_k) * sigmoid(U h_k))), then a linear map onto the labels.
            Source: Ilse, Tomczak, Welling 2018 (arXiv:1802.04712), eq. 7 and 9; Adam, one bag per step.
            Departures: h are the features of the frozen encoder, standardised by the train tiles, without a layer before the attention;
            learning rate, weight decay and epoch are chosen on validation slides; all labels of a task share one attention.

Shapes: K tiles of a bag, N slides, M slides to score, D width, H hidden units, C labels or classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import Config as Base
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator, permutation
from transfer.losses.supervised import supervised_loss
from transfer.protocols import linear
from transfer.protocols.common import Bags, Features, best_candidate, find_labeled_rows, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select
from transfer.protocols.logistic import logits_to_probabilities
from transfer.protocols.logistic_rows import mean_and_inverse_std

VERSION = 2
NEEDS: Needs = "bags"


class Config(Base):
    """How the tiles of a slide are pooled; the lists are grids from which validation slides choose."""

    pooling: Literal["mean", "max", "attention"] = Field("attention", description="gated attention, or the mean or maximum of the features")
    hidden: int = Field(128, ge=1, description="attention: units of V and U; 128 as in Ilse et al.")
    lr: tuple[float, ...] = Field((1e-4, 1e-3), description="attention: grid of learning rates of Adam")
    weight_decay: tuple[float, ...] = Field((1e-2, 1e-4), description="attention: grid of L2 penalties")
    epochs: int = Field(50, ge=1, description="attention: passes over the train slides; the best epoch is kept")
    seed: int = Field(0, description="attention: seed of the initialisation and of the order of slides; mean and max use none")


class GatedAttention(nn.Module):
    """Maps a bag (K, D) to logits (C,) and the weight (K,) of every tile."""

    def __init__(self, width: int, hidden: int, outputs: int, seed: int):
        super().__init__()
        draw = generator(seed, Purpose.MODEL)
        self.v, self.u, self.w = (
            nn.Parameter(torch.from_numpy(draw.uniform(-1, 1, shape) / np.sqrt(shape[-1])).float())
            for shape in ((hidden, width), (hidden, width), (hidden,))
        )
        self.head, self.bias = nn.Parameter(torch.zeros(outputs, width)), nn.Parameter(torch.zeros(outputs))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.tanh(h @ self.v.T) * torch.sigmoid(h @ self.u.T)  # (K, H)
        a = torch.softmax(gate @ self.w, dim=0)  # (K,)
        return self.head @ (a @ h) + self.bias, a


@dataclass
class FittedPooling(FittedProtocol[Bags]):
    """Logistic regression on the mean or the maximum of the tiles of a slide."""

    pooling: str
    model: FittedProtocol[Features]
    selection: dict[str, Any]
    val_scores: Array | None = None

    def scores(self, rows: Bags) -> FloatArray:
        """(M, C) probabilities."""
        return self.model.scores(pool_bags(rows, self.pooling))


@dataclass
class FittedAttention(FittedProtocol[Bags]):
    """The attention at its best epoch. mean, scale: (D,) of train tiles."""

    network: GatedAttention
    mean: Array
    scale: Array
    kind: str
    selection: dict[str, Any]

    def scores(self, rows: Bags) -> FloatArray:
        """(M, C) probabilities."""
        return predict_bags(self.network, standardise_bags(rows, self.mean, self.scale), self.kind)

    def tile_weights(self, rows: Bags) -> list[FloatArray]:
        """The attention of every tile of each slide, (K,), which sums to 1."""
        with torch.no_grad():
            return [self.network(h)[1].double().numpy() for h in standardise_bags(rows, self.mean, self.scale)]


def fit(cfg: Config, train: Bags, val: Bags, select: Select = validation_score, log: Log | None = None) -> FittedProtocol[Bags]:
    """Fits on train slides, chooses on validation slides. Raises InputError for fewer than two labeled train slides."""
    labeled = np.flatnonzero(find_labeled_rows(train.y, train.kind))
    if len(labeled) < 2:
        raise InputError(f"mil needs at least two labeled train slides, and the split has {len(labeled)}; check the task's label column")
    if cfg.pooling == "attention":
        return fit_attention(cfg, train, labeled, val, select)
    model = linear.fit(linear.Config(), pool_bags(train, cfg.pooling), pool_bags(val, cfg.pooling), select)
    return FittedPooling(cfg.pooling, model, {"pooling": cfg.pooling, **model.selection}, model.val_scores)


def pool_bags(bags: Bags, pooling: str) -> Features:
    """One row per slide: the mean (in float64) or the maximum of its tiles."""
    start = bags.ends[:-1]
    if pooling == "max":
        x = np.maximum.reduceat(bags.x, start, axis=0)
    else:
        x = np.add.reduceat(bags.x, start, axis=0, dtype=np.float64) / np.diff(bags.ends)[:, None]
    return Features(x.astype(np.float32), bags.y, bags.key, bags.patient, bags.kind)


def standardise_bags(bags: Bags, mean: Array, scale: Array) -> list[Tensor]:
    """One tensor (K, D) per slide, float32."""
    return [torch.from_numpy(((bags.bag(i) - mean) * scale).astype(np.float32)) for i in range(len(bags))]


def predict_bags(network: GatedAttention, bags: list[Tensor], kind: str) -> FloatArray:
    """(M, C) probabilities."""
    with torch.no_grad():
        logits = torch.stack([network(h)[0] for h in bags])
    return logits_to_probabilities(logits.double().numpy(), kind)


def fit_attention(cfg: Config, train: Bags, labeled: Array, val: Bags, select: Select) -> FittedAttention:
    """The attention whose learning rate, weight decay and epoch are best on `val`; the first of the grid among equals."""
    mean, scale = mean_and_inverse_std([train.x])
    train_bags, val_bags = standardise_bags(train, mean, scale), standardise_bags(val, mean, scale)
    y = torch.from_numpy(np.asarray(train.y, dtype=np.float32))
    table: list[dict[str, Any]] = []
    kept, top = None, -np.inf
    for lr in cfg.lr:
        for decay in cfg.weight_decay:
            network = GatedAttention(train.x.shape[1], cfg.hidden, train.y.shape[1], cfg.seed)
            for epoch, loss in enumerate(train_epochs(cfg, network, train_bags, y, labeled, train.kind, lr, decay), 1):
                score = float(select(val.y, predict_bags(network, val_bags, val.kind)))
                table.append({"lr": lr, "weight_decay": decay, "epoch": epoch, "score": score, "loss": loss})
                if score > top:
                    kept, top = {name: value.clone() for name, value in network.state_dict().items()}, score
    chosen = best_candidate(table)
    assert kept is not None  # `best_candidate` refuses a table without a finite score
    network.load_state_dict(kept)
    return FittedAttention(network, mean, scale, train.kind, {"pooling": "attention", **chosen, "table": table})


def train_epochs(
    cfg: Config, network: GatedAttention, bags: list[Tensor], y: Tensor, labeled: Array, kind: str, lr: float, decay: float
) -> Iterator[float]:
    """Trains with one slide per step, as published, and yields the mean loss (nats) of every epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=decay)
    equal_weights = torch.ones(y.shape[1])
    for epoch in range(cfg.epochs):
        losses = []
        for i in labeled[permutation(cfg.seed, Purpose.SHUFFLE, epoch, len(labeled))]:
            loss = supervised_loss(network(bags[i])[0][None], y[i][None], equal_weights, kind)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        yield float(np.mean(losses))
